"""A GPU of a named kind: its peak by its makers, and rates for it from what the paper's authors reached on theirs.

Paper: MobileCLIP's hours of an epoch on 8 A100 (`published`), of a ViT-B/16, two ViT-L/14 and a CoCa on ViT-L/14. The
FLOPs of that work over those hours are a share of the A100's peak; another GPU, and another model, are taken to reach
the same share. That is an estimate, and small or depthwise models reach less: `plan --measure` on one such GPU, or
benchmarks/gpu.py, takes its place. Reads and writes nothing. Taught by notebooks/70_scaling.ipynb.
"""

from __future__ import annotations

from functools import lru_cache

from mobileclip2_lite.costs.published import seconds
from mobileclip2_lite.costs.rates import Rates, architecture, work
from mobileclip2_lite.recipes import Recipe

PEAKS = {"H200": 989, "H100 PCIe": 756, "H100": 989, "A100": 312, "A10G": 70, "A10": 125, "L40S": 362, "L4": 121}
"""Dense bf16 TFLOP/s by the makers' data sheets; the first name that the device's holds."""
STUDENT, TEACHER, CAPTIONER = "ViT-B-16", "ViT-L-14", "coca_ViT-L-14"
"""Architectures of the published epoch."""
ESTIMATED = (
    "estimated: the share of the A100's peak that the published hours come to ({share:.0%}), times the peak of this "
    "GPU by its makers ({peak} TFLOP/s), over FLOPs counted"
)


def peak_of(name: str) -> int:
    """Dense bf16 TFLOP/s of a GPU by its name, `NVIDIA A100-SXM4-80GB` or `a100`; 0 if it is not known."""
    return next((value for key, value in PEAKS.items() if key.lower() in name.lower()), 0)


@lru_cache
def flops(name: str) -> tuple[int, int]:
    """FLOPs of one image and of one text of a full context, counted without making the weights."""
    import torch

    from mobileclip2_lite.costs.flops import count_flops
    from mobileclip2_lite.costs.latency import TextTower
    from mobileclip2_lite.models.resolve import resolve
    from mobileclip2_lite.models.zoo import build

    source = resolve(architecture(name))
    with torch.device("meta"):
        model = build(source.model_cfg)
        side, context = source.preprocess.image_size, model.context_length
        images = torch.zeros(1, 3, side, side)
        tokens = torch.zeros(1, context, dtype=torch.long)
        return count_flops(model.visual, images), count_flops(TextTower(model), tokens)


def of_work(kind: str, name: str, texts: int = 2) -> float:
    """FLOPs of one unit of work of a kind (`views`, `texts`, `pairs`, `captions`, `samples`).

    Args:
        texts: of a sample in a training step. A backward pass is twice its forward pass; a caption counts as the pass
            of its image alone, since its tokens are not published.
    """
    image, text = flops(name)
    each = {"views": image, "texts": text, "pairs": image + text, "captions": image}
    return each[kind] if kind in each else 3 * (image + texts * text)


def published_flops() -> dict[str, tuple[float, float]]:
    """Part of the published epoch -> FLOPs of a sample, seconds of one A100 for it."""
    stored, teachers, everything = (seconds(what) for what in ("stored", "teachers live", "all live"))
    teacher = 2 * (of_work("views", TEACHER) + 2 * of_work("texts", TEACHER))
    return {
        "samples": (of_work("samples", STUDENT), stored),
        "teachers": (teacher, teachers - stored),
        "captions": (of_work("captions", CAPTIONER), everything - teachers),
    }


def shares() -> dict[str, float]:
    """Part of the published epoch -> share of the A100's peak that it comes to."""
    return {part: each / spent / 1e12 / PEAKS["A100"] for part, (each, spent) in published_flops().items()}


def estimated_rates(recipe: Recipe, gpu: str) -> Rates:
    """Rates of a GPU of a named kind for a recipe; of the loader's CPU nothing follows.

    Raises:
        ValueError: the kind is not known.
    """
    peak = peak_of(gpu)
    if not peak:
        raise ValueError(f"gpu {gpu!r} is not known: one of {', '.join(PEAKS)}, or measure one (plan --measure)")
    found, sources, reached = {}, {}, shares()
    groups = 1 + bool(recipe.student.captioners)
    for item in work(recipe):
        kind, _, name = item.what.partition(" ")
        share = reached[kind if kind in reached else "teachers"]
        found[item.what] = share * peak * 1e12 / of_work(kind, name, groups)
        sources[item.what] = ESTIMATED.format(share=share, peak=peak)
    kind = next(key for key in PEAKS if key.lower() in gpu.lower())
    return Rates(f"{kind}, estimated", found, {}, sources)
