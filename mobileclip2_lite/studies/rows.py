"""What is trained for the evidence: rows by name, and the studies that compare them.

A row is the recipe's control or student with some settings changed, on one kind of data. A study is a handful of rows
that differ in one thing. MobileCLIP's ablations (arXiv 2311.17049) and MobileCLIP2's tables (arXiv 2508.20691) are of
this kind. `record` trains what is missing and `claims` draws the conclusions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

CONV, SE = "lite-teacher-conv", "lite-teacher-se"
WEB, SHORT, RELATIONAL, DETAILED = (f"lite-captioner-{kind}" for kind in ("web", "short", "relational", "detailed"))
FINETUNED = (SHORT, RELATIONAL, DETAILED)
SAMPLES = 20_000
"""Seen samples of a row: enough for differences to show, half of recipe `study`'s."""
SWEEP = 12_800
"""Seen samples of a point of the temperature study, which is to be off the plateau and no more."""
SCALES = (1, 2, 5, 10, 20, 40, 80, 160)
"""Logit scales of the temperature study."""


class Row(NamedTuple):
    """One named training."""

    base: str
    """`control` or `student` of the recipe."""
    changes: Mapping[str, Any] = {}
    """Fields of `recipes.Train` that differ from the base."""
    samples: int = SAMPLES
    """Seen samples; 0 for the recipe's own."""
    data: str = "reinforced"
    """A kind of `studies.data.KINDS`."""


def _student(samples: int = SAMPLES, data: str = "reinforced", **changes: Any) -> Row:
    return Row("student", {"captioners": FINETUNED, **changes}, samples, data)


def _control(samples: int = SAMPLES, data: str = "reinforced", **changes: Any) -> Row:
    return Row("control", {"captioners": (), **changes}, samples, data)


ROWS: dict[str, Row] = {
    # the headline, at the recipe's own length
    "control, full": _control(0),
    "student, full": _student(0),
    # fair baselines
    "control": _control(),
    "control + annotated pairs": _control(data="annotated"),
    "control + web captions": _control(captioners=(WEB,)),
    "+ ensemble": _student(),
    # the ladder
    "+ captions": _control(captioners=FINETUNED),
    "+ distillation": _student(teachers=(CONV,)),
    "teacher se only": _student(teachers=(SE,)),
    "no captions": _student(captioners=()),
    # settings of the loss
    "lambda 0.5": _student(distill=0.5),
    "lambda 1": _student(distill=1.0),
    "lambda 0.7, gated": _student(distill=0.7, gated=True),
    "hard negatives": _student(hard_negatives=1.0),
    # captions
    "captions: pretrained": _student(captioners=(WEB,)),
    "captions: short": _student(captioners=(SHORT,)),
    "captions: relational": _student(captioners=(RELATIONAL,)),
    "captions: detailed": _student(captioners=(DETAILED,)),
    # what the optimiser does
    "control, AdamW": _control(optimizer="adamw", learning_rate=1e-3, weight_decay=0.05),
    "student, AdamW": _student(optimizer="adamw", learning_rate=1e-3, weight_decay=0.05),
    # views
    "views 1": _student(max_views=1),
    "views 2": _student(max_views=2),
    "control, stored views": _control(views="stored"),
    # storage
    "int8": _student(data="int8"),
    "int6": _student(data="int6"),
    # the pairs' number
    **{
        f"{kind}, {count:,} pairs": make(data=f"first {count}")
        for kind, make in (("control", _control), ("student", _student))
        for count in (500, 1_000)
    },
    # the temperature's hill
    **{
        f"{teacher} at {scale}": _student(SWEEP, teachers=(teacher,), logit_scales=((teacher, float(scale)),))
        for teacher in (CONV, SE)
        for scale in SCALES
    },
}
"""Row -> what is trained."""


class Study(NamedTuple):
    """Rows that differ in one thing."""

    question: str
    """What they answer."""
    rows: Mapping[str, str]
    """Label in the table -> row."""
    control: str
    """The label that the others are compared with."""
    seeds: int = 3
    """Seeds a row."""


def _same(*rows: str) -> dict[str, str]:
    return {row: row for row in rows}


STUDIES: dict[str, Study] = {
    "headline": Study(
        "Does a reinforced student beat plain training?",
        {"control": "control, full", "student": "student, full"},
        "control",
        seeds=5,
    ),
    "baselines": Study(
        "What is left of the gain beside fair baselines?",
        {
            "control": "control",
            "control, twice the samples": "control, full",
            "control + web captions": "control + web captions",
            "control + annotated pairs": "control + annotated pairs",
            "student": "+ ensemble",
        },
        "control",
    ),
    "ladder": Study(
        "What does each part add?",
        {
            "control": "control",
            "+ captions": "+ captions",
            "+ distillation": "+ distillation",
            "+ ensemble": "+ ensemble",
        },
        "control",
    ),
    "teachers": Study(
        "Is the ensemble better than each teacher?",
        {"conv": "+ distillation", "se": "teacher se only", "both": "+ ensemble"},
        "both",
    ),
    "lambda": Study(
        "How much distillation?",
        {"λ = 0.5": "lambda 0.5", "λ = 0.7": "+ ensemble", "λ = 0.7, gated": "lambda 0.7, gated", "λ = 1": "lambda 1"},
        "λ = 1",
    ),
    "hard negatives": Study(
        "Do captions made wrong teach binding and relations?",
        {"without": "+ ensemble", "with": "hard negatives"},
        "without",
    ),
    "captions": Study(
        "Which captioner, and one or several?",
        {
            "none": "no captions",
            "pretrained": "captions: pretrained",
            "short": "captions: short",
            "relational": "captions: relational",
            "detailed": "captions: detailed",
            "all three": "+ ensemble",
        },
        "none",
    ),
    "number of captions": Study("One caption an image or three?", {"1": "captions: short", "3": "+ ensemble"}, "1"),
    "views": Study("How many views?", {"1": "views 1", "2": "views 2", "5": "+ ensemble"}, "1"),
    "strong views": Study(
        "Do stored views hurt without distillation?",
        {"light crops": "control", "stored views": "control, stored views"},
        "light crops",
    ),
    "storage": Study(
        "What may embeddings be stored in?", {"bf16": "+ ensemble", "int8": "int8", "int6": "int6"}, "bf16"
    ),
    "optimiser": Study(
        "What does the optimiser do?",
        _same("control, AdamW", "control", "student, AdamW", "+ ensemble"),
        "control, AdamW",
    ),
    "pairs": Study(
        "How does the gain move with the number of pairs?",
        _same(*(row for row in ROWS if row.endswith("pairs") and "annotated" not in row), "control", "+ ensemble"),
        "control",
    ),
    "temperature": Study(
        "At which logit scale does each teacher teach best?",
        _same(*(row for row in ROWS if " at " in row)),
        f"{CONV} at 20",
    ),
}
"""Studies by name, the most important first."""
