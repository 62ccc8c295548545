"""What a claim is: two rows, a measure of both, what is said of their difference, and who says it.

A claim of a paper says what the paper's table says, no more, and carries the paper's own effect; where a table speaks
of ImageNet alone, so does the claim. What no paper says in these words is `ours`. `claims` has them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mobileclip2_lite.studies.effects import RETRIEVAL

ZERO, I2T, T2I = "zero_shot", "retrieval_i2t_r1", "retrieval_t2i_r1"
BINDING, RELATIONS = "binding", "relations"
MEASURES = {
    ZERO: "zero-shot",
    RETRIEVAL: "retrieval, R@5",
    I2T: "image to text, R@1",
    T2I: "text to image, R@1",
    BINDING: "binding",
    RELATIONS: "relations",
}
BETTER, WORSE, SAME, NO_BETTER = "better", "worse", "same", "no better"
"""What a claim says of its first row, compared with its second."""
OURS = "ours"
COMPONENTS, TEXTS, STRONG, LAMBDA, SATURATION, TIMES, EFFICIENCY = (
    f"MobileCLIP, {what}"
    for what in (
        "components",
        "real and synthetic texts",
        "strong augmentation",
        "λ",
        "views and captions",
        "time of an epoch",
        "learning efficiency",
    )
)
ABSTRACT, LADDER, TEACHERS, CAPTIONERS, DATA = (
    f"MobileCLIP2, {what}" for what in ("abstract", "ladder", "teachers", "captioners", "data and distillation")
)
"""Paper, and the table or section by what it shows; `studies.paper` has the tables."""


class Claim(NamedTuple):
    """Rows, and what is claimed of them."""

    text: str
    """In words."""
    source: str
    """Who says it, and where."""
    first: str
    """Row whose measure is looked at."""
    second: str
    """Row that is taken from it, or that takes more samples or seconds; empty for a law."""
    measure: str = ZERO
    """Of the evaluation."""
    says: str = BETTER
    """`better`, `worse`, `same` or `no better`."""
    kind: str = "difference"
    """How it is measured: one of `verdicts.KINDS`."""
    fitted: tuple[str, ...] = ()
    """Rows that a law is fitted to, where the first is held back."""
    theirs: float | None = None
    """The paper's own effect: points of ImageNet or Flickr30k, or how many times; None where it gives no number."""
    note: str = ""
    """What else differs between the rows."""


def both(
    text: str,
    source: str,
    first: str,
    second: str,
    says: str = BETTER,
    theirs: Sequence[float | None] = (None, None),
    note: str = "",
) -> list[Claim]:
    """The same claim of zero-shot and of retrieval; `theirs` are the paper's effects on both."""
    return [
        Claim(text, source, first, second, measure, says, theirs=their, note=note)
        for measure, their in zip((ZERO, RETRIEVAL), theirs, strict=True)
    ]
