"""Grouped convolutions of small images for a CPU: the same numbers as torch's, in less time.

Ours. A FastViT's depthwise convolutions, and those with two outputs a channel that halve its maps, are a twentieth of
a lite student's work and were half of its time: oneDNN's backward passes go through every tap of a 7x7 kernel even
where the map has four places, and a group with two outputs misses its depthwise kernels altogether. Two cases are
computed otherwise here; all grouped convolutions are in float32 whatever the autocast, as oneDNN has no fast bf16
backward pass for them:

    1x1 kernels             a product with one number a channel
    kernels on small maps   one matrix (places in, places out) a channel, made from the kernel: a batched matrix product

docs/lab_log.md has the times. Taught by notebooks/50_architecture_and_latency.ipynb.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def speed_up_grouped_convolutions(model: nn.Module) -> None:
    """Let every grouped convolution of `model` choose its way by the size of its input; weights stay where they are."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            module._conv_forward = functools.partial(_forward, module)


def _forward(module: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        x, weight = x.float(), weight.float()
        bias = None if bias is None else bias.float()
        if not _is_plain(module):
            return nn.Conv2d._conv_forward(module, x, weight, bias)
        outputs, kernel = module.out_channels // module.groups, module.kernel_size[0]
        if kernel == 1:
            y = scaled(x, weight, module.stride[0])
        elif as_matrices_is_faster(x.shape[-2] * x.shape[-1], kernel, outputs):
            y = as_matrices(x, weight, module.stride[0], module.padding[0])
        else:
            return nn.Conv2d._conv_forward(module, x, weight, bias)
        return y if bias is None else y + bias[:, None, None]


def _is_plain(module: nn.Conv2d) -> bool:
    """One input channel a group, all sides equal, zeros around: what the functions below are written for."""
    one_channel = module.groups == module.in_channels
    square = len({*module.kernel_size}) == len({*module.stride}) == 1 and len({module.padding, module.stride}) <= 2
    padding = not isinstance(module.padding, str) and len({*module.padding}) == 1
    return one_channel and square and padding and set(module.dilation) == {1} and module.padding_mode == "zeros"


def as_matrices_is_faster(places: int, kernel: int, outputs: int) -> bool:
    """Whether matrices over all `places` of a map beat oneDNN's kernel of `kernel` squared taps (measured)."""
    taps = kernel**2
    return places <= 4 * taps if outputs > 1 else kernel >= 5 and places <= taps


def scaled(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """A 1x1 convolution of groups of one channel: (N, C, H, W) and (C * M, 1, 1, 1) to (N, C * M, H', W')."""
    channels = x.shape[1]
    kept = x[:, :, ::stride, ::stride].permute(0, 2, 3, 1)
    factors = weight.view(channels, -1)
    y = kept * factors[:, 0] if factors.shape[1] == 1 else (kept.unsqueeze(-1) * factors).flatten(-2)
    return y.permute(0, 3, 1, 2)


def as_matrices(x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """A convolution of groups of one channel as one matrix product a channel.

    Args:
        x: (N, C, H, W) in channels-last layout.
        weight: (C * M, 1, K, K).

    Returns:
        (N, C * M, H', W') in channels-last layout.
    """
    count, channels, height, width = x.shape
    outputs, kernel = weight.shape[0] // channels, weight.shape[-1]
    taps = taps_between(height, width, kernel, stride, padding)
    high, wide = ((side + 2 * padding - kernel) // stride + 1 for side in (height, width))
    padded = F.pad(weight.reshape(channels, outputs, kernel**2), (0, 1))  # the last tap is the zero outside the kernel
    matrices = padded.index_select(2, taps.flatten()).view(channels, outputs, *taps.shape)
    matrices = matrices.permute(0, 2, 1, 3).reshape(channels, height * width, -1)
    # as a plain transposition of a matrix, for which torch has a fast copy
    rows = x.permute(0, 2, 3, 1).reshape(-1, channels).t().contiguous().view(channels, count, height * width)
    y = torch.bmm(rows, matrices)
    if outputs == 1:
        return y.view(channels, -1).t().contiguous().view(count, high, wide, channels).permute(0, 3, 1, 2)
    y = y.view(channels, count, outputs, high, wide).permute(1, 3, 4, 0, 2)
    return y.reshape(count, high, wide, channels * outputs).permute(0, 3, 1, 2)


@functools.lru_cache(maxsize=64)
def taps_between(height: int, width: int, kernel: int, stride: int, padding: int) -> Tensor:
    """(H * W, H' * W'): the kernel's tap that takes each place in to each place out; kernel**2 where none does."""

    def along(side: int) -> tuple[Tensor, Tensor]:
        places_out = (side + 2 * padding - kernel) // stride + 1
        tap = torch.arange(side)[:, None] - stride * torch.arange(places_out) + padding
        return tap, (tap >= 0) & (tap < kernel)

    (rows, in_rows), (columns, in_columns) = along(height), along(width)
    tap = rows[:, None, :, None] * kernel + columns[None, :, None, :]
    inside = in_rows[:, None, :, None] & in_columns[None, :, None, :]
    return torch.where(inside, tap, kernel**2).reshape(height * width, -1)
