"""The verdict on each claim from recorded lines.

`agrees`: the whole interval lies where the claim says. `disagrees`: it lies on the other side, or, where no difference
is claimed, outside the margin. `cannot tell`: neither, or fewer seeds than three, or rows that guess where the claim
needs one that does not, or an interval that is clear alone but not among so many. `not tested`: the rows are not
recorded. `ledger` writes them down.

Many claims are judged at once, and some would seem clear by luck. So what is decided is decided for all of them
together (Benjamini and Hochberg 1995): of the verdicts that stand, about one in twenty may be wrong. Claims share rows,
so that they err together; where they do so in one direction that holds still (Benjamini and Yekutieli 2001).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mobileclip2_lite.studies import effects, intervals, recorded, student_t
from mobileclip2_lite.studies.claim import BETTER, NO_BETTER, SAME, WORSE, Claim
from mobileclip2_lite.studies.claims import CLAIMS
from mobileclip2_lite.studies.rows import PRICE

VERDICTS = AGREES, DISAGREES, CANNOT_TELL, NOT_TESTED = "agrees", "disagrees", "cannot tell", "not tested"
LEAST_SEEDS = 3
"""Fewer are never agreement."""
MARGIN, SHARE = 0.02, 0.2
"""Where no difference is claimed, one counts as none within two points and within a fifth of what it is compared with:
two points of 2 % would be everything."""
FALSE_SHARE = 0.05
"""Of the verdicts that are decided, the share that may be wrong."""


class Entry(NamedTuple):
    """A claim with what was found."""

    claim: Claim
    found: intervals.Interval | None
    verdict: str
    command: str
    note: str = ""
    """Why nothing is decided, and with how many seeds something would be, as a rule."""


def judge(claim: Claim, found: intervals.Interval | None, margin: float = MARGIN) -> str:
    """One of `agrees`, `disagrees`, `cannot tell`, `not tested`, of one claim alone.

    Args:
        margin: within which a difference counts as none.
    """
    if found is None:
        return NOT_TESTED
    low, high = found.low, found.high
    if found.seeds < LEAST_SEEDS or low is None or high is None:
        return CANNOT_TELL
    if claim.says == BETTER:
        yes, no = low > 0, high < 0
    elif claim.says == WORSE:
        yes, no = high < 0, low > 0
    elif claim.says == SAME:
        yes, no = low > -margin and high < margin, low > margin or high < -margin
    else:
        yes, no = high < margin, low > margin
    return AGREES if yes else DISAGREES if no else CANNOT_TELL


def margin_of(lines: Sequence[Mapping[str, Any]], measure: str) -> float:
    """The margin beside a row: two points, or a fifth of the row's level where that is less."""
    level = float(np.mean([effects.level(line, measure) for line in lines])) if lines else 1.0
    return min(MARGIN, SHARE * level)


def distance(claim: Claim, found: intervals.Interval, margin: float) -> float:
    """How far a mean is from the nearest place where the claim's verdict would turn."""
    turns = {SAME: (-margin, margin), NO_BETTER: (margin,)}.get(claim.says, (0.0,))
    return min(abs(found.mean - turn) for turn in turns)


def chance(claim: Claim, found: intervals.Interval, margin: float) -> float:
    """How often luck alone would carry a mean so far from where the verdict turns (two-sided p)."""
    far, seeds = distance(claim, found, margin), found.seeds
    error = math.sqrt(found.between**2 / seeds + found.within**2)
    if not error:
        return 0.0 if far else 1.0
    return 1 - student_t.inside(far / error, student_t.degrees_of(found.between, found.within, seeds))


def standing(chances: Sequence[float], share: float = FALSE_SHARE) -> float:
    """The largest p that still stands among all of them; 0 if none does."""
    ranked = sorted(chances)
    return max((p for k, p in enumerate(ranked, 1) if p <= share * k / len(ranked)), default=0.0)


class Alone(NamedTuple):
    """A claim judged as if it were the only one."""

    found: intervals.Interval | None
    verdict: str
    margin: float
    p: float | None
    """None where nothing could be decided, however clear."""
    note: str = ""


def entries(lines: Sequence[Mapping[str, Any]], claims: Sequence[Claim] | None = None) -> list[Entry]:
    """Some claims (default: all) with their effects on the recorded lines of the generation that most share.

    Whichever are asked for, they are judged among all of `CLAIMS`.
    """
    rows = recorded.by_row(lines)
    alone = {claim: _alone(claim, rows) for claim in (*CLAIMS, *(claims or ()))}
    chances = [one.p for one in alone.values() if one.p is not None]
    limit = standing(chances)
    return [_among(claim, alone[claim], limit, len(chances), rows) for claim in (CLAIMS if claims is None else claims)]


LEVELLED = ("samples", "seconds", "all seconds", "shared seconds")
"""Kinds that ask when the first row is where the second ends."""
Rows = Mapping[str, Sequence[Mapping[str, Any]]]


def _alone(claim: Claim, rows: Rows) -> Alone:
    found = KINDS[claim.kind](claim, rows)
    margin = margin_of(rows.get(claim.second or claim.first, ()), claim.measure)
    verdict = judge(claim, found, margin)
    if found is None:
        return Alone(found, verdict, margin, None)
    if floor := _floor(claim, rows):
        return Alone(found, CANNOT_TELL, margin, None, floor)
    if found.low is None or found.seeds < LEAST_SEEDS:
        short = f"of {LEAST_SEEDS} seeds {found.seeds}" if found.seeds < LEAST_SEEDS else "not reached with every seed"
        return Alone(found, verdict, margin, None, short)
    return Alone(found, verdict, margin, chance(claim, found, margin))


def _floor(claim: Claim, rows: Rows) -> str:
    """Which rows guess, where the claim cannot be judged by such; empty where it can."""
    wanted = {"difference": (claim.first, claim.second), "live": ()}.get(claim.kind, (claim.second,))
    wanted = (*claim.fitted, claim.first) if claim.fitted else wanted
    guessing = [row for row in wanted if rows.get(row) and effects.guesses(rows[row], claim.measure)]
    if claim.kind == "difference":  # one row that guesses beside one that does not is a finding
        return "both rows guess" if len(guessing) == 2 else ""
    return f"{' and '.join(f'`{row}`' for row in guessing)}: no better than guessing" if guessing else ""


def _among(claim: Claim, alone: Alone, limit: float, count: int, rows: Rows) -> Entry:
    """The claim judged among all of them."""
    verdict, notes = alone.verdict, [alone.note]
    if verdict in (AGREES, DISAGREES) and alone.p is not None and alone.p > limit:
        verdict, notes = CANNOT_TELL, [f"clear alone, not among {count} claims"]
    if verdict == CANNOT_TELL and alone.p is not None:
        notes.append(_seeds(claim, alone, limit or FALSE_SHARE / count))
    if claim.kind in LEVELLED and alone.found is not None:
        ends = [line["curve"]["zero_shot"][-1] for line in rows[claim.second]]
        notes.append(f"to {100 * np.mean(ends):.1f} % on the validation split")
    named = dict.fromkeys(row for row in (claim.first, claim.second, *claim.fitted) if row in rows)
    commands = " and ".join(f"`{rows[row][0]['command']}`" for row in named)
    return Entry(claim, alone.found, verdict, commands, "; ".join(filter(None, notes)))


def _seeds(claim: Claim, alone: Alone, level: float) -> str:
    """How many seeds would decide a claim, if its effect is as measured."""
    far, found = distance(claim, alone.found, alone.margin), alone.found
    seeds = student_t.seeds_wanted(far, found.between, found.within, 1 - level)
    if seeds is not None:
        return f"about {seeds} seeds"
    if student_t.enough_items(far, found.within, 1 - level):
        return f"more than {student_t.MOST} seeds"
    return "more test items, whatever the seeds"


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
