"""The parallel batch norms of a re-parameterisable block as one pass over its tensors, for training on a CPU.

Ours. While it trains, a block of MobileOne, FastViT's RepMixer or a large-kernel convolution adds up to four batch
norms of the same one or two tensors, and torch reads and writes each of them three times. But a batch norm is a factor
and a shift for every channel, once mean and variance are known, and so is the sum of several. So here each tensor's
mean and variance are taken once, factors and shifts of all branches are computed for the channels alone, and the
block is `a * x + b * y + c`: the same numbers, running statistics included, in a third of the passes. timm's modules
keep their parameters; only `forward` is another while they train. docs/lab_log.md has the times.
Taught by notebooks/50_architecture_and_latency.ipynb.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from timm.layers import ConvNormAct
from timm.models.fastvit import LayerScale2d, MobileOneBlock, ReparamLargeKernelConv, RepMixer
from torch import Tensor, nn

Coefficients = tuple[list[Tensor], Tensor]
"""A factor (C,) for each tensor, and the shift (C,) of their sum."""


def add_up_branches(model: nn.Module) -> None:
    """Let the multi-branch blocks of `model` add their batch norms in one pass while they train."""
    ways = {MobileOneBlock: _mobile_one, RepMixer: _rep_mixer, ReparamLargeKernelConv: _large_kernel}
    for module in model.modules():
        way = ways.get(type(module))
        if way is not None and module.reparam_conv is None and _are_plain(module):
            module.forward = functools.partial(_forward, module, way)


def _are_plain(block: nn.Module) -> bool:
    """Whether all norms in the block are batch norms with weights and running statistics, with nothing behind them."""
    norms = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)]
    branches = [module for module in block.modules() if isinstance(module, ConvNormAct)]
    simple = all(type(branch.bn.act) is nn.Identity and type(branch.bn.drop) is nn.Identity for branch in branches)
    return simple and all(norm.affine and norm.track_running_stats and norm.momentum is not None for norm in norms)


def _forward(block: nn.Module, way: Callable[[Any, Tensor], Tensor], x: Tensor) -> Tensor:
    return way(block, x) if block.training else type(block).forward(block, x)


class Norm:
    """A batch norm of `scale` times a tensor (`scale` (C,) or None for 1), as a factor and a shift."""

    def __init__(self, norm: nn.BatchNorm2d, scale: Tensor | None = None) -> None:
        self.norm, self.scale = norm, scale

    def parameters(self) -> list[Tensor]:
        """What is learned."""
        return [self.norm.weight, self.norm.bias] + ([] if self.scale is None else [self.scale])

    @torch.no_grad()
    def note(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Move the running statistics towards those of this batch, of `count` values a channel."""
        norm = self.norm
        if self.scale is not None:
            mean, variance = self.scale * mean, self.scale**2 * variance
        norm.num_batches_tracked += 1
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(variance * (count / max(1, count - 1)), norm.momentum)

    def coefficients(self, mean: Tensor, variance: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Factor and shift (C,) for a batch with that mean and variance (biased)."""
        weight, bias, *scale = parameters
        if scale:
            factor = weight * scale[0] * torch.rsqrt(scale[0] ** 2 * variance + self.norm.eps)
        else:
            factor = weight * torch.rsqrt(variance + self.norm.eps)
        return factor, bias - factor * mean


def _mobile_one(block: MobileOneBlock, x: Tensor) -> Tensor:
    tensors, norms = _branches(block, x)
    return block.act(block.se(_sum(tensors, norms)))


def _branches(block: MobileOneBlock, x: Tensor) -> tuple[list[Tensor], list[list[Norm]]]:
    """The tensors that a block normalises, and the norms of each; the block's own input first where it is one."""
    own = [] if block.identity is None else [Norm(block.identity)]
    others: list[tuple[Tensor, list[Norm]]] = []
    if block.conv_scale is not None:
        convolution = block.conv_scale.conv
        if convolution.groups == convolution.out_channels and convolution.stride == (1, 1):  # a factor a channel
            own.append(Norm(block.conv_scale.bn, convolution.weight.flatten()))
        else:
            others.append((convolution(x), [Norm(block.conv_scale.bn)]))
    others += [(branch.conv(x), [Norm(branch.bn)]) for branch in block.conv_kxk or ()]
    every = [(x, own), *others] if own else others
    return [tensor for tensor, _ in every], [norms for _, norms in every]


def _rep_mixer(block: RepMixer, x: Tensor) -> Tensor:
    """`x + layer_scale * (mixer(x) - norm(x))`, whose norm is one batch norm of x."""
    tensors, norms = _branches(block.mixer, x)
    scale = block.layer_scale.gamma if isinstance(block.layer_scale, LayerScale2d) else None
    return _sum(tensors, norms, Norm(block.norm.identity), scale)


def _large_kernel(block: ReparamLargeKernelConv, x: Tensor) -> Tensor:
    branches = [block.large_conv, *([block.small_conv] if hasattr(block, "small_conv") else [])]
    tensors, norms = [branch.conv(x) for branch in branches], [[Norm(branch.bn)] for branch in branches]
    return block.act(block.se(_sum(tensors, norms)))


def _sum(
    tensors: list[Tensor], norms: list[list[Norm]], less: Norm | None = None, layer_scale: Tensor | None = None
) -> Tensor:
    """The sum of all norms of all tensors; with `less`, `x + layer_scale * (sum - less(x))` for the first tensor x."""
    counts = [len(norm.parameters()) for group in norms for norm in group]
    parameters = [p for group in norms for norm in group for p in norm.parameters()]
    if less is not None:
        parameters += [*less.parameters(), *([] if layer_scale is None else [layer_scale.flatten()])]

    def coefficients(moments: list[tuple[Tensor, Tensor]], parameters: Sequence[Tensor]) -> Coefficients:
        factors, shifts, rest = [], [], list(parameters)
        sizes = iter(counts)
        for group, moment in zip(norms, moments, strict=True):
            pieces = []
            for norm in group:
                size = next(sizes)
                pieces.append(norm.coefficients(*moment, rest[:size]))
                del rest[:size]
            factors.append(sum(factor for factor, _ in pieces))
            shifts += [shift for _, shift in pieces]
        shift = sum(shifts)
        if less is not None:
            factor, own = less.coefficients(*moments[0], rest[:2])
            scale = rest[2] if layer_scale is not None else torch.ones_like(factor)
            factors[0] = factors[0] - factor
            factors = [scale * factor for factor in factors]
            factors[0], shift = factors[0] + 1, scale * (shift - own)
        return factors, shift

    with torch.autocast(tensors[0].device.type, enabled=False):
        tensors = [tensor.float().contiguous(memory_format=torch.channels_last) for tensor in tensors]
        groups = [[*group, less] if less is not None and index == 0 else group for index, group in enumerate(norms)]
        return _WeightedSum.apply(coefficients, groups, len(tensors), *tensors, *parameters)


class _WeightedSum(torch.autograd.Function):
    """Tensors times factors plus a shift, all of which follow from the tensors' means and variances."""

    @staticmethod
    def forward(
        ctx: Any, coefficients: Callable[..., Coefficients], norms: list[list[Norm]], number: int, *inputs: Tensor
    ) -> Tensor:
        tensors, parameters = inputs[:number], inputs[number:]
        count = tensors[0].numel() // tensors[0].shape[1]
        moments = [torch.batch_norm_update_stats(tensor, None, None, 0.0) for tensor in tensors]
        for group, moment in zip(norms, moments, strict=True):
            for norm in group:
                norm.note(*moment, count)
        with torch.enable_grad():  # for the channels alone; the tensors' gradients are written out below
            leaves = [value.detach().requires_grad_() for moment in moments for value in moment]
            own = [parameter.detach().requires_grad_() for parameter in parameters]
            pairs = list(zip(leaves[::2], leaves[1::2], strict=True))
            factors, shift = coefficients(pairs, own)
        ctx.save_for_backward(*tensors)
        ctx.channels = leaves, own, factors, shift
        ctx.count = count
        out = None
        for tensor, factor in zip(tensors, factors, strict=True):
            rows, wide = _wide(tensor, factor.detach())
            if out is None:
                out = torch.addcmul(_wide(tensor, shift.detach())[1], rows, wide)
            else:
                out.addcmul_(rows, wide)
        return _narrow(out, tensors[0])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        tensors, (leaves, own, factors, shift), count = ctx.saved_tensors, ctx.channels, ctx.count
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        rows = _wide(gradient)[0]
        channels = gradient.shape[1]
        of_factors = [(_wide(tensor)[0] * rows).sum(0).view(-1, channels).sum(0) for tensor in tensors]
        of_shift = rows.sum(0).view(-1, channels).sum(0)
        found = torch.autograd.grad([*factors, shift], [*leaves, *own], [*of_factors, of_shift], allow_unused=True)
        results: list[Tensor | None] = []
        for index, (tensor, factor) in enumerate(zip(tensors, factors, strict=True)):
            mean, of_mean, of_variance = leaves[2 * index].detach(), found[2 * index], found[2 * index + 1]
            slope = of_variance * (2 / count)  # d variance / d x = 2 (x - mean) / count
            start = of_mean / count - slope * mean
            wide = [_wide(tensor, vector)[1] for vector in (factor.detach(), slope, start)]
            out = torch.addcmul(wide[2], rows, wide[0]).addcmul_(_wide(tensor)[0], wide[1])
            results.append(_narrow(out, tensor))
        return None, None, None, *results, *found[2 * len(tensors) :]


def _wide(tensor: Tensor, vector: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """A channels-last tensor as (rows, k * C), a vector (C,) repeated k times: rows of few channels are slow."""
    channels = tensor.shape[1]
    rows = tensor.permute(0, 2, 3, 1).reshape(-1, channels)
    repeat = 1
    while repeat * channels < 512 and rows.shape[0] % (2 * repeat) == 0:
        repeat *= 2
    return rows.view(-1, repeat * channels), None if vector is None else vector.repeat(repeat)


def _narrow(rows: Tensor, like: Tensor) -> Tensor:
    """Rows of `_wide` as a channels-last tensor of the shape of `like`."""
    count, channels, height, width = like.shape
    return rows.view(count, height, width, channels).permute(0, 3, 1, 2)
