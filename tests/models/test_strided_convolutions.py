"""The 1x1 convolution with a stride that kills a process on a CPU: the same numbers in a way that does not."""

import copy
import pickle

import pytest
import torch

from mobileclip2_lite.models.strided_convolutions import slice_strided_pointwise
from mobileclip2_lite.models.zoo import create_model


def test_sliced_convolutions_give_the_same_numbers():
    torch.manual_seed(0)
    plain = torch.nn.Conv2d(3, 5, 1, stride=2)  # in plain layout, in which nothing dies
    sliced = copy.deepcopy(plain)
    slice_strided_pointwise(torch.nn.Sequential(sliced))
    assert "_conv_forward" in vars(sliced)
    x = torch.randn(2, 3, 7, 8)
    assert torch.equal(plain(x), sliced(x))  # in plain layout the very same operation
    sliced.to(memory_format=torch.channels_last)
    for module in (plain, sliced):
        module(x).square().sum().backward()
    assert torch.allclose(plain(x), sliced(x), atol=1e-6)
    assert torch.allclose(plain.weight.grad, sliced.weight.grad, rtol=1e-5, atol=1e-5)
    assert torch.allclose(plain.bias.grad, sliced.bias.grad, rtol=1e-5, atol=1e-5)
    copies = (copy.deepcopy(sliced), pickle.loads(pickle.dumps(sliced)))
    assert all(torch.allclose(one(x), plain(x), atol=1e-6) for one in copies)


@pytest.mark.parametrize("side", [64, 224])
def test_a_model_learns_in_channels_last_on_a_cpu(side):
    """Dies with signal 6 or 11 where the convolution is left as it is."""
    model = create_model("lite-mci-m", image_size=side).model.train().to(memory_format=torch.channels_last)
    images = torch.rand(2, 3, side, side).to(memory_format=torch.channels_last)
    model.encode_image(images).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.visual.parameters())
