"""The lite towers: shapes, sizes, gradients."""

from __future__ import annotations

import pytest
import torch

from mobileclip2_lite.models.zoo import create_model, list_models


@pytest.mark.parametrize("name", list_models())
def test_towers_agree_on_shape_and_every_parameter_learns(name):
    model = create_model(name).model.train()
    images = model.encode_image(torch.rand(4, 3, 64, 64), normalize=True)
    texts = model.encode_text(torch.randint(1, 4095, (4, 32)), normalize=True)
    assert images.shape == texts.shape
    (images @ texts.T * model.logit_scale.exp()).log_softmax(-1).diagonal().sum().backward()
    assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("name", ["lite-teacher-conv", "lite-teacher-mci"])
def test_embedded_teachers_fit_12_mb_in_half_precision(name):
    assert 2 * sum(tensor.numel() for tensor in create_model(name).model.state_dict().values()) < 11.8e6
