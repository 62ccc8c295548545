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
DFN = "lite-dfn"
"""The filter's scorer, a CLIP weaker than the teachers."""
ELSEWHERE = (5, 20, 80)
"""Logit scales at which the hill is looked at in other circumstances."""


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
    **{f"{teacher} at {scale}": _one_teacher(teacher, scale) for teacher in (CONV, SE) for scale in SCALES},
    # does its top move: with the batch, with fewer wrong texts, with a weaker teacher
    **{f"conv, batch 32, scale {scale}": _one_teacher(CONV, scale, batch_size=32) for scale in ELSEWHERE},
    **{f"conv, filtered pairs, scale {scale}": _one_teacher(CONV, scale, data="filtered") for scale in ELSEWHERE},
    **{f"weak teacher, scale {scale}": _one_teacher(DFN, scale, data="weak") for scale in ELSEWHERE},
}
"""Row -> what is trained."""

HILLS: dict[str, dict[int, str]] = {
    **{teacher.removeprefix("lite-teacher-"): {s: f"{teacher} at {s}" for s in SCALES} for teacher in (CONV, SE)},
    **{
        label: {scale: f"{label}, scale {scale}" for scale in ELSEWHERE}
        for label in ("conv, batch 32", "conv, filtered pairs", "weak teacher")
    },
}
"""Circumstances -> logit scale -> row."""


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
            "control + fine-tuned captions": "+ captions",
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
    "filter": Study(
        "Half as many pairs as the web gives, chosen by a scorer or not?",
        {
            "control": "control",
            "control, filtered": "control, filtered",
            "student": "+ ensemble",
            "student, filtered": "student, filtered",
        },
        "control",
    ),
    "texts": Study(
        "The real text, a caption, the sum of both losses, or one of the two?",
        {"real": "no captions", "synthetic": "synthetic alone", "one drawn": "one of two texts", "sum": "+ ensemble"},
        "sum",
    ),
    "shared scale": Study(
        "One logit scale for both teachers, or each its own?",
        {"each its own": "+ ensemble", "both 100": "one scale, 100", "both 20": "one scale, 20"},
        "each its own",
    ),
    "live teachers": Study(
        "Stored embeddings or teachers that run along?", {"stored": "+ ensemble", "live": "live teachers"}, "stored"
    ),
    "active selection": Study(
        "Does selecting each batch by learnability pay?",
        {
            "control, stored views": "control, stored views",
            "control, ACID": "control, ACID",
            "student": "+ ensemble",
            "student, ACID": "ACID",
            "student, ACID, equal candidates": "ACID, half",
        },
        "control, stored views",
    ),
    "proxy teacher": Study(
        "The ensemble, or a larger student of it as the only teacher?",
        {"ensemble": "+ ensemble", "proxy": "proxy teacher", "conv alone": "+ distillation"},
        "ensemble",
    ),
    "number of captions": Study("One caption an image or three?", {"1": "captions: short", "3": "+ ensemble"}, "1"),
    "views": Study("How many views?", {"1": "views 1", "2": "views 2", "5": "+ ensemble"}, "1"),
    "strong views": Study(
        "Do stored views hurt without distillation?",
        {"light crops": "control", "stored views": "control, stored views"},
        "light crops",
    ),
    "strong augmentation": Study(
        "Crops from 8 % and RandAugment, with distillation and without?",
        {
            "captions, light crops": "+ captions",
            "captions, strong": "captions, strong views",
            "student, crops from 50 %": "+ ensemble",
            "student, strong": "student, strong views",
        },
        "student, crops from 50 %",
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
    "samples": Study(
        "How does accuracy move with seen samples?",
        {
            "5,000": "student, 5,000 samples",
            "10,000": "student, 10,000 samples",
            "20,000": "+ ensemble",
            "40,000": "student, full",
        },
        "20,000",
    ),
    "model size": Study(
        "How does the gain move with the model's size?",
        {
            "control, lite-mci-s": "control",
            "control, lite-mci-m": "control, lite-mci-m",
            "student, lite-mci-s": "+ ensemble",
            "student, lite-mci-m": "student, lite-mci-m",
        },
        "control, lite-mci-s",
    ),
    "temperature": Study(
        "At which logit scale does each teacher teach best?",
        _same(*(row for row in ROWS if " at " in row)),
        f"{CONV} at 20",
    ),
    "moving hill": Study(
        "Does the best logit scale move with the batch, the noise, the teacher's strength?",
        {row: row for label in HILLS if label not in ("conv", "se") for row in HILLS[label].values()},
        "conv, batch 32, scale 20",
    ),
}
"""Studies by name, the most important first."""
