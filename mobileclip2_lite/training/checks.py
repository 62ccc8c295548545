"""Contradictions in a training's settings that can be seen before anything is loaded. Reads and writes nothing."""

from __future__ import annotations

from mobileclip2_lite.models.loaded import DTYPES
from mobileclip2_lite.recipes import Train
from mobileclip2_lite.shards.sample_reader import check_texts
from mobileclip2_lite.training.optimizer import OPTIMIZERS


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
    check_texts(settings.texts, settings.captioners)
    if settings.stop_on and not settings.evaluate_every:
        raise ValueError(f"stop_on={settings.stop_on!r} needs evaluations to look at: set evaluate_every")
    if settings.samples < settings.batch_size:
        raise ValueError(
            f"samples ({settings.samples}) is less than one batch ({settings.batch_size}): raise samples or lower "
            "batch_size"
        )


def check_division(settings: Train, processes: int) -> None:
    """Look whether a batch can be split.

    Raises:
        ValueError: it cannot, evenly.
    """
    shares = processes * settings.accumulate
    if settings.batch_size % shares:
        raise ValueError(
            f"batch_size {settings.batch_size} cannot be split evenly over {processes} process(es) times "
            f"accumulate={settings.accumulate}: make it a multiple of {shares}"
        )
