"""The embedded world's test sets and all measures on them: zero-shot, retrieval, binding, relations, shifts.

The embedded world knows the truth of every image, so that attribute binding and relations are measured with hard
negatives (like SugarCrepe) and the shifts are exact. `own_images` has the same measures for a user's images.
Taught by notebooks/40_reinforced_training.ipynb.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from mobileclip2_lite.evaluation.measures import (
    expected_hit,
    pair_hits,
    retrieval_hits,
    zero_shot_classifier,
    zero_shot_hits,
)
from mobileclip2_lite.models.loaded import encode_images, encode_texts

if TYPE_CHECKING:
    from mobileclip2_lite.models.loaded import LoadedModel
    from mobileclip2_lite.recipes import Evaluate, World

PARTS = ("zero_shot", "shifts", "retrieval", "binding", "relations")
"""What `evaluate` measures."""


def flatten_captions(captions: Sequence[Sequence[str]]) -> tuple[list[str], list[int]]:
    """All texts in one list, and the image of each."""
    texts = [text for own in captions for text in own]
    return texts, [image for image, own in enumerate(captions) for _ in own]


@lru_cache(maxsize=8)
def zero_shot_images(
    world: World, renders: int, shift: str | None = None, split: str = "test"
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """One zero-shot set of the embedded world, rendered once a process: images (N, H, W, 3), labels (N,), names."""
    from mobileclip2_lite import emoji_world

    images, labels, names = emoji_world.zero_shot_set(world, renders, shift, split=split)
    return np.stack(list(images)), np.asarray(labels), list(names)


@lru_cache(maxsize=2)
def retrieval_images(world: World, scenes: int, split: str = "test") -> tuple[np.ndarray, list[list[str]]]:
    """The retrieval set of the embedded world, rendered once a process: images (N, H, W, 3), five captions each."""
    from mobileclip2_lite import emoji_world

    images, captions = emoji_world.retrieval_set(world, scenes, split=split)
    return np.stack(list(images)), list(captions)


@lru_cache(maxsize=4)
def negative_images(
    world: World, kind: str, count: int, split: str = "test"
) -> tuple[np.ndarray, list[str], list[str]]:
    """Hard negatives (`binding` or `relations`), rendered once a process: images, true captions, false captions."""
    from mobileclip2_lite import emoji_world

    make = {"binding": emoji_world.binding_set, "relations": emoji_world.relations_set}[kind]
    images, positive, negative = make(world, count, split=split)
    return np.stack(list(images)), list(positive), list(negative)


def evaluate(
    loaded: LoadedModel, world: World, settings: Evaluate, only: Collection[str] = PARTS, split: str = "test"
) -> dict[str, float]:
    """Every measure of the embedded world for one model; `chance` gives the same keys for a model that guesses.

    Args:
        only: which of `PARTS` to measure; a learning curve needs few.
        split: `val` for learning curves, early stopping and searches; `test` for reports.

    Returns:
        shares between 0 and 1: `zero_shot` and `zero_shot_top5`; `zero_shot_<shift>`; `retrieval_i2t_r1`,
        `retrieval_t2i_r1` and both `_r5`; `binding`; `relations`.

    Raises:
        ValueError: `only` names something that is not in `PARTS`, or there is no such split.
    """
    return {name: float(values.mean()) for name, values in hits(loaded, world, settings, only, split).items()}


def hits(
    loaded: LoadedModel, world: World, settings: Evaluate, only: Collection[str] = PARTS, split: str = "test"
) -> dict[str, np.ndarray]:
    """`evaluate` item by item: for each measure a hit a query, float64 in 0..1, for intervals and paired comparisons.

    Args and raises as `evaluate`.
    """
    from mobileclip2_lite import emoji_world

    if unknown := set(only) - set(PARTS):
        raise ValueError(f"evaluate: unknown parts {sorted(unknown)}; there are {PARTS}")
    size, counts = settings.batch_size, settings.counts(split)
    result: dict[str, torch.Tensor] = {}
    classifier = None
    for shift in ((None,) if "zero_shot" in only else ()) + (emoji_world.SHIFTS if "shifts" in only else ()):
        images, labels, names = zero_shot_images(world, counts["shift_renders" if shift else "renders"], shift, split)
        if classifier is None:
            classifier = zero_shot_classifier(loaded, names, emoji_world.TEMPLATES, size)
        accuracy = zero_shot_hits(encode_images(loaded, images, size), classifier, labels)
        result |= {f"zero_shot_{shift}": accuracy["top1"]} if shift else {"zero_shot": accuracy["top1"]}
        result |= {} if shift else {"zero_shot_top5": accuracy["top5"]}
    if "retrieval" in only:
        images, captions = retrieval_images(world, counts["scenes"], split)
        texts, owner = flatten_captions(captions)
        recalls = retrieval_hits(encode_images(loaded, images, size), encode_texts(loaded, texts, size), owner)
        result |= {f"retrieval_{key}": value for key, value in recalls.items()}
    for kind in ("binding", "relations"):
        if kind in only:
            images, positive, negative = negative_images(world, kind, counts["hard_negatives"], split)
            true, false = encode_texts(loaded, positive, size), encode_texts(loaded, negative, size)
            result[kind] = pair_hits(encode_images(loaded, images, size), true, false)
    return {name: values.numpy() for name, values in result.items()}


def chance(world: World, settings: Evaluate, captions_per_scene: int = 5, split: str = "test") -> dict[str, float]:
    """What guessing scores on each measure of `evaluate`, exactly."""
    from mobileclip2_lite import emoji_world

    names, scenes = len(emoji_world.names(world.names)), settings.counts(split)["scenes"]
    result = {"zero_shot": 1 / names, "zero_shot_top5": min(1.0, 5 / names)}
    result |= {f"zero_shot_{shift}": 1 / names for shift in emoji_world.SHIFTS}
    texts = scenes * captions_per_scene
    for k in (1, 5):
        one = torch.ones(1, dtype=torch.long)
        hit = expected_hit(0 * one, texts * one, captions_per_scene * one, k)
        result |= {f"retrieval_i2t_r{k}": float(hit), f"retrieval_t2i_r{k}": min(1.0, k / scenes)}
    return result | {"binding": 0.5, "relations": 0.5}
