"""The papers' claims that can be tested at this size, and the verdict on each from recorded lines.

`ledger` writes them down. A claim is a difference of two
rows in one measure and the direction that the paper gives it. `agrees`: the whole interval lies on the claimed side.
`disagrees`: it lies on the other side, or, where no difference is claimed, outside the margin. `cannot tell`: neither,
or fewer seeds than three. `not tested`: the rows are not recorded. Differences are in points of percent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mobileclip2_lite.studies import intervals, recorded
from mobileclip2_lite.studies.rows import CONV, SE

ZERO, I2T, T2I = "zero_shot", "retrieval_i2t_r1", "retrieval_t2i_r1"
BINDING, RELATIONS = "binding", "relations"
MEASURES = {
    ZERO: "zero-shot",
    I2T: "image to text",
    T2I: "text to image",
    BINDING: "binding",
    RELATIONS: "relations",
}
LEAST_SEEDS = 3
"""Fewer are never agreement."""
GROUPS = {T2I: 5}
"""Five captions of an image are one item of the bootstrap."""
MARGIN = 0.02
"""A difference within two points counts as none, where none is claimed."""


class Claim(NamedTuple):
    """A difference of two rows, and what is claimed of it."""

    text: str
    """In words."""
    source: str
    """Who says it."""
    first: str
    """Row whose measure is looked at; empty where this project has no such row."""
    second: str
    """Row that is taken from it."""
    measure: str = ZERO
    """Of the evaluation."""
    sign: int = 1
    """1: `first` is better; -1: it is worse; 0: they do not differ."""


PAPER, FIRST, OURS = "MobileCLIP2", "MobileCLIP", "ours"


def _both(text: str, source: str, first: str, second: str, sign: int = 1) -> list[Claim]:
    return [Claim(text, source, first, second, measure, sign) for measure in (ZERO, I2T)]


CLAIMS: tuple[Claim, ...] = (
    *_both(
        "A reinforced student beats plain training on the same pairs and samples (the recipe's length)",
        FIRST,
        "student, full",
        "control, full",
    ),
    *_both(
        "A reinforced student beats plain training on the same pairs and samples (half)", FIRST, "+ ensemble", "control"
    ),
    *_both("It beats plain training of twice its samples", FIRST, "+ ensemble", "control, full"),
    *_both(
        "It beats plain training that also has the captioners' annotated pairs",
        OURS,
        "+ ensemble",
        "control + annotated pairs",
    ),
    *_both(
        "Captions of a captioner that saw no clean caption help plain training",
        OURS,
        "control + web captions",
        "control",
    ),
    *_both("Synthetic captions help plain training", FIRST, "+ captions", "control"),
    *_both("Distillation adds to captions", FIRST, "+ distillation", "+ captions"),
    *_both("An ensemble is better than its first teacher", FIRST, "+ ensemble", "+ distillation"),
    *_both("An ensemble is better than its second teacher", FIRST, "+ ensemble", "teacher se only"),
    *_both("Synthetic captions help distillation", FIRST, "+ ensemble", "no captions"),
    Claim("λ = 1 is best for zero-shot (against 0.7)", FIRST, "lambda 1", "+ ensemble", ZERO),
    Claim("λ = 0.7 is better for retrieval than 1", FIRST, "+ ensemble", "lambda 1", I2T),
    *_both(
        "A contrast gated by the teachers' belief beats the same λ without", OURS, "lambda 0.7, gated", "+ ensemble"
    ),
    *(
        Claim("Captions made wrong in one place teach what belongs to what", OURS, "hard negatives", "+ ensemble", part)
        for part in (BINDING, RELATIONS)
    ),
    Claim("They cost no retrieval", OURS, "hard negatives", "+ ensemble", I2T, 0),
    Claim(
        "A fine-tuned captioner is no better than its pretrained one for zero-shot",
        PAPER,
        "captions: short",
        "captions: pretrained",
        ZERO,
        0,
    ),
    Claim(
        "A fine-tuned captioner is better than its pretrained one for retrieval",
        PAPER,
        "captions: short",
        "captions: pretrained",
        I2T,
    ),
    *_both("Several captioners are no better than one", PAPER, "+ ensemble", "captions: short", 0),
    *_both("Five stored views are better than one", FIRST, "+ ensemble", "views 1"),
    *_both("More than two stored views add little", FIRST, "+ ensemble", "views 2", 0),
    Claim("Strong views hurt plain training", FIRST, "control, stored views", "control", ZERO, -1),
    *_both("int8 embeddings teach as well as bf16", OURS, "int8", "+ ensemble", 0),
    *_both("int6 embeddings teach as well as bf16", OURS, "int6", "+ ensemble", 0),
    *(
        Claim(
            f"{name.removeprefix('lite-teacher-')}: logit scale {better} teaches better than {worse}",
            PAPER,
            f"{name} at {better}",
            f"{name} at {worse}",
        )
        for name in (CONV, SE)
        for better, worse in ((20, 1), (20, 5), (20, 80), (20, 160))
    ),
    *_both("Orthogonalised updates (nmuon) beat AdamW for the student", OURS, "+ ensemble", "student, AdamW"),
    *_both("Orthogonalised updates (nmuon) beat AdamW for the control", OURS, "control", "control, AdamW"),
    Claim("A DFN-filtered web makes a better student", PAPER, "", ""),
    Claim("Summing the losses of real and synthetic captions beats drawing one of them", FIRST, "", ""),
    Claim("One logit scale for both teachers is worse than each its own", PAPER, "", ""),
    Claim("A bigger teacher is not a better one", PAPER, "", "", ZERO, 0),
    Claim("Stored embeddings teach as well as a live teacher on fresh views", FIRST, "", "", ZERO, 0),
    Claim("Equal accuracy takes fewer samples and hours, with the price of reinforcement counted", FIRST, "", ""),
)
"""The claims, in the order of the ledger."""


class Entry(NamedTuple):
    """A claim with what was found."""

    claim: Claim
    found: intervals.Interval | None
    verdict: str
    command: str


def judge(claim: Claim, found: intervals.Interval | None) -> str:
    """One of `agrees`, `disagrees`, `cannot tell`, `not tested`."""
    if found is None:
        return "not tested"
    if found.seeds < LEAST_SEEDS or found.low is None or found.high is None:
        return "cannot tell"
    if claim.sign == 0:
        inside = found.low > -MARGIN and found.high < MARGIN
        outside = found.low > MARGIN or found.high < -MARGIN
        return "agrees" if inside else "disagrees" if outside else "cannot tell"
    low, high = sorted((claim.sign * found.low, claim.sign * found.high))
    return "agrees" if low > 0 else "disagrees" if high < 0 else "cannot tell"


def entries(lines: Sequence[Mapping[str, Any]], claims: Sequence[Claim] = CLAIMS) -> list[Entry]:
    """Every claim with its effect on the recorded lines of the newest generation."""
    rows = recorded.by_row(lines)
    found = []
    for claim in claims:
        first, second = (hits_by_seed(rows.get(row, ()), claim.measure) for row in (claim.first, claim.second))
        effect = intervals.difference(first, second, GROUPS.get(claim.measure, 1))
        commands = [rows[row][0]["command"] for row in (claim.first, claim.second) if row in rows]
        found.append(Entry(claim, effect, judge(claim, effect), " and ".join(f"`{text}`" for text in commands)))
    return found


def hits_by_seed(lines: Sequence[Mapping[str, Any]], measure: str) -> dict[int, np.ndarray]:
    """Seed -> the hits of one measure."""
    return {
        line["seed"]: intervals.unpack(line["hits"][measure], line["items"][measure])
        for line in lines
        if measure in line["hits"]
    }
