"""The lite towers: shapes, sizes, gradients, folding."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mobileclip2_lite.models.reparameterization import fold, is_folded, reparameterize, summary
from mobileclip2_lite.models.resolve import lite_names, resolve
from mobileclip2_lite.models.trimming import trim
from mobileclip2_lite.models.zoo import create_model

FOLDABLE = [name for name in lite_names() if "mci" in resolve(name).model_cfg["vision_cfg"]["timm_model_name"]]
PLAIN = next(name for name in lite_names() if name not in FOLDABLE)


def stirred(name):
    """A model whose every branch counts: weights of usual size, random batch norms, layer scale far from its start."""
    torch.manual_seed(0)
    loaded = create_model(name)
    with torch.no_grad():
        for key, parameter in loaded.model.named_parameters():
            if key.endswith("gamma"):
                parameter.uniform_(0.3, 0.7)
        for layer in loaded.model.modules():
            if isinstance(layer, nn.Conv2d):  # the lite towers start small, which would hide the stem's part
                nn.init.kaiming_normal_(layer.weight)
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.normal_(0, 0.2)
                layer.running_var.uniform_(0.5, 2.0)
                layer.weight.uniform_(0.5, 1.5)
                layer.bias.normal_(0, 0.2)
    return loaded.model


CLIPS = [name for name in lite_names() if name != "lite-coca"]
"""The lite models that do not write: captioners have tests of their own (test_captioner.py)."""


@pytest.mark.parametrize("name", CLIPS)
def test_towers_agree_on_shape_and_every_parameter_learns(name):
    model = create_model(name).model.train()
    images = model.encode_image(torch.rand(4, 3, 64, 64), normalize=True)
    texts = model.encode_text(torch.randint(1, 4095, (4, model.context_length)), normalize=True)
    assert images.shape == texts.shape
    (images @ texts.T * model.logit_scale.exp()).log_softmax(-1).diagonal().sum().backward()
    assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("name", [name for name in lite_names() if "teacher" in name])
def test_embedded_teachers_fit_12_mb_in_half_precision(name):
    assert 2 * sum(tensor.numel() for tensor in create_model(name).model.state_dict().values()) < 11.8e6


def test_stages_of_the_lite_mci():
    four, five = (create_model(name).model.visual.trunk for name in ("lite-mci-s", "lite-mci5-s"))
    assert [stage["reduction"] for stage in four.feature_info] == [4, 8, 16, 32]
    assert [stage["reduction"] for stage in five.feature_info] == [4, 8, 16, 32, 64]
    mixers = [type(stage.blocks[0]).__name__ for stage in five.stages]
    assert mixers == ["RepMixerBlock"] * 3 + ["AttentionBlock"] * 2


@pytest.mark.parametrize("name", FOLDABLE)
def test_reparameterized_equals_original(name):
    model = stirred(name).train()
    before = copy.deepcopy(model.state_dict())
    result = reparameterize(model, repeats=1)
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not result.model.training
    assert is_folded(result.model)
    assert not is_folded(model)
    assert result.difference < 1e-5
    assert result.parameters[0] > result.parameters[1]
    assert result.modules[0] > result.modules[1]
    assert "parameters fewer" in str(result)
    assert "model" not in summary(result)
    images = torch.rand(3, 3, 64, 64, dtype=torch.float64)
    exact, folded = model.double().eval().encode_image(images), fold(model.double()).encode_image(images)
    torch.testing.assert_close(folded, exact, rtol=1e-9, atol=1e-12)
    tokens = torch.randint(1, 4095, (2, model.context_length))
    assert torch.equal(result.model.double().encode_text(tokens), model.encode_text(tokens))


def test_plain_and_folded_models_cannot_be_folded():
    with pytest.raises(ValueError, match="no branches to fold"):
        reparameterize(create_model(PLAIN).model)
    with pytest.raises(ValueError, match="no branches to fold"):
        reparameterize(fold(create_model("lite-mci-s").model))


def test_a_wrong_fold_is_noticed(monkeypatch):
    from mobileclip2_lite.models import reparameterization

    def broken(model):
        folded = fold(model)
        with torch.no_grad():
            folded.visual.trunk.stem[0].reparam_conv.bias += 0.5
        return folded

    monkeypatch.setattr(reparameterization, "fold", broken)
    with pytest.raises(ValueError, match="folding changed the model"):
        reparameterize(stirred("lite-mci-s"), repeats=1)


def test_fold_of_one_block_by_hand():
    """A MobileOne block as the sum it is: k x k, 1 x 1 and identity, each with batch norm, in one 3 x 3 kernel."""
    block = stirred("lite-mci-s").visual.trunk.stages[0].blocks[0].token_mixer.mixer.eval()
    channels = block.conv_scale.conv.weight.shape[0]
    images = torch.rand(2, channels, 9, 9)
    branches = [(block.conv_kxk[0].conv.weight, block.conv_kxk[0].bn)]
    branches.append((F.pad(block.conv_scale.conv.weight, [1] * 4), block.conv_scale.bn))
    identity = torch.zeros(channels, 1, 3, 3)
    identity[:, 0, 1, 1] = 1
    branches.append((identity, block.identity))
    kernel, bias = 0, 0
    for weight, norm in branches:
        factor = norm.weight / (norm.running_var + norm.eps).sqrt()
        kernel = kernel + weight * factor[:, None, None, None]
        bias = bias + norm.bias - norm.running_mean * factor
    by_hand = F.conv2d(images, kernel, bias, padding=1, groups=channels)
    torch.testing.assert_close(by_hand, block(images), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", CLIPS)
def test_trimming_is_exact(name):
    torch.manual_seed(0)
    loaded = create_model(name)
    tokens = loaded.tokenizer(["a red apple", "two cats and a dog"])
    short = trim(loaded.model, tokens)
    assert short.shape[1] < tokens.shape[1]
    with torch.no_grad():
        whole, cut = loaded.model.encode_text(tokens), loaded.model.encode_text(short)
    torch.testing.assert_close(cut, whole, atol=1e-5, rtol=1e-4)
