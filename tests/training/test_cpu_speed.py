"""The CPU's short cuts through a tower give what timm's and open_clip's modules give: values, gradients, statistics."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from mobileclip2_lite.models.zoo import create_model
from mobileclip2_lite.training.branches import add_up_branches
from mobileclip2_lite.training.grouped_convolutions import as_matrices_is_faster, speed_up_grouped_convolutions


def outcome(module: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The output, and the gradients of the input and all parameters for a fixed random gradient of the output."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    y = module(x)
    (y * torch.randn(y.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    return y.detach(), {"input": x.grad, **{name: p.grad for name, p in module.named_parameters()}}


def assert_same(module: nn.Module, changed: nn.Module, x: torch.Tensor, tolerance: float = 2e-5) -> None:
    (y, gradients), (other, others) = outcome(module, x), outcome(changed, x)
    assert (y - other).norm() <= tolerance * y.norm()
    for name, gradient in gradients.items():
        assert (others[name] - gradient).norm() <= tolerance * gradient.norm() + 1e-4, name


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "outputs", "bias"),
    [(6, 7, 1, 1, True), (6, 7, 2, 2, False), (3, 7, 2, 2, True), (2, 3, 1, 2, True), (2, 7, 1, 1, False)],
)
def test_convolutions_as_matrices_are_the_same(size, kernel, stride, outputs, bias):
    torch.manual_seed(0)
    plain = nn.Conv2d(6, 6 * outputs, kernel, stride, kernel // 2, groups=6, bias=bias)
    changed = copy.deepcopy(plain)
    speed_up_grouped_convolutions(changed)
    assert as_matrices_is_faster(size * size, kernel, outputs)
    x = torch.randn(5, 6, size, size).to(memory_format=torch.channels_last)
    assert_same(plain, changed, x)
    assert changed(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("stride", "outputs"), [(1, 1), (2, 1), (1, 2)])
def test_pointwise_convolutions_of_single_channels_are_products(stride, outputs):
    torch.manual_seed(0)
    plain = nn.Conv2d(4, 4 * outputs, 1, stride, groups=4)
    changed = copy.deepcopy(plain)
    speed_up_grouped_convolutions(changed)
    assert_same(plain, changed, torch.randn(3, 4, 7, 5))


@pytest.mark.parametrize(
    "other",
    [
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Conv2d(4, 4, (5, 7), padding=(2, 3), groups=4),
        nn.Conv2d(4, 8, 7, padding=3, groups=4, dilation=2),
        nn.Conv2d(4, 4, 7, padding=3, groups=4, padding_mode="circular"),
        nn.Conv2d(4, 4, 7, padding="same", groups=4),
        nn.Conv2d(4, 4, 7, stride=(1, 2), padding=3, groups=4),
    ],
)
def test_other_grouped_convolutions_stay_torchs(other):
    changed = copy.deepcopy(other)
    speed_up_grouped_convolutions(changed)
    assert_same(other, changed, torch.randn(2, 4, 9, 9))


def test_grouped_convolutions_stay_in_fp32_under_autocast():
    module = nn.Sequential(nn.Conv2d(4, 4, 7, padding=3, groups=4), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 1))
    speed_up_grouped_convolutions(module)
    with torch.autocast("cpu", torch.bfloat16):
        assert module[:1](torch.randn(1, 4, 5, 5)).dtype == torch.float32
        assert module[:2](torch.randn(1, 4, 5, 5)).dtype == torch.float32
        assert module(torch.randn(1, 4, 5, 5)).dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["lite-mci-s", "lite-mci-m"])
def test_branches_added_up_are_the_same(name):
    """Values, gradients and running statistics of a whole image tower, and the evaluation that follows from them."""
    torch.manual_seed(0)
    loaded = create_model(name)
    plain = loaded.model.visual.train()
    changed = copy.deepcopy(plain)
    speed_up_grouped_convolutions(changed)
    add_up_branches(changed)
    assert any("forward" in vars(module) for module in changed.modules())
    size = loaded.preprocess.image_size
    x = torch.rand(4, 3, size, size).to(memory_format=torch.channels_last)
    assert_same(plain, changed, x, 2e-4)
    state = changed.state_dict()
    assert state.keys() == plain.state_dict().keys()
    for key, value in plain.named_buffers():
        assert torch.allclose(state[key].float(), value.float(), rtol=1e-4, atol=1e-5), key
    with torch.inference_mode():
        assert torch.allclose(changed.eval()(x), plain.eval()(x), atol=1e-4)


def test_branches_of_a_copy_are_its_own():
    """A moving average is a deep copy of the model: its blocks must not run with the original's weights."""
    model = create_model("lite-mci-s").model.visual.train()
    add_up_branches(model)
    copied = copy.deepcopy(model)
    x = torch.rand(2, 3, 48, 48)
    before = copied(x)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    assert torch.allclose(copied(x), before, atol=1e-5)


def test_folded_blocks_and_other_norms_are_left_alone():
    model = create_model("lite-mci-s").model.visual.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # a cumulative average: not what `branches` writes
    add_up_branches(model)
    assert not any("forward" in vars(module) for module in model.modules())
