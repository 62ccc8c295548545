"""How a step moves the weights: decay groups, schedule, clipping, moving average.

The training set-up of MobileCLIP2: AdamW, betas 0.9 and 0.95, decay 0.2, clip 1.0, cosine with warm-up. Differs from
the paper: Muon, with which students of minutes learn in a third of the samples (docs/lab_log.md), and an exponential
moving average of the weights are offered; a paper's recipe takes neither. The average's buffers (batch norm's
statistics) are the raw model's. Which parameters decay: see `decay_groups`.
Taught by notebooks/40_reinforced_training.ipynb.
"""

from __future__ import annotations

import copy
import functools
import math
from typing import Any

import torch
from torch import Tensor, nn

from mobileclip2_lite.models.loaded import usable_precision

OPTIMIZERS = ("adamw", "nmuon")
"""AdamW (the paper's), and timm's Muon with Nesterov momentum."""


def optimizer(
    model: nn.Module, name: str, learning_rate: float, betas: tuple[float, float], decay: float
) -> torch.optim.Optimizer:
    """The optimiser called `name`, with weight decay on matrices and kernels only.

    `nmuon` is timm's Muon (Keller Jordan, kellerjordan.github.io/posts/muon): the momentum of every matrix, and of
    every kernel as a matrix (out, in times its area), is orthogonalised before it is a step, so that each layer turns
    by the same share of itself whatever its gradient's size. Vectors, layer scales and depthwise kernels, which are
    no matrices, take NAdamW's steps at the same rate and with the same `betas`, whose first is Muon's momentum, too.

    Raises:
        ValueError: `name` is unknown.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer {name!r} is unknown: one of {', '.join(OPTIMIZERS)}")
    decayed, free = decay_groups(model)
    groups = [{"params": decayed, "weight_decay": decay}, {"params": free, "weight_decay": 0.0}]
    groups = [group for whole in groups for group in _by_kind(whole)]
    if name == "nmuon":
        from timm.optim import create_optimizer_v2

        _orthogonalise_in_usable_precision()
        return create_optimizer_v2(groups, opt="nmuon", lr=learning_rate, momentum=betas[0], betas=betas)
    fused = all(p.device.type in ("cpu", "cuda") for group in groups for p in group["params"])
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, eps=1e-8, fused=fused)


def _orthogonalise_in_usable_precision() -> None:
    """On a CPU without bf16 instructions, let timm's Muon multiply its matrices in float32.

    timm multiplies them in bf16 and takes no other type. Such a CPU emulates that: with AVX2 alone a step of recipe
    `lite` took 2.8 seconds, 2.4 of them here, and takes 0.5 (docs/lab_log.md). On GPUs nothing changes.
    """
    from timm.optim import muon

    whole = muon.zeropower_via_newtonschulz
    if usable_precision("bf16", torch.device("cpu")) == "bf16" or getattr(whole, "in_usable_precision", False):
        return

    @functools.wraps(whole)
    def orthogonalised(matrix: Tensor, *args: Any, **options: Any) -> Tensor:
        if matrix.device.type == "cpu":
            options.setdefault("dtype", torch.float32)
        return whole(matrix, *args, **options)

    orthogonalised.in_usable_precision = True
    muon.zeropower_via_newtonschulz = orthogonalised


def load_state(optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Take over a `state_dict`; moments are laid out in memory as their weights are.

    Fused steps take that for granted and would give a kernel in channels-last order the moments of other numbers; a
    training in parts (`sharding`) leaves moments in plain order.
    """
    optimizer.load_state_dict(state)
    for parameter, found in optimizer.state.items():
        for name, value in found.items():
            if torch.is_tensor(value) and value.shape == parameter.shape and value.stride() != parameter.stride():
                found[name] = torch.empty_like(parameter).copy_(value)


def _by_kind(group: dict) -> list[dict]:
    """A group as one or none; as two where some of its parameters are cut (`sharding`): no step takes both kinds."""
    kinds: dict[bool, list[nn.Parameter]] = {}
    for parameter in group["params"]:
        kinds.setdefault(is_cut(parameter), []).append(parameter)
    return [{**group, "params": parameters} for parameters in kinds.values()]


def is_cut(tensor: torch.Tensor) -> bool:
    """Whether this process holds a part of the tensor only."""
    return hasattr(tensor, "to_local")


def decay_groups(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Trainable parameters with weight decay, and those without: biases, norms, every scale.

    Differs from open_clip, whose rule the authors' run has (no decay with fewer than two axes, or "bn", "ln", "bias" or
    "logit_scale" in the name): layer scales of shape (C, 1, 1) and 1x1 depthwise kernels (C, 1, 1, 1), which are one
    number a channel, have no decay here and have it there.
    """
    decayed, free = [], []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        # one axis longer than 1: also the layer scales of shape (C, 1, 1)
        vector = parameter.numel() == max(parameter.shape, default=1)
        (free if vector or name.endswith((".bias", "logit_scale")) else decayed).append(parameter)
    return decayed, free


def learning_rate(step: int, steps: int, peak: float, warmup: float, floor: float = 0.0) -> float:
    """The rate after `step` of `steps` steps: linear to `peak` over the share `warmup`, then cosine to `floor`."""
    rising = max(1, round(warmup * steps)) if warmup > 0 else 0
    if step < rising:
        return peak * (step + 1) / rising
    return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


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
