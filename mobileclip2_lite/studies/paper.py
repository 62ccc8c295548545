"""The papers' tables, which are never our results: MobileCLIP (arXiv 2311.17049) and MobileCLIP2 (2508.20691)."""

from __future__ import annotations

from typing import Any

PAPER: dict[str, tuple[tuple[str, ...], tuple[tuple[Any, ...], ...]]] = {
    "ladder": (
        ("paper (MobileCLIP, ViT-B/16, 12.8M pairs)", "ImageNet zero-shot", "Flickr30k retrieval"),
        (
            ("CLIP", 44.5, 41.8),
            ("+ synthetic captions", 51.9, 69.3),
            ("+ distillation", 54.5, 66.1),
            ("+ strong augmentation", 59.3, 70.5),
            ("+ ensemble", 61.7, 72.0),
        ),
    ),
    "second ladder": (
        ("paper (MobileCLIP2, MobileCLIP-B, 12.8M pairs)", "ImageNet zero-shot", "Flickr30k retrieval", "38 data sets"),
        (
            ("MobileCLIP", 61.6, 72.8, 53.5),
            ("+ DFN base data", 63.1, 73.3, 54.1),
            ("+ DFN teachers, tuned scales", 65.4, 75.8, 56.2),
            ("+ DFN captioner, fine-tuned", 65.9, 75.4, 56.5),
        ),
    ),
    "strong augmentation": (
        ("paper (MobileCLIP)", "ImageNet zero-shot: light crops", "strong augmentation"),
        (("without distillation", 54.9, 51.1), ("with distillation (the ladder)", 54.5, 59.3)),
    ),
    "lambda": (
        ("paper (MobileCLIP)", "ImageNet zero-shot", "Flickr30k retrieval"),
        (("λ = 0.7", 60.7, 74.2), ("λ = 1", 61.7, 72.0)),
    ),
    "captions": (
        ("paper (MobileCLIP2), captioner", "ImageNet zero-shot", "Flickr30k retrieval", "38 data sets"),
        (
            ("DFN-2B, not fine-tuned", 65.9, 68.7, 55.9),
            ("fine-tuned on MSCOCO-38k", 65.9, 75.4, 56.5),
            ("fine-tuned on DOCCI", 66.3, 72.6, 57.3),
            ("5 models, 2 captions each", 65.9, 74.7, 56.3),
            ("10 models, 1 caption each", 66.0, 75.1, 56.5),
        ),
    ),
    "texts": (
        ("paper (MobileCLIP), texts", "ImageNet zero-shot", "Flickr30k retrieval"),
        (("real only", 56.4, 57.0), ("synthetic only", 49.8, 72.2), ("both, losses summed", 61.7, 72.0)),
    ),
    "temperature": (
        ("paper (MobileCLIP2), teacher", "best logit scale", "ImageNet zero-shot", "Flickr30k retrieval"),
        (
            ("DataComp-XL ViT-L/14", 50, 62.6, 65.6),
            ("DFN2B ViT-L/14", 70, 65.5, 68.0),
            ("DFN5B ViT-H/14", 90, 64.0, 65.9),
            ("DFN5B ViT-H/14-384", 55, 64.6, 67.6),
            ("DFN2B ViT-L/14-s39b", 60, 65.2, 67.5),
            ("both DFN2B ViT-L/14", "60 and 70", 65.9, 68.7),
        ),
    ),
}
"""Tables of the papers as (header, rows), in percent; MobileCLIP's ablations and MobileCLIP2's."""

WAYS = {"own": "the teacher's own", "calibration": "predicted: calibration", "entropy": "predicted: entropy"}
"""Ways to a scale without a sweep."""


def paper(name: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows of one of the papers' tables, to be shown as such."""
    header, rows = PAPER[name]
    return list(header), [[f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
