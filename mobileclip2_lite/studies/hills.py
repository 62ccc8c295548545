"""Where the top of each hill lies: accuracy over a teacher's logit scale, and what cannot be told from the best.

Reads recorded lines, writes a section of docs/claims.md. A hill is one teacher in one circumstance: its own, a smaller
batch, fewer wrong texts, a weaker teacher. Nothing is smoothed: the best is the highest mean, and every other scale is
compared with it seed by seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mobileclip2_lite.studies import effects, recorded
from mobileclip2_lite.studies.rows import HILLS, SCALES


class Hill(NamedTuple):
    """One teacher's accuracies over its logit scale."""

    means: Mapping[int, float]
    """Logit scale -> mean over the seeds; those that are recorded."""
    best: int
    """The scale of the highest mean."""
    near: tuple[int, ...]
    """Other scales whose difference from the best has an interval that holds zero, or none."""
    seeds: int
    """Of the scale that has the fewest."""


def hill(rows: recorded.Ladder, named: Mapping[int, str], measure: str = "zero_shot") -> Hill | None:
    """The hill of some rows by logit scale; None unless two scales are recorded."""
    lines = {scale: rows[row] for scale, row in named.items() if rows.get(row)}
    if len(lines) < 2:
        return None
    means = {scale: recorded.mean(rows, named[scale], measure) for scale in lines}
    best = max(means, key=means.__getitem__)
    near = []
    for scale in lines:
        found = effects.difference(lines[best], lines[scale], measure) if scale != best else None
        if scale != best and (found is None or found.low is None or found.low <= 0):
            near.append(scale)
    return Hill(means, best, tuple(near), min(map(len, lines.values())))


def section(lines: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]] | None:
    """Header and rows of the hills that are recorded: zero-shot in percent at each scale; None without one."""
    rows = recorded.by_row(lines)
    found = {label: hill(rows, named) for label, named in HILLS.items()}
    table = [
        [
            label,
            *(f"{100 * made.means[scale]:.1f}" if scale in made.means else "" for scale in SCALES),
            str(made.best),
            ", ".join(map(str, made.near)) or "none",
            str(made.seeds),
        ]
        for label, made in found.items()
        if made is not None
    ]
    header = ["teacher", *map(str, SCALES), "best", "not told from it", "seeds"]
    return (header, table) if table else None
