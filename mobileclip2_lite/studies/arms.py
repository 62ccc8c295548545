"""Arms of a study: a recorded line holds every test item's hit of one arm and seed, a table sets arms side by side.

A line has `study`, `arm`, `seed`, `hits` (measure -> `items`, `together`, packed `hits`) and `chance`; the rest says
how it was made. A model that was not trained here, a teacher or the weights that a training starts from, has the seed
None and stands beside every seed. Intervals are those of `intervals`, over seeds and items, paired by both. Ours; read
by `photograph_page`, which writes docs/photographs.md. Taught by notebooks/80_your_own_data.ipynb.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mobileclip2_lite.reports.page import Table
from mobileclip2_lite.studies import intervals, recorded
from mobileclip2_lite.studies.ledger import shown_effect
from mobileclip2_lite.work.json_lines import append_lines

Line = Mapping[str, Any]
Arm = Mapping[int | None, Line]
"""Seed -> line."""


def packed(values: np.ndarray, together: int = 1) -> dict[str, Any]:
    """Hits (N,) for a line; `together` of them share an image, side by side, and are resampled as one."""
    return {"items": len(values), "together": together, "hits": intervals.pack(values)}


def append(path: Path, line: Line, same: Sequence[str] = ("study", "arm", "seed", "settings", "data")) -> None:
    """Add a line to a JSON-lines file, unless one with the same values of `same` stands there."""
    if not any(all(one.get(key) == line.get(key) for key in same) for one in recorded.read_lines(path)):
        append_lines(path, [line])


def by_arm(lines: Sequence[Line]) -> dict[str, Arm]:
    """Arm -> its lines by seed, in the order of their first lines; the newest line of a seed."""
    arms: dict[str, dict[int | None, Line]] = {}
    for line in lines:
        arms.setdefault(line["arm"], {})[line["seed"]] = line
    return arms


def hits(arm: Arm, measure: str, beside: Arm | None = None) -> dict[int, np.ndarray]:
    """Seed -> hits of one measure; an untrained model's stand at each seed of `beside`, or at 0."""
    seeds = [seed for seed in beside or {} if seed is not None] or [0]
    found: dict[int, np.ndarray] = {}
    for seed, line in arm.items():
        values = intervals.unpack(line["hits"][measure]["hits"], line["hits"][measure]["items"])
        found |= dict.fromkeys(seeds if seed is None else [seed], values)
    return found


def effect(first: Arm, second: Arm, measure: str) -> intervals.Interval | None:
    """`first` minus `second`; None where they share no seed."""
    together = next(iter(first.values()))["hits"][measure]["together"]
    return intervals.difference(hits(first, measure, second), hits(second, measure, first), together)


def table(
    lines: Sequence[Line], labels: Mapping[str, str], differences: Sequence[tuple[str, str]] = (), title: str = "%"
) -> Table:
    """Each arm's mean over its seeds, in percent, what guessing scores, and differences of arms with 95 % intervals.

    Args:
        lines: of one study.
        labels: measure -> column.
        differences: (first, second) arms; pairs of which one has no line are left out.
    """
    arms, width = by_arm(lines), len(labels) + 2
    rows = []
    for name, arm in arms.items():
        means = [np.mean(list(hits(arm, measure).values())) for measure in labels]
        seeds = sum(seed is not None for seed in arm)
        rows.append([name, *(f"{100 * mean:.1f}" for mean in means), str(seeds or "not trained here")])
    if lines:
        rows.append(["guessing", *(f"{100 * lines[-1]['chance'][measure]:.1f}" for measure in labels), ""])
    for first, second in differences:
        if first in arms and second in arms:
            found = [effect(arms[first], arms[second], measure) for measure in labels]
            seeds = next((str(one.seeds) for one in found if one), "0")
            rows.append([f"{first} − {second}", *map(shown_effect, found), seeds])
    if not rows:
        rows = [["not recorded", *[""] * (width - 1)]]
    return Table([title, *labels.values(), "seeds"], rows)
