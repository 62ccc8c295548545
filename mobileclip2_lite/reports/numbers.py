"""Measured numbers for people: how each measure is called, means with deviations, percent.

Reads a run's JSON, writes nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mobileclip2_lite.work.files import read_object
from mobileclip2_lite.work.folder import read_manifest

LABELS = {
    "zero_shot": "zero-shot, top-1",
    "zero_shot_top5": "zero-shot, top-5",
    "retrieval_i2t_r1": "image to text, R@1",
    "retrieval_i2t_r5": "image to text, R@5",
    "retrieval_t2i_r1": "text to image, R@1",
    "retrieval_t2i_r5": "text to image, R@5",
    "binding": "attribute binding",
    "relations": "spatial relations",
    "zero_shot_grey": "zero-shot, grey",
    "zero_shot_sketch": "zero-shot, sketch",
    "zero_shot_cluttered": "zero-shot, cluttered",
    "zero_shot_unseen_backgrounds": "zero-shot, unseen backgrounds",
}
"""Measures in the order of the table."""


def read_json(path: Path) -> Any:
    """A JSON file of a run; raises FileNotFoundError that says what is missing."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: run the pipeline of this folder to its end first")
    return read_object(path)


def evaluated_seeds(folder: Path) -> list[int]:
    """The seeds that a run's folder has results of: of several evaluations, those of the one with most."""
    return max((seeds_of(path.parent) for path in folder.glob("evaluation*/manifest.json")), key=len, default=[])


def seeds_of(evaluation: Path) -> list[int]:
    """The seeds of one finished evaluation."""
    names = read_manifest(evaluation)["inputs"]
    return sorted(int(name.removeprefix("student-seed")) for name in names if name.startswith("student-seed"))


def mean_and_deviation(seeds: Sequence[Mapping[str, float]], measure: str) -> tuple[float, float | None]:
    """Mean over the seeds and their sample standard deviation; None for the deviation of a single seed."""
    values = [seed[measure] for seed in seeds]
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def percent(value: float, deviation: float | None = None) -> str:
    """`0.123, 0.004` as `12.3 ± 0.4`."""
    return f"{100 * value:.1f}" + (f" ± {100 * deviation:.1f}" if deviation is not None else "")
