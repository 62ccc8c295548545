"""Student's t distribution for whole degrees of freedom: shares, quantiles, and how many seeds an answer would take.

No library of ours has it. The share inside is the finite sum of Abramowitz and Stegun (26.7.3, 26.7.4), exact;
quantiles come by bisection. Used by `verdicts`.
"""

from __future__ import annotations

import functools
import math

POWER = 0.8
"""Share of repetitions in which the seeds that `seeds_wanted` names would give an answer."""
MOST = 50
"""Seeds beyond which nobody would train them."""


def inside(t: float, degrees: int) -> float:
    """Share of the distribution within -|t| and |t|."""
    angle = math.atan(abs(t) / math.sqrt(degrees))
    cosine, sine = math.cos(angle), math.sin(angle)
    odd = degrees % 2
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for k in range(odd, degrees - 1, 2):
        total += term
        term *= cosine**2 * (k + 1) / (k + 2)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


@functools.cache
def quantile(share: float, degrees: int) -> float:
    """The t that `share` of the distribution lies below, for a share of one half or more."""
    low, high = 0.0, 1.0
    while inside(high, degrees) < 2 * share - 1:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if inside(middle, degrees) < 2 * share - 1 else (low, middle)
    return high


def degrees_of(between: float, within: float, seeds: int) -> int:
    """Degrees of freedom of seeds and items together (Satterthwaite's), rounded down; of many items alone 1,000."""
    over = between**2 / seeds
    if not over:
        return 1_000
    return max(seeds - 1, min(1_000, int((over + within**2) ** 2 / (over**2 / (seeds - 1)))))


def seeds_wanted(distance: float, between: float, within: float, level: float = 0.95) -> int | None:
    """The fewest seeds with which an effect so far from where its claim is decided would be told, as a rule.

    Args:
        distance: of the effect from the nearest boundary of its claim.
        between: standard deviation over seeds.
        within: standard error by the items, which more seeds do not lessen.

    Returns:
        A number from 3 to `MOST`, or None if those would not do.
    """
    for seeds in range(3, MOST + 1):
        degrees = degrees_of(between, within, seeds)
        wanted = quantile((1 + level) / 2, degrees) + quantile(POWER, degrees)
        if wanted * math.sqrt(between**2 / seeds + within**2) <= distance:
            return seeds
    return None


def enough_items(distance: float, within: float, level: float = 0.95) -> bool:
    """Whether any number of seeds would tell an effect at such a distance, as far as the test items go."""
    return (quantile((1 + level) / 2, 1_000) + quantile(POWER, 1_000)) * within < distance
