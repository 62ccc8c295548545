"""Three detours that a CPU needs: grouped convolutions in fp32, strided 1x1 convolutions by slicing.

Both give the same numbers; docs/lab_log.md has what they save.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn


def grouped_convolutions_in_fp32(model: nn.Module) -> None:
    """Keep depthwise and other grouped convolutions out of autocast.

    For the CPU: oneDNN has no fast bf16 backward pass for them, and this nearly doubles the speed of a FastViT step
    (docs/lab_log.md). Their products are a small part of the work, and fp32 is the more exact of the two.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            module._conv_forward = functools.partial(_fp32_convolution, module)


def _fp32_convolution(module: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        return nn.Conv2d._conv_forward(module, x.float(), weight.float(), None if bias is None else bias.float())


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
