"""What a claim is measured by: a difference of two rows, how many times as much one takes, or what a law had said.

Reads recorded lines, writes nothing. Every effect is taken seed by seed, between rows that share pairs, views, captions
and order, and comes with an interval over the seeds. A row's learning curve is that of the validation split.

Retrieval is judged by R@5, the mean of both directions: R@1 of rows this short is 0 to 6 %, where a few scenes make the
difference. Lines keep each scene's hit of R@1 alone; of R@5 they keep the mean over the scenes. So its interval takes
the seeds as they are, and from the items as large a part of the largest possible error as R@1 of the same two rows has:
hits among five fall together more often than hits of one, so this is not too little.
"""

from __future__ import annotations

import functools
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

CAPTIONS = 5
"""Captions of a test scene."""
RETRIEVAL = "retrieval_r5"
"""R@5, the mean of image to text and text to image."""
PARTS = {RETRIEVAL: ("retrieval_i2t_r5", "retrieval_t2i_r5")}
"""Measure that is a mean -> the recorded measures that it is the mean of."""
GUESSING = 3.0
"""Standard errors of guessing above chance within which a row counts as guessing: by luck once in 700 times."""


@functools.cache
def renders(recipe: str) -> int:
    """Test pictures of one name."""
    return recipes.named(recipe).evaluate.renders


@functools.cache
def chance(recipe: str, measure: str) -> float:
    """What guessing scores on one measure of the test split."""
    from mobileclip2_lite.evaluation import suite

    chosen = recipes.named(recipe)
    guessed = suite.chance(chosen.world, chosen.evaluate)
    return float(np.mean([guessed[part] for part in PARTS.get(measure, (measure,))]))


def together(line: Mapping[str, Any], measure: str) -> int:
    """Items that are one item of the bootstrap: the pictures of one name, the captions of one scene.

    Who knows a name knows most of its pictures, so that they are not independent.
    """
    if measure == "zero_shot":
        return renders(line["recipe"])
    return CAPTIONS if measure.startswith("retrieval_t2i") else 1


def level(line: Mapping[str, Any], measure: str) -> float:
    """A line's share of right answers in one measure of the test split."""
    return float(np.mean([line["metrics"][part] for part in PARTS.get(measure, (measure,))]))


def hits_by_seed(lines: Lines, measure: str) -> dict[int, np.ndarray]:
    """Seed -> the hits of one measure."""
    return {
        line["seed"]: intervals.unpack(line["hits"][measure], line["items"][measure])
        for line in lines
        if measure in line["hits"]
    }


def difference(first: Lines, second: Lines, measure: str) -> Interval | None:
    """`first` minus `second` in one measure of the test split, over seeds and items; None without a common seed."""
    if not first or not second:
        return None
    if measure in PARTS:
        return _difference_of_means(first, second, measure)
    hits = (hits_by_seed(lines, measure) for lines in (first, second))
    return intervals.difference(*hits, together(first[0], measure))


def _difference_of_means(first: Lines, second: Lines, measure: str) -> Interval | None:
    """The same of a measure whose single hits are not kept."""
    by_seed = [{line["seed"]: line for line in lines} for lines in (first, second)]
    shared = sorted(set(by_seed[0]) & set(by_seed[1]))
    if not shared:
        return None
    rows = [[found[seed] for seed in shared] for found in by_seed]
    values = [level(one, measure) - level(other, measure) for one, other in zip(*rows, strict=True)]
    errors = [_item_error(rows, part) for part in PARTS[measure]]
    return intervals.of_seeds(values, within=float(np.mean(errors)))  # both directions are of the same scenes


def _item_error(rows: Sequence[Lines], part: str) -> float:
    """The items' error of a difference in R@5, as R@1's of the same rows tells it."""
    one = f"{part.removesuffix('5')}1"
    hits = np.array([list(hits_by_seed(lines, one).values()) for lines in rows])
    groups = together(rows[0][0], part)
    error, largest = intervals.item_error(hits, groups)
    p, q = (np.mean([line["metrics"][part] for line in lines]) for lines in rows)
    items = hits.shape[2] // groups
    return (error / largest if largest else 1.0) * math.sqrt(max(0.0, p + q - (p - q) ** 2) / items)


def standing(lines: Lines, measure: str) -> Interval | None:
    """One row's share of right answers in one measure, over seeds and items; None where it is not recorded."""
    if not lines:
        return None
    if measure in PARTS:
        values = [level(line, measure) for line in lines]
        p, items = float(np.mean(values)), lines[0]["items"]["retrieval_i2t_r1"]
        return intervals.of_seeds(values, within=math.sqrt(p * (1 - p) / items))
    hits = hits_by_seed(lines, measure)
    return intervals.interval(np.stack(list(hits.values())), together(lines[0], measure)) if hits else None


def guesses(lines: Lines, measure: str) -> bool:
    """Whether a row is no better than guessing, as far as so many test items can show."""
    by_luck = chance(lines[0]["recipe"], measure)
    items = lines[0]["items"]["retrieval_i2t_r1" if measure in PARTS else measure]
    error = math.sqrt(by_luck * (1 - by_luck) / items)
    return float(np.mean([level(line, measure) for line in lines])) <= by_luck + GUESSING * error


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

    A curve has few points, so where the first got there is known to the step from the evaluation before (of the first
    evaluation: from half of it): the variance of a number that was rounded to such steps is added. No interval where
    the first never gets there.
    """
    pairs = [(line, other) for line in first for other in second if line["seed"] == other["seed"]]
    if not pairs:
        return None
    logs, steps = [], []
    for line, other in pairs:
        level = other["curve"]["zero_shot"][-1]
        there = reach(line, level)
        if there is not None:
            before = max((n for n in line["curve"]["samples"] if n < there), default=there / 2)
            logs.append(math.log(factor(there, reach(other, level))))
            steps.append(math.log(there / before))
    found = intervals.of_seeds(logs, times=True, rounding=max(steps, default=0.0))
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
    errors = [1 - float(np.mean([level(line, measure) for line in lines])) for lines in there]
    return scaling.extrapolate([size(lines[0], of) for lines in there], errors)


def law_miss(rows: Sequence[Lines], of: str, measure: str = "zero_shot") -> Interval | None:
    """By how much the largest row's accuracy is above what the law of the others said, seed by seed."""
    by_seed = [{line["seed"]: [line] for line in lines} for lines in rows]
    shared = sorted(set.intersection(*(set(found) for found in by_seed))) if by_seed else []
    laws = [law_of([found[seed] for found in by_seed], of, measure) for seed in shared]
    misses = [law.said - law.measured for law in laws if law is not None]
    return intervals.of_seeds(misses) if misses else None
