"""How sure a measured number is: intervals over seeds and test items, paired where two rows share them.

A row's result is a table of hits, a seed a line and a test item a column. Both were drawn: other pairs, views, captions
and weights would give other lines, other test scenes other columns. Items are many, so they are resampled (bootstrap).
Seeds are three to five, too few to resample: their mean is drawn from Student's t distribution around the measured one.
The test scenes are the same for all rows, and rows of one seed share pairs, views and captions, so a difference of two
rows is taken seed by seed and item by item before anything is drawn.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mobileclip2_lite.work.randomness import rng

DRAWS = 2_000
"""Bootstrap draws; the interval's ends move by a tenth of their distance from one set of draws to another."""
ZLIB = "z:"
"""Before hits that are compressed; older lines are not."""
TAILS = 25
"""Draws of the seeds' mean beside each draw of the items, and as many with the sign turned."""
LEVEL = 0.95
"""Share of the draws inside the interval."""


class Interval(NamedTuple):
    """A mean with its interval; without at least two seeds there is none."""

    mean: float
    low: float | None
    high: float | None
    seeds: int
    times: bool = False
    """Whether the numbers are logarithms of how many times one is the other."""
    between: float = 0.0
    """Standard deviation over the seeds."""
    within: float = 0.0
    """Standard error that the choice of test items alone gives, however many the seeds."""


def pack(hits: Sequence[float] | np.ndarray) -> str:
    """Hits (N,) as a short string: a bit an item, zlib, base64; an expected hit under ties counts from one half."""
    bits = np.packbits(np.asarray(hits) >= 0.5).tobytes()
    return ZLIB + base64.b64encode(zlib.compress(bits, 9)).decode("ascii")


def unpack(text: str, count: int) -> np.ndarray:
    """The hits (count,) of `pack`, as 0.0 and 1.0.

    Raises:
        ValueError: the string does not hold `count` items.
    """
    data = base64.b64decode(text.removeprefix(ZLIB), validate=True)
    if text.startswith(ZLIB):
        try:
            data = zlib.decompress(data)
        except zlib.error as error:
            raise ValueError(f"hits are damaged ({error}): record the line again") from error
    bits = np.frombuffer(data, np.uint8)
    if len(bits) != -(-count // 8):
        raise ValueError(f"{len(bits)} bytes of hits are not those of {count:,} items: record the line again")
    return np.unpackbits(bits, count=count).astype(np.float64)


def interval(hits: np.ndarray, groups: int = 1, draws: int = DRAWS, level: float = LEVEL) -> Interval:
    """Mean and interval of hits, or of differences of hits.

    Args:
        hits: (seeds, items).
        groups: items that belong together (the five captions of an image), side by side; they are resampled as one.
        draws: of the bootstrap.
        level: share of the draws inside the interval.

    Raises:
        ValueError: the table is not two-dimensional, or `groups` does not divide the items.
    """
    hits = np.asarray(hits, np.float64)
    if hits.ndim != 2 or not hits.size or hits.shape[1] % groups:
        raise ValueError(f"hits of shape {hits.shape} in groups of {groups}: (seeds, items) are wanted")
    seeds, mean = len(hits), float(hits.mean())
    if seeds < 2:
        return Interval(mean, None, None, seeds)
    items = hits.mean(axis=0).reshape(-1, groups).mean(axis=1)
    draw = rng("bootstrap", seeds, len(items))
    means = np.empty(draws)
    for k in range(draws):
        means[k] = items[draw.integers(len(items), size=len(items))].mean()
    spread = hits.mean(axis=1).std(ddof=1) / math.sqrt(seeds)
    moved = spread * draw.standard_t(
        seeds - 1, (TAILS, draws)
    )  # of few seeds the tails are long: drawn often, both ways
    low, high = np.quantile(np.concatenate([means + moved, means - moved]), ((1 - level) / 2, (1 + level) / 2))
    between, within = spread * math.sqrt(seeds), items.std() / math.sqrt(len(items))
    return Interval(mean, float(low), float(high), seeds, between=float(between), within=float(within))


def of_seeds(
    values: Sequence[float], times: bool = False, level: float = LEVEL, within: float = 0.0, rounding: float = 0.0
) -> Interval:
    """Mean and interval of one number a seed, by Student's t distribution.

    Args:
        times: the numbers are logarithms of factors.
        within: standard error that the choice of test items adds, normally distributed.
        rounding: width of the steps in which the numbers were read; its variance counts as the seeds'.
    """
    seeds = len(values)
    mean = float(np.mean(values)) if seeds else 0.0
    if seeds < 2:
        return Interval(mean, None, None, seeds, times)
    between = math.sqrt(np.var(values, ddof=1) + rounding**2 / 12)
    draw = rng("t", seeds)
    moved = between / math.sqrt(seeds) * draw.standard_t(seeds - 1, 100 * DRAWS)
    half = float(np.quantile(np.abs(moved + within * draw.standard_normal(100 * DRAWS)), level))
    return Interval(mean, mean - half, mean + half, seeds, times, between, within)


def item_error(hits: np.ndarray, groups: int = 1) -> tuple[float, float]:
    """(standard error that the choice of items gives a mean of differences, the largest that it could be).

    The largest is that of two rows whose hits never meet: `sqrt((p + q - (p - q) ** 2) / items)`.

    Args:
        hits: (2, seeds, items), of two rows.
        groups: as of `interval`.
    """
    first, second = (part.mean(axis=0).reshape(-1, groups).mean(axis=1) for part in hits)
    p, q = float(first.mean()), float(second.mean())
    largest = math.sqrt(max(0.0, p + q - (p - q) ** 2) / len(first))
    return float((first - second).std() / math.sqrt(len(first))), largest


def difference(first: Mapping[int, np.ndarray], second: Mapping[int, np.ndarray], groups: int = 1) -> Interval | None:
    """`first` minus `second`, two rows' hits by seed, over the seeds that both have; None if they share none."""
    shared = sorted(set(first) & set(second))
    if not shared:
        return None
    return interval(np.stack([first[seed] - second[seed] for seed in shared]), groups)
