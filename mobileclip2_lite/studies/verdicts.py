"""The verdict on each claim from recorded lines.

`agrees`: the whole interval lies where the claim says. `disagrees`: it lies on the other side, or, where no difference
is claimed, outside the margin. `cannot tell`: neither, or fewer seeds than three. `not tested`: the rows are not
recorded. `ledger` writes them down.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mobileclip2_lite.studies import effects, intervals, recorded
from mobileclip2_lite.studies.claims import CLAIMS, Claim
from mobileclip2_lite.studies.rows import PRICE

LEAST_SEEDS = 3
"""Fewer are never agreement."""
MARGIN, SHARE = 0.02, 0.2
"""Where no difference is claimed, one counts as none within two points and within a fifth of what it is compared with:
two points of 2 % would be everything."""


class Entry(NamedTuple):
    """A claim with what was found."""

    claim: Claim
    found: intervals.Interval | None
    verdict: str
    command: str


def judge(claim: Claim, found: intervals.Interval | None, margin: float = MARGIN) -> str:
    """One of `agrees`, `disagrees`, `cannot tell`, `not tested`.

    Args:
        margin: within which a difference counts as none.
    """
    if found is None:
        return "not tested"
    low, high = found.low, found.high
    if found.seeds < LEAST_SEEDS or low is None or high is None:
        return "cannot tell"
    match claim.says:
        case "better":
            yes, no = low > 0, high < 0
        case "worse":
            yes, no = high < 0, low > 0
        case "same":
            yes, no = low > -margin and high < margin, low > margin or high < -margin
        case "no better":
            yes, no = high < margin, low > margin
    return "agrees" if yes else "disagrees" if no else "cannot tell"


def margin_of(lines: Sequence[Mapping[str, Any]], measure: str) -> float:
    """The margin beside a row: two points, or a fifth of the row's level where that is less."""
    level = float(np.mean([line["metrics"][measure] for line in lines])) if lines else 1.0
    return min(MARGIN, SHARE * level)


def entries(lines: Sequence[Mapping[str, Any]], claims: Sequence[Claim] | None = None) -> list[Entry]:
    """Every claim (default: `CLAIMS`) with its effect on the recorded lines of the newest generation."""
    rows = recorded.by_row(lines)
    found = []
    for claim in CLAIMS if claims is None else claims:
        effect = KINDS[claim.kind](claim, rows)
        verdict = judge(claim, effect, margin_of(rows.get(claim.second or claim.first, ()), claim.measure))
        named = dict.fromkeys(row for row in (claim.first, claim.second, *claim.fitted) if row in rows)
        commands = [rows[row][0]["command"] for row in named]
        found.append(Entry(claim, effect, verdict, " and ".join(f"`{text}`" for text in commands)))
    return found


Rows = Mapping[str, Sequence[Mapping[str, Any]]]


def _difference(claim: Claim, rows: Rows) -> intervals.Interval | None:
    return effects.difference(rows.get(claim.first, ()), rows.get(claim.second, ()), claim.measure)


def _samples(claim: Claim, rows: Rows) -> intervals.Interval | None:
    return effects.samples_factor(rows.get(claim.first, ()), rows.get(claim.second, ()))


def _seconds(claim: Claim, rows: Rows, trainings: float) -> intervals.Interval | None:
    pair = rows.get(claim.first, ()), rows.get(claim.second, ())
    return effects.seconds_factor(*pair, rows.get(PRICE, ()), trainings)


def _live(claim: Claim, rows: Rows) -> intervals.Interval | None:
    return effects.live_factor(rows.get(PRICE, ()))


def _law(claim: Claim, rows: Rows, of: str) -> intervals.Interval | None:
    return effects.law_miss([rows.get(row, ()) for row in (*claim.fitted, claim.first)], of)


KINDS: dict[str, Callable[[Claim, Rows], intervals.Interval | None]] = {
    "difference": _difference,
    "samples": _samples,
    "seconds": functools.partial(_seconds, trainings=math.inf),
    "all seconds": functools.partial(_seconds, trainings=1),
    "shared seconds": functools.partial(_seconds, trainings=10),
    "live": _live,
    "law of samples": functools.partial(_law, of="samples"),
    "law of pairs": functools.partial(_law, of="pairs"),
}
"""Kind of a claim -> how its effect is measured."""
