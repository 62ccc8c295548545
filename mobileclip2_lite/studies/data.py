"""The data of a study: for each seed pairs, views and captions of its own.

A seed of a study changes everything that is drawn: the pairs of the embedded web, the captioners' sampling, the stored
views, then weights and order. Test scenes are the same for all. Seeds here start at 1000; searches use those below.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

from mobileclip2_lite.recipes import Augment, Pairs, Recipe
from mobileclip2_lite.studies.rows import DFN, SHORT, WEB
from mobileclip2_lite.work.folder import FolderLocked, Work, read_manifest

FIRST = 1_000
"""Added to a study's seed wherever something is drawn: no search has drawn the same."""
ANNOTATED = 4_000
"""Annotated scenes that the captioners were fine-tuned on, in each style (data/train_captioners.py)."""
KINDS = ("reinforced", "annotated", "filtered", "strong", "proxy", "weak", "int8", "int6", "several captions")
"""`reinforced`: the recipe's. `annotated`: its pairs and those that its captioners were fine-tuned on. `filtered`: as
many pairs, the best half of twice as many. `strong`: its captioned pairs with the paper's augmentation, crops from 8 %
and RandAugment. `proxy`: its captioned pairs with one teacher, a larger student of the ensemble. `weak`: with one
teacher, the filter's scorer. `int8`, `int6`: stored smaller. `several captions`: three an image by the captioner of
short ones. `first N`, for a number N: only so many pairs, or more of the same web."""
LARGER = "lite-mci-m"
"""Model of the proxy teacher."""
LOOK = 2.0
"""Seconds between two looks at a folder that another process writes."""


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

    Another process that makes the same is waited for: the system lets go of its lock however it ends.

    Raises:
        ValueError: there is no such kind.
    """
    while True:
        try:
            return _make(recipe, seed, kind, out)
        except FolderLocked:
            time.sleep(LOOK)


def _make(recipe: Recipe, seed: int, kind: str, out: Path) -> Path:
    folder = out / f"data-seed{seed}"
    if kind == "reinforced":
        return _reinforced(seeded(recipe, seed), folder)
    if kind == "annotated":
        return _annotated(seeded(recipe, seed), folder / "annotated")
    if kind in ("int8", "int6"):
        return stored(prepare(recipe, seed, "reinforced", out), folder / f"stored-{kind}", kind)
    if kind in ("strong", "weak"):
        from mobileclip2_lite.reinforcement.stage import reinforce

        prepare(recipe, seed, "reinforced", out)  # whose captions it shares
        changes = {"augment": Augment()} if kind == "strong" else {"teachers": (DFN,)}
        reinforce(dataclasses.replace(seeded(recipe, seed).reinforce, **changes), folder / "captioned", folder / kind)
        return folder / kind
    if kind == "proxy":
        return _proxy(seeded(recipe, seed), seed, folder, prepare(recipe, seed, "reinforced", out))
    if kind == "several captions":
        prepare(recipe, seed, "reinforced", out)  # whose pairs it shares
        return _several_captions(seeded(recipe, seed), folder)
    if kind == "filtered":
        twice = dataclasses.replace(recipe.pairs, count=2 * recipe.pairs.count)
        best = dataclasses.replace(recipe.filter, keep=0.5)
        return prepare(dataclasses.replace(recipe, pairs=twice, filter=best), seed, "reinforced", out / kind)
    word, _, count = kind.partition(" ")
    if word == "first" and count.isdecimal():
        few = dataclasses.replace(recipe, pairs=dataclasses.replace(recipe.pairs, count=int(count)))
        return prepare(few, seed, "reinforced", out / f"first-{count}")
    raise ValueError(f"data of a study: {kind!r} is none of {', '.join(KINDS)}, first N")


def _several_captions(recipe: Recipe, folder: Path) -> Path:
    """As many captions of one captioner as three write."""
    from mobileclip2_lite.captioning.stage import caption
    from mobileclip2_lite.reinforcement.stage import reinforce

    more = dataclasses.replace(recipe.caption.generate, captions=3)
    caption(
        dataclasses.replace(recipe.caption, captioners=(SHORT,), generate=more),
        folder / "pairs",
        folder / "captioned-several",
    )
    reinforce(recipe.reinforce, folder / "captioned-several", folder / "several")
    return folder / "several"


def _proxy(recipe: Recipe, seed: int, folder: Path, reinforced: Path) -> Path:
    """A larger student learns from the ensemble first; its embeddings of the same views and texts are what is stored.

    The way of EUPE (arXiv 2603.22387), at our size: a large model merges several teachers before a small one learns.
    """
    from mobileclip2_lite.reinforcement.stage import reinforce
    from mobileclip2_lite.training.loop import train

    larger = dataclasses.replace(recipe.student, model=LARGER, evaluate_every=0, tracker="none", workers=0, threads=1)
    teacher = train(larger, reinforced, folder / "proxy-teacher", seed=FIRST + seed, progress=False)
    alone = dataclasses.replace(recipe.reinforce, teachers=(str(teacher),))
    reinforce(alone, folder / "captioned", folder / "proxy")
    return folder / "proxy"


def stored(folder: Path, out: Path, storage: str) -> Path:
    """A copy of reinforced shards whose embeddings are stored as `storage`; everything else is the same."""
    from mobileclip2_lite.shards.samples import read_samples, write_shard
    from mobileclip2_lite.shards.shrinking import stored_as
    from mobileclip2_lite.work.records import listed
    from mobileclip2_lite.work.shardwise import make_shards

    manifest = read_manifest(folder)

    def write(target: Path) -> dict:
        return {**write_shard(target, read_samples(folder / target.name), storage)._asdict(), "dropped": {}}

    def summary(records: list[dict]) -> dict:
        kept = {key: manifest[key] for key in ("sample_schema", "teachers", "captioners", "samples")}
        return {**kept, "reinforced": {**stored_as(folder, manifest), "storage": storage}, "shards": listed(records)}

    work = Work(out, "store", 1, {"storage": storage}, {"reinforced": folder})
    make_shards(work, [shard["name"] for shard in manifest["shards"]], lambda: write, summary)
    return out


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
