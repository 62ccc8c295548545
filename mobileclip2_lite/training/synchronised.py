"""Batch norms that see the samples of all processes, on any device.

Ours; what torch.nn.SyncBatchNorm does, which refuses a CPU. Each process's means and variances are gathered and made
those of all samples, however many each process has; backwards, the two sums that couple samples are summed over
processes. Gradients of weights are this process's part, summed with all others' after the pass. Reads and writes
nothing. Gives up: torch's fused kernels for a GPU, and the one-pass branches of a CPU (`branches`), which know one
process alone.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mobileclip2_lite.training.distributed import Processes


def synchronise_batch_norms(model: nn.Module, processes: Processes) -> None:
    """Let every batch norm of `model` normalise by the samples of all processes while it trains.

    All of them must then call the model equally often, in the same order.
    """
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.forward = functools.partial(_forward, module, processes.size)


def _forward(norm: _BatchNorm, size: int, x: Tensor) -> Tensor:
    if not norm.training:
        return type(norm).forward(norm, x)
    y, mean, variance, count = _Normalised.apply(x, norm.weight, norm.bias, norm.eps, size)
    if norm.track_running_stats:
        _note(norm, mean, variance, count)
    for name in ("drop", "act"):  # timm's batch norms have what follows them within
        if hasattr(norm, name):
            y = getattr(norm, name)(y)
    return y


@torch.no_grad()
def _note(norm: _BatchNorm, mean: Tensor, variance: Tensor, count: Tensor) -> None:
    norm.num_batches_tracked += 1
    momentum = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), momentum)
    unbiased = variance * (count / (count - 1).clamp(min=1))
    norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), momentum)


class _Normalised(torch.autograd.Function):
    """x (N, C, ...) normalised over all processes, times weight plus bias (C,); beside it means, variances, count."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, size: int) -> tuple:
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        variance, mean = torch.var_mean(wide, _all_but_channels(x), correction=0)
        own = torch.cat([mean, variance, mean.new_full((1,), x.numel() // x.shape[1])])
        every = [torch.empty_like(own) for _ in range(size)]
        dist.all_gather(every, own)
        means, variances, counts = torch.stack(every).split([len(mean), len(mean), 1], dim=1)
        count = counts.sum()
        mean = (counts * means).sum(0) / count
        variance = (counts * (variances + (means - mean).square())).sum(0) / count
        factor = torch.rsqrt(variance + eps)
        ctx.save_for_backward(x, weight, mean, factor, count)
        ctx.mark_non_differentiable(mean, variance, count)
        scale = factor if weight is None else factor * weight
        shift = -mean * scale if bias is None else bias - mean * scale
        return (wide * _along(scale, x) + _along(shift, x)).to(x.dtype), mean, variance, count

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, weight, mean, factor, count = ctx.saved_tensors
        dims = _all_but_channels(x)
        wide = gradient.to(mean.dtype)
        normed = (x.to(mean.dtype) - _along(mean, x)) * _along(factor, x)
        of_bias, of_weight = wide.sum(dims), (wide * normed).sum(dims)
        coupled = torch.stack([of_bias, of_weight])  # every sample moves the mean and variance of all
        dist.all_reduce(coupled)
        coupled = coupled / count
        inner = wide - _along(coupled[0], x) - normed * _along(coupled[1], x)
        scale = factor if weight is None else factor * weight
        return (inner * _along(scale, x)).to(x.dtype), *(
            found if wanted else None
            for found, wanted in zip((of_weight, of_bias), ctx.needs_input_grad[1:3], strict=True)
        ), None, None  # fmt: skip


def _all_but_channels(x: Tensor) -> tuple[int, ...]:
    return (0, *range(2, x.ndim))


def _along(channels: Tensor, x: Tensor) -> Tensor:
    """A vector (C,) beside x (N, C, ...)."""
    return channels.view(1, -1, *[1] * (x.ndim - 2))
