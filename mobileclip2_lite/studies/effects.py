"""What a claim is measured by: a difference of two rows, how many times as much one takes, or what a law had said.

Reads recorded lines, writes nothing. Every effect is taken seed by seed, between rows that share pairs, views, captions
and order, and comes with an interval over the seeds. A row's learning curve is that of the validation split.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mobileclip2_lite import recipes
from mobileclip2_lite.studies import intervals, scaling
from mobileclip2_lite.studies.intervals import Interval
from mobileclip2_lite.studies.rows import ROWS

Lines = Sequence[Mapping[str, Any]]
"""A row's lines, one a seed."""

GROUPS = {"retrieval_t2i_r1": 5}
"""Five captions of an image are one item of the bootstrap."""


def hits_by_seed(lines: Lines, measure: str) -> dict[int, np.ndarray]:
    """Seed -> the hits of one measure."""
    return {
        line["seed"]: intervals.unpack(line["hits"][measure], line["items"][measure])
        for line in lines
        if measure in line["hits"]
    }


def difference(first: Lines, second: Lines, measure: str) -> Interval | None:
    """`first` minus `second` in one measure of the test split, over seeds and items; None without a common seed."""
    hits = (hits_by_seed(lines, measure) for lines in (first, second))
    return intervals.difference(*hits, GROUPS.get(measure, 1))


def reach(line: Mapping[str, Any], level: float, measure: str = "zero_shot") -> int | None:
    """Seen samples at the first evaluation that found `level` or more; None if none did.

    Nothing is interpolated: the level may have been reached earlier, never later.
    """
    curve = line["curve"]
    return next((n for n, value in zip(curve["samples"], curve[measure], strict=True) if value >= level), None)


def price(row: str, prices: Lines) -> float:
    """CPU seconds that a row's data takes before any training, the mean of the `price` lines."""
    needs = ["caption"] if ROWS[row].changes.get("captioners") else []
    needs += ["reinforce"] if ROWS[row].base == "student" else []
    return float(np.mean([sum(line["stages"][stage] for stage in needs) for line in prices]))


def rate(row: str, prices: Lines) -> float:
    """CPU seconds a sample of a row's training, the mean of the `price` lines.

    Raises:
        KeyError: they do not time this row's training.
    """
    row = {"control, full": "control", "student, full": "+ ensemble"}.get(row, row)
    return float(np.mean([line["rates"][row] for line in prices]))


def samples_factor(first: Lines, second: Lines) -> Interval | None:
    """How many times as many samples `second` takes to its own last accuracy as `first` takes to the same."""
    return _factors(first, second, lambda n, m: m / n)


def seconds_factor(first: Lines, second: Lines, prices: Lines, trainings: float = math.inf) -> Interval | None:
    """The same of CPU seconds, the price of each one's data shared by so many trainings; None where it is not known."""
    if not (first and second and prices):
        return None
    rows = first[0]["row"], second[0]["row"]
    (mine, other), (once, too) = [rate(row, prices) for row in rows], [price(row, prices) / trainings for row in rows]
    return _factors(first, second, lambda n, m: (m * other + too) / (n * mine + once))


def _factors(first: Lines, second: Lines, factor: Callable[[int, int], float]) -> Interval | None:
    """Of the samples at which the first and the second are where the second ends, over the seeds that both have.

    No interval where the first never gets there.
    """
    pairs = [(line, other) for line in first for other in second if line["seed"] == other["seed"]]
    if not pairs:
        return None
    logs = []
    for line, other in pairs:
        level = other["curve"]["zero_shot"][-1]
        there = reach(line, level)
        if there is not None:
            logs.append(math.log(factor(there, reach(other, level))))
    found = intervals.of_seeds(logs, times=True)
    return found if len(logs) == len(pairs) else found._replace(low=None, high=None)


def live_factor(prices: Lines) -> Interval | None:
    """How many times as many CPU seconds a sample takes when the teachers run along."""
    logs = [math.log(line["rates"]["live teachers"] / line["rates"]["+ ensemble"]) for line in prices]
    return intervals.of_seeds(logs, times=True) if logs else None


def size(line: Mapping[str, Any], of: str) -> int:
    """How many `samples` or `pairs` a line was trained on."""
    if of == "samples":
        return line["samples"]
    word, _, count = line["data"].partition(" ")
    return int(count) if word == "first" else recipes.named(line["recipe"]).pairs.count


def law_of(rows: Sequence[Lines], of: str, measure: str = "zero_shot") -> scaling.Extrapolation | None:
    """The law of the rows' mean errors but for the largest, which tries it; None unless three are recorded."""
    there = [lines for lines in rows if lines]
    if len(there) < len(rows) or len(there) < 3:
        return None
    errors = [1 - float(np.mean([line["metrics"][measure] for line in lines])) for lines in there]
    return scaling.extrapolate([size(lines[0], of) for lines in there], errors)


def law_miss(rows: Sequence[Lines], of: str, measure: str = "zero_shot") -> Interval | None:
    """By how much the largest row's accuracy is above what the law of the others said, seed by seed."""
    by_seed = [{line["seed"]: [line] for line in lines} for lines in rows]
    shared = sorted(set.intersection(*(set(found) for found in by_seed))) if by_seed else []
    laws = [law_of([found[seed] for found in by_seed], of, measure) for seed in shared]
    misses = [law.said - law.measured for law in laws if law is not None]
    return intervals.of_seeds(misses) if misses else None
