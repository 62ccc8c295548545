"""The data of a study: for each seed pairs, views and captions of its own.

A seed of a study changes everything that is drawn: the pairs of the embedded web, the captioners' sampling, the stored
views, then weights and order. Test scenes are the same for all. Seeds here start at 1000; searches use those below.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from mobileclip2_lite.recipes import Pairs, Recipe
from mobileclip2_lite.studies.rows import WEB

FIRST = 1_000
"""Added to a study's seed wherever something is drawn: no search has drawn the same."""
ANNOTATED = 4_000
"""Annotated scenes that the captioners were fine-tuned on, in each style (data/train_captioners.py)."""
KINDS = ("reinforced", "annotated", "int8", "int6", "first N")
"""`reinforced`: the recipe's. `annotated`: its pairs and those that its captioners were fine-tuned on. `int8`, `int6`:
stored smaller. `first N`: only so many pairs."""


def seeded(recipe: Recipe, seed: int) -> Recipe:
    """`recipe` with another web, other captions and views, and the pretrained captioner's captions too."""
    seed += FIRST
    captioners = tuple(dict.fromkeys((*recipe.caption.captioners, WEB)))
    return dataclasses.replace(
        recipe,
        world=dataclasses.replace(recipe.world, seed=seed),
        caption=dataclasses.replace(recipe.caption, captioners=captioners, seed=seed),
        reinforce=dataclasses.replace(recipe.reinforce, seed=seed),
    )


def prepare(recipe: Recipe, seed: int, kind: str, out: Path) -> Path:
    """The folder of one kind of data of one seed below `out`; finished parts are found.

    Raises:
        ValueError: there is no such kind.
    """
    folder = out / f"data-seed{seed}"
    if kind == "reinforced":
        return _reinforced(seeded(recipe, seed), folder)
    if kind == "annotated":
        return _annotated(seeded(recipe, seed), folder / "annotated")
    if kind in ("int8", "int6"):
        from mobileclip2_lite.shards.shrinking import shrink

        shrink(prepare(recipe, seed, "reinforced", out), folder / kind, kind)
        return folder / kind
    word, _, count = kind.partition(" ")
    if word == "first" and count.isdecimal():
        few = dataclasses.replace(recipe, pairs=dataclasses.replace(recipe.pairs, count=int(count)))
        return prepare(few, seed, "reinforced", out / f"first-{count}")
    raise ValueError(f"data of a study: {kind!r} is none of {', '.join(KINDS)}")


def _reinforced(recipe: Recipe, out: Path) -> Path:
    """The way of `pipeline.make_data`, which also measures its time."""
    from mobileclip2_lite.captioning.stage import caption
    from mobileclip2_lite.filtering.stage import filter_pairs
    from mobileclip2_lite.pairs.collect import make_pairs
    from mobileclip2_lite.reinforcement.stage import reinforce

    out.mkdir(parents=True, exist_ok=True)
    make_pairs(recipe.pairs, out / "pairs", world=recipe.world)
    source = out / "pairs"
    if recipe.filter.keep < 1:
        filter_pairs(recipe.filter, source, out / "filtered")
        source = out / "filtered"
    caption(recipe.caption, source, out / "captioned")
    reinforce(recipe.reinforce, out / "captioned", out / "reinforced")
    return out / "reinforced"


def _annotated(recipe: Recipe, out: Path) -> Path:
    """The web's pairs and the captioners' annotated scenes in each style, as one folder of pairs."""
    from datasets import concatenate_datasets

    from mobileclip2_lite.emoji_world import STYLES, annotated_dataset, pairs_dataset
    from mobileclip2_lite.pairs.collect import make_pairs

    parts = [pairs_dataset(recipe.world, recipe.pairs.count)]
    parts += [annotated_dataset(recipe.world, ANNOTATED, (style,), wording="learned") for style in STYLES]
    make_pairs(Pairs(count=0, samples_per_shard=2_000), out, dataset=concatenate_datasets(parts))
    return out
