"""A detour that a CPU needs: strided 1x1 convolutions by slicing. It gives the same numbers (docs/lab_log.md)."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn


def strided_pointwise_by_slicing(model: nn.Module) -> None:
    """Let 1x1 convolutions with a stride (MobileOne's stem has one) drop the pixels first: the same numbers.

    For the CPU: oneDNN of torch 2.14 writes outside its memory in the backward pass of such a convolution of 3 channels
    in channels-last layout at 224 pixels and more, and the process dies (docs/lab_log.md).
    """
    for module in model.modules():
        pointwise = isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.padding == (0, 0)
        if pointwise and module.groups == 1 and max(module.stride) > 1:
            module._conv_forward = functools.partial(_sliced_convolution, module.stride)


def _sliced_convolution(stride: tuple[int, int], x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    kept = x[:, :, :: stride[0], :: stride[1]].contiguous(memory_format=torch.channels_last)
    return nn.functional.conv2d(kept, weight, bias)
