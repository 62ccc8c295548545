"""Contradictions in a training's settings that can be seen before anything is loaded. Reads and writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mobileclip2_lite.models.loaded import DTYPES
from mobileclip2_lite.recipes import Train
from mobileclip2_lite.shards.sample_reader import check_texts
from mobileclip2_lite.training.optimizer import OPTIMIZERS

PARALLEL = ("ddp", "fsdp")
"""How several processes share a model."""


def check(settings: Train) -> None:
    """Look for contradictions that can be seen before anything is loaded.

    Raises:
        ValueError: there is one; names the field.
    """
    positive = ("samples", "batch_size", "accumulate", "candidates", "log_every")
    for name in positive:
        if getattr(settings, name) < 1:
            raise ValueError(f"{name} is {getattr(settings, name)}; it must be at least 1")
    if settings.precision not in DTYPES:
        raise ValueError(f"precision {settings.precision!r} is unknown: one of {', '.join(DTYPES)}")
    if settings.optimizer not in OPTIMIZERS:
        raise ValueError(f"optimizer {settings.optimizer!r} is unknown: one of {', '.join(OPTIMIZERS)}")
    if (settings.distill or settings.candidates > 1) and settings.views == "weak" and not settings.online:
        raise ValueError(
            "views='weak' has no stored embeddings to distil from or to select by: views='stored', online=True, or "
            "distill=0 and candidates=1"
        )
    if settings.parallel not in PARALLEL:
        raise ValueError(f"parallel {settings.parallel!r} is unknown: one of {', '.join(PARALLEL)}")
    check_texts(settings.texts, settings.captioners)
    if settings.stop_on and not settings.evaluate_every:
        raise ValueError(f"stop_on={settings.stop_on!r} needs evaluations to look at: set evaluate_every")
    if settings.samples < settings.batch_size:
        raise ValueError(
            f"samples ({settings.samples}) is less than one batch ({settings.batch_size}): raise samples or lower "
            "batch_size"
        )


def check_division(settings: Train, processes: int) -> None:
    """Look whether a batch can be split, and the model, if it shall be.

    Raises:
        ValueError: a batch cannot, evenly; or a setting needs the whole model.
    """
    shares = processes * settings.accumulate
    if settings.batch_size % shares:
        raise ValueError(
            f"batch_size {settings.batch_size} cannot be split evenly over {processes} process(es) times "
            f"accumulate={settings.accumulate}: make it a multiple of {shares}"
        )
    if settings.parallel == "fsdp" and processes > 1:
        _check_parts(settings)
    if settings.sync_batch_norm and settings.compile and processes > 1:
        raise ValueError("sync_batch_norm meets other processes within a tower; compile makes it one graph: choose one")


def check_found(steps: Sequence[int], out: Path) -> None:
    """Look whether all processes found the same checkpoint; `steps` are theirs, by rank.

    Raises:
        ValueError: they did not.
    """
    if len(set(steps)) > 1:
        raise ValueError(
            f"{out}: the processes found checkpoints of different steps ({list(steps)}, by rank): train to a folder "
            "that all machines share, or to a bucket"
        )


def _check_parts(settings: Train) -> None:
    """Look whether a step can do without the whole model."""
    reasons = {
        "optimizer": settings.optimizer == "nmuon" and "Muon orthogonalises whole matrices: optimizer='adamw'",
        "precision": settings.precision == "fp16" and "one loss scale cannot follow all parts: precision='bf16'",
        "ema": settings.ema and "the average is a second whole model: ema=0",
        "compile": settings.compile and "a tower's one graph cannot gather its blocks in turn: compile=False",
        "captioning": settings.captioning and "a captioner's step calls its towers in pieces: captioning=0",
    }
    for name, why in reasons.items():
        if why:
            raise ValueError(
                f"parallel='fsdp' gives each process a part of the model, and {name} is {getattr(settings, name)!r}: "
                f"{why}, or parallel='ddp'"
            )
