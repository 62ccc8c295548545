"""The studies of the evidence: rows that differ in one thing, and the question that they answer.

MobileCLIP's ablations (arXiv 2311.17049) and MobileCLIP2's tables (arXiv 2508.20691) are of this kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from mobileclip2_lite.studies.rows import CONV, MOVED, ROWS, SHORTER, SWEPT


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
        {
            "λ = 0": "lambda 0",
            "λ = 0.5": "lambda 0.5",
            "λ = 0.7": "+ ensemble",
            "λ = 0.7, gated": "lambda 0.7, gated",
            "λ = 1": "lambda 1",
        },
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
        seeds=5,
    ),
    "texts": Study(
        "The real text, a caption, the sum of both losses, or one of the two?",
        {"real": "no captions", "synthetic": "synthetic alone", "one drawn": "one of two texts", "sum": "+ ensemble"},
        "sum",
        seeds=5,
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
    "number of captions": Study(
        "How many captions, and whose?",
        {
            "1": "captions: short",
            "2 of one captioner": "captions: short, 2 each",
            "3 of one captioner": "captions: short, 3 each",
            "3, one of each captioner": "+ ensemble",
        },
        "1",
        seeds=5,
    ),
    "views": Study("How many views?", {"1": "views 1", "2": "views 2", "5": "+ ensemble"}, "1", seeds=5),
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
        _same("control, AdamW", "control", "student, AdamW", "student, AdamW 3e-3", "+ ensemble"),
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
            "14,000": "student, 14,000 samples",
            "20,000": "+ ensemble",
            "28,000": "student, 28,000 samples",
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
        _same(*(row for hill in SWEPT.values() for row in hill.values())),
        f"{CONV} at 20",
    ),
    "short embeddings": Study(
        "What are the first dimensions of an embedding worth, and what does a loss on them change?",
        {
            f"{label}, {kept or 'all'} dimensions": f"{row}, {kept} dimensions" if kept else row
            for kept in (*SHORTER, 0)
            for label, row in (("plain", "student, full"), ("nested", "nested"))
        },
        "plain, all dimensions",
    ),
    "moving hill": Study(
        "Does the best logit scale move with the batch, the noise, the teacher's strength?",
        _same(*(row for hill in MOVED.values() for row in hill.values())),
        "conv, batch 32, scale 20",
    ),
}
"""Studies by name, the most important first."""
