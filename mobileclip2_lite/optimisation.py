"""How a step moves the weights: decay groups, schedule, clipping, precision, moving average.

Paper: the training set-up of MobileCLIP2 (AdamW, betas 0.9 and 0.95, decay 0.2, clip 1.0, cosine with warm-up, bf16).
Reads and writes nothing. Differs from the paper: an exponential moving average of the weights is offered, off by
default. Taught by notebooks/40_reinforced_training.ipynb.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Autocast type of each precision."""


def optimizer(model: nn.Module, learning_rate: float, betas: tuple[float, float], decay: float) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices and kernels only."""
    decayed, free = decay_groups(model)
    groups = [{"params": decayed, "weight_decay": decay}, {"params": free, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    fused = all(p.device.type in ("cpu", "cuda") for group in groups for p in group["params"])
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, eps=1e-8, fused=fused)


def decay_groups(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Trainable parameters with weight decay, and those without: biases, norms, every scale."""
    decayed, free = [], []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        # one axis longer than 1: also the layer scales of shape (C, 1, 1)
        vector = parameter.numel() == max(parameter.shape, default=1)
        (free if vector or name.endswith((".bias", "logit_scale")) else decayed).append(parameter)
    return decayed, free


def learning_rate(step: int, steps: int, peak: float, warmup: float) -> float:
    """The rate after `step` of `steps` steps: linear to `peak` over the share `warmup`, then cosine to 0."""
    rising = max(1, round(warmup * steps)) if warmup > 0 else 0
    if step < rising:
        return peak * (step + 1) / rising
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def usable_precision(precision: str, device: torch.device) -> str:
    """`precision`, or `fp32` for `bf16` on a CPU without bf16 instructions, where emulating them is many times slower.

    Raises:
        ValueError: `precision` is unknown.
    """
    if precision not in DTYPES:
        raise ValueError(f"precision {precision!r} is unknown: one of {', '.join(DTYPES)}")
    if precision == "bf16" and device.type == "cpu" and not cpu_has_bf16():
        return "fp32"
    return precision


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies in bf16 (AVX512-BF16 or AMX), as far as torch says."""
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(check is not None and check() for check in checks)


@contextlib.contextmanager
def autocast(precision: str, device: torch.device) -> Iterator[None]:
    """Run matrix products in `bf16` or `fp16`, or everything in `fp32`."""
    dtype = DTYPES[precision]
    with torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None, cache_enabled=True):
        yield


@contextlib.contextmanager
def attention(precision: str, device: torch.device, tokens: int) -> Iterator[None]:
    """Take torch's plain attention where its fused one is the slower.

    That is on a CPU, in bf16, for short sequences: there the fused backward pass takes 2 to 10 times as long
    (docs/lab_log.md).
    """
    if device.type == "cpu" and precision == "bf16" and tokens <= 128:
        from torch.nn.attention import SDPBackend, sdpa_kernel

        with sdpa_kernel(SDPBackend.MATH):
            yield
    else:
        yield


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


class Ema:
    """An exponential moving average of a model's weights; its buffers follow the model's."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"the decay of the moving average must lie between 0 and 1, not {decay}")
        self.decay = decay
        self.model = copy.deepcopy(model).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, model: nn.Module, steps: int) -> None:
        """Move towards `model`; the first `steps` count more, so that the random start is forgotten."""
        decay = min(self.decay, (1 + steps) / (10 + steps))
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), 1 - decay)
        for mine, other in zip(self.model.buffers(), model.buffers(), strict=True):
            mine.copy_(other)


def clip_(model: nn.Module, most: float) -> Tensor:
    """Scale the gradients so that their norm is at most `most` (0: leave them); returns the norm before."""
    return nn.utils.clip_grad_norm_(model.parameters(), most if most > 0 else float("inf"))
