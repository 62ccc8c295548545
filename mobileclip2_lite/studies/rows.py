"""What is trained for the evidence: rows by name.

A row is the recipe's control or student with some settings changed, on one kind of data. `questions` are the studies
that compare them, `record` trains what is missing, `claims` draws the conclusions.
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
DFN = "lite-dfn"
"""The filter's scorer, a CLIP weaker than the teachers."""
SHORTER = (16, 32, 64)
"""Dimensions to which embeddings are cut; whole, they have 128."""
ELSEWHERE = (5, 20, 80)
"""Logit scales at which the hill is looked at in other circumstances."""
SWEPT = {teacher: {scale: f"{teacher} at {scale}" for scale in SCALES} for teacher in (CONV, SE)}
"""Teacher -> logit scale -> row of the temperature study."""
MOVED = {
    label: {scale: f"{label}, scale {scale}" for scale in ELSEWHERE}
    for label in ("conv, batch 32", "conv, filtered pairs", "weak teacher")
}
"""Other circumstances -> logit scale -> row."""
HILLS = {teacher.removeprefix("lite-teacher-"): hill for teacher, hill in SWEPT.items()} | MOVED
"""Circumstances -> logit scale -> row."""


PRICE = "price of the data"
"""Not a training: what `price` calls its lines among the rows'."""


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
    of: str = ""
    """Row whose trained models these are; empty for trainings of their own."""
    dimensions: int = 0
    """First dimensions of the embeddings that are measured; 0 for all."""


def _one_teacher(teacher: str, scale: int, **changes: Any) -> Row:
    """A point of a hill: the student of one teacher at one logit scale."""
    return _student(SWEEP, teachers=(teacher,), logit_scales=((teacher, float(scale)),), **changes)


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
    # each pair's text: the real one, a caption, both, or one of the two
    "synthetic alone": _student(texts="synthetic"),
    "one of two texts": _student(texts="one"),
    # one scale for both teachers, whose own are 22.1 and 21.0
    "one scale, 100": _student(logit_scales=((CONV, 100.0), (SE, 100.0))),
    "one scale, 20": _student(logit_scales=((CONV, 20.0), (SE, 20.0))),
    # pairs that a scorer kept: the best half of twice as many
    "control, filtered": _control(data="filtered"),
    "student, filtered": _student(data="filtered"),
    # batches selected by learnability: equal trained samples, which are twice as many candidates; equal candidates
    "control, ACID": _control(views="stored", candidates=2),
    "ACID": _student(candidates=2),
    "ACID, half": _student(SAMPLES // 2, candidates=2),
    # the embeddings of one larger student of the ensemble instead of the ensemble's
    "proxy teacher": _student(data="proxy"),
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
    # the paper's augmentation: crops from 8 % and RandAugment
    "captions, strong views": _control(captioners=FINETUNED, views="stored", data="strong"),
    "student, strong views": _student(data="strong"),
    # teachers that run during the training
    "live teachers": _student(online=True),
    # storage
    "int8": _student(data="int8"),
    "int6": _student(data="int6"),
    # the pairs' number
    **{
        f"{kind}, {count:,} pairs": make(data=f"first {count}")
        for kind, make in (("control", _control), ("student", _student))
        for count in (500, 1_000, 4_000)
    },
    # the samples' number
    "student, 5,000 samples": _student(5_000),
    "student, 10,000 samples": _student(10_000),
    # the student's size
    "student, lite-mci-m": _student(model="lite-mci-m"),
    "control, lite-mci-m": _control(model="lite-mci-m"),
    # the temperature's hill
    **{row: _one_teacher(teacher, scale) for teacher, hill in SWEPT.items() for scale, row in hill.items()},
    # does its top move: with the batch, with fewer wrong texts, with a weaker teacher
    **{row: _one_teacher(CONV, scale, batch_size=32) for scale, row in MOVED["conv, batch 32"].items()},
    **{row: _one_teacher(CONV, scale, data="filtered") for scale, row in MOVED["conv, filtered pairs"].items()},
    **{row: _one_teacher(DFN, scale, data="weak") for scale, row in MOVED["weak teacher"].items()},
    # embeddings that are to be cut, and both kinds cut
    "nested": _student(0, nested=SHORTER),
    **{
        f"{row}, {kept} dimensions": _student(0, nested=nested)._replace(of=row, dimensions=kept)
        for row, nested in (("student, full", ()), ("nested", SHORTER))
        for kept in SHORTER
    },
    # the student without its distillation, and nothing else changed
    "lambda 0": _student(distill=0.0),
    # AdamW gets a second rate, too
    "student, AdamW 3e-3": _student(optimizer="adamw", learning_rate=3e-3, weight_decay=0.05),
    # several captions of one captioner, as many as three captioners write
    "captions: short, 2 each": _student(data="several captions", captioners=(SHORT,), max_captions=2),
    "captions: short, 3 each": _student(data="several captions", captioners=(SHORT,)),
    # more points for the law of samples: at 5,000 the student has not begun
    "student, 14,000 samples": _student(14_000),
    "student, 28,000 samples": _student(28_000),
}
"""Row -> what is trained."""
