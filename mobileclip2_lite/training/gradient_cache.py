"""Exact gradient caching: the contrast of a large batch with the activations of a small one.

Paper: none; GradCache (Gao et al. 2021, arXiv 2101.06983) makes the paper's batches of 8,192 and more fit a small
machine. Reads and writes nothing. The loss needs all features at once, but each tower's backward pass needs only the
gradient of its features: so run the towers chunk by chunk without keeping activations, differentiate the loss by the
features, then run each chunk again with activations and push its piece of that gradient through. Differs from a plain
step in time (one more forward pass), not in gradients; with batch normalisation, each chunk is normalised by its own
samples. Taught by notebooks/40_reinforced_training.ipynb.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

Tower = tuple[Callable[[Tensor], Tensor], Tensor]
"""An encoder and its input (B, ...), encoded independently row by row: features (B, D)."""


def backward(
    towers: Sequence[Tower],
    loss: Callable[..., Tensor],
    chunk: int = 0,
    module: nn.Module | None = None,
    recompute: bool = False,
    most: Callable[[int], int] | None = None,
) -> list[Tensor]:
    """Leave d loss(features...) / d parameters in `.grad`, as `loss(*features).backward()` would; returns the features.

    Args:
        towers: encoders with their inputs; the inputs may differ in length.
        loss: takes one (B, D) feature tensor a tower, returns the scalar to differentiate. Its own parameters (a logit
            scale) get their gradients too.
        chunk: rows with activations at a time; 0 runs everything at once, the plain step.
        module: the model, whose batch norms must count each sample once although it passes twice.
        recompute: whether the towers compute activations again in the backward pass (gradient checkpointing), so that
            samples pass once more.
        most: gives the largest of all processes' numbers, where processes meet within a tower: then all of them run
            each tower equally often, whatever samples one of them lacks.
    """
    again = module if recompute else None
    parts = [max(1, math.ceil(len(rows) / chunk)) if chunk else 1 for _, rows in towers]
    if most and chunk:
        parts = [most(count) for count in parts]
    if parts == [1] * len(towers):
        features = [encode(rows) for encode, rows in towers]
        total = loss(*features)
        with statistics_untouched(again):
            total.backward()
        return features
    cached, states = [], []
    with torch.no_grad(), statistics_untouched(module):
        for (encode, rows), count in zip(towers, parts, strict=True):
            pieces = []
            for piece in split(rows, chunk, count):
                states.append(_random_state(rows.device))
                pieces.append(_encode(encode, piece, rows))
            cached.append(torch.cat(pieces).requires_grad_())
    loss(*cached).backward()
    after = _random_state(towers[0][1].device)
    turn = iter(states)
    for (encode, rows), whole, count in zip(towers, cached, parts, strict=True):
        for piece, gradient in zip(split(rows, chunk, count), split(whole.grad, chunk, count), strict=True):
            _set_random_state(next(turn), rows.device)  # the same dropout as in the first pass
            features = _encode(encode, piece, rows)
            with statistics_untouched(again):
                if features.requires_grad:  # else it comes from a locked tower
                    features.backward(gradient)
    _set_random_state(after, towers[0][1].device)
    return cached


def split(rows: Tensor, chunk: int, count: int) -> tuple[Tensor, ...]:
    """Rows in `count` pieces of `chunk`; in even ones, some perhaps empty, where they are too few for so many."""
    pieces = rows.split(chunk) if chunk else (rows,)
    return pieces if len(pieces) == count else rows.tensor_split(count)


def _encode(encode: Callable[[Tensor], Tensor], piece: Tensor, rows: Tensor) -> Tensor:
    """Features of a piece; of an empty one none, but a row makes the pass, because the other processes wait for it."""
    return encode(piece) if len(piece) else encode(rows[:1])[:0]


@contextlib.contextmanager
def statistics_untouched(module: nn.Module | None) -> Iterator[None]:
    """Batch norms normalise as in training, but leave their running statistics alone."""
    norms = [m for m in module.modules() if getattr(m, "track_running_stats", False)] if module is not None else []
    before = [(norm, norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, batches in before:
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(batches)


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _set_random_state(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
