"""1x1 convolutions with a stride, whose backward pass kills the process on a CPU: the same numbers without it.

MobileCLIP2's stem (MobileOne) has one. oneDNN of torch 2.14 writes outside its memory in the backward pass of such a
convolution of 3 channels in channels-last layout: from 224 pixels on with AVX-512, at every size with AVX2 alone
(docs/lab_log.md). Whatever trains a model meets it, so models are made without. Reads and writes nothing.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn


def slice_strided_pointwise(model: nn.Module) -> None:
    """Let strided 1x1 convolutions drop the pixels first where a CPU computes gradients in channels-last layout."""
    for module in model.modules():
        pointwise = isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.padding == (0, 0)
        if pointwise and module.groups == 1 and max(module.stride) > 1:
            module._conv_forward = functools.partial(_convolution, module.stride)


def _convolution(stride: tuple[int, int], x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    channels_last = not x.is_contiguous() or weight.stride(-1) > 1  # of a 1x1 kernel only its strides tell
    if channels_last and x.device.type == "cpu" and torch.is_grad_enabled():
        kept = x[:, :, :: stride[0], :: stride[1]].contiguous(memory_format=torch.channels_last)
        return nn.functional.conv2d(kept, weight, bias)
    return nn.functional.conv2d(x, weight, bias, stride)
