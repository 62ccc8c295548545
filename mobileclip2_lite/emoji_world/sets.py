"""Data sets of the embedded world: the web's pairs, the endless stream that teachers learn from, and the test sets.

Test sets are drawn from generators of their own, so that no scene, background seed or render of them occurs in
training (tests/emoji_world/test_world.py proves it). Images are rendered on demand: what is returned is cheap to make.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from mobileclip2_lite.emoji_world.rendering import jpeg, render
from mobileclip2_lite.emoji_world.scenes import (
    BACKGROUNDS,
    TINTS,
    UNSEEN_BACKGROUNDS,
    Scene,
    draw_background,
    draw_things,
    name_table,
    scene,
)
from mobileclip2_lite.emoji_world.texts import STYLES, alt_text, article, caption, clearly_placed, phrase, relation
from mobileclip2_lite.emoji_world.wording import WORDINGS, captions_in, listing, statement, worded
from mobileclip2_lite.recipes import World
from mobileclip2_lite.work.randomness import rng, stable_uid


def annotated_dataset(
    world: World, count: int, styles: Sequence[str] = ("short",), start: int = 0, wording: str = "plain"
):
    """Scenes `start` to `start + count` of the split `annotated`, each with one clean caption, as a `datasets.Dataset`.

    Columns as those of `pairs_dataset`: `uid` (str), `image` (datasets.Image, JPEG bytes of `world.image_size` pixels),
    `text` (clean caption), `scene` (its uid in this world). `make_pairs(..., dataset=...)` makes a folder of it.

    Args:
        world: names, size and number of objects count; its seed and its noise do not.
        count: scenes, one pair each.
        styles: of `STYLES`; the scenes take them in turn. Two calls that differ only here show the same images.
        start: first scene, so that a part can be held out.
        wording: `plain`, or one of `wording.WORDINGS`.

    Raises:
        ValueError: no style or wording, or one that is not of `STYLES`; `count` below 1 or `start` below 0.
    """
    from datasets import Dataset, Features, Image, Value

    styles = (styles,) if isinstance(styles, str) else tuple(styles)
    if not styles or not set(styles) <= set(STYLES):
        raise ValueError(f"annotated_dataset: styles = {styles}: one or more of {STYLES}")
    if wording not in ("plain", *WORDINGS):
        raise ValueError(f"annotated_dataset: wording = {wording!r}: plain or one of {tuple(WORDINGS)}")
    if count < 1 or start < 0:
        raise ValueError(f"annotated_dataset: count = {count} must be 1 or more, start = {start} 0 or more")
    features = Features({"uid": Value("string"), "image": Image(), "text": Value("string"), "scene": Value("string")})
    return Dataset.from_list(
        list(_annotated_rows(world, range(start, start + count), styles, wording)), features=features
    )


def _annotated_rows(world: World, indices: range, styles: tuple[str, ...], wording: str) -> Iterator[dict]:
    for index in indices:
        picture = scene(world, "annotated", index)
        style = styles[index % len(styles)]
        yield {
            "uid": stable_uid(f"emoji_world/{picture.uid}/{style}"),
            "image": {"bytes": jpeg(render(picture, world.image_size)), "path": None},
            "text": caption(picture, style) if wording == "plain" else worded(picture, style, wording),
            "scene": picture.uid,
        }


SPLITS = ("val", "test")
"""Validation is for learning curves, early stopping and every search; the test is for reports alone."""

SHIFTS = ("grey", "sketch", "cluttered", "unseen_backgrounds")
"""Shifted versions of the zero-shot set, for robustness."""


class SceneImages:
    """Scenes that are rendered when they are iterated: `len`, indexing and iteration give uint8 (side, side, 3)."""

    def __init__(self, scenes: list[Scene], side: int):
        self.scenes, self.side = scenes, side

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> np.ndarray:
        return render(self.scenes[index], self.side)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (render(picture, self.side) for picture in self.scenes)


class Classification(NamedTuple):
    """Images with the index of their class."""

    images: SceneImages
    labels: np.ndarray
    class_names: list[str]


class Retrieval(NamedTuple):
    """Images with all their captions."""

    images: SceneImages
    captions: list[list[str]]


class HardNegatives(NamedTuple):
    """Images with a right caption and one that differs only in what belongs to what."""

    images: SceneImages
    positives: list[str]
    negatives: list[str]


def _rows(world: World, count: int) -> Iterator[dict]:
    for index in range(count):
        picture = scene(world, "train", index)
        yield {
            "uid": stable_uid(f"emoji_world/{picture.uid}"),
            "image": {"bytes": jpeg(render(picture, world.image_size)), "path": None},
            "text": alt_text(picture, world),
            "scene": picture.uid,
        }


def pairs_dataset(world: World, count: int, streaming: bool = False):
    """The first `count` pairs of the training stream, in the form in which a user's own data comes.

    Columns: `uid` (str), `image` (datasets.Image, JPEG bytes), `text` (alt-text), `scene` (its uid in this world).

    Args:
        streaming: a `datasets.IterableDataset` whose rows are rendered as they are read; else a `datasets.Dataset` in
            memory (about 5 kB a pair at 96 pixels).
    """
    from datasets import Dataset, Features, Image, IterableDataset, Value

    features = Features({"uid": Value("string"), "image": Image(), "text": Value("string"), "scene": Value("string")})
    if streaming:
        return IterableDataset.from_generator(_rows, features=features, gen_kwargs={"world": world, "count": count})
    return Dataset.from_list(list(_rows(world, count)), features=features)


def training_stream(
    world: World, start: int, stop: int, captions: float, worded_captions: float = 0.0
) -> Iterator[tuple[np.ndarray, str]]:
    """Scenes `start` to `stop` of the training stream, never repeated: (uint8 pixels, text).

    Args:
        captions: share of texts that are clean captions instead of alt-text; teachers learn from larger and better
            data than students, as the web-scale teachers of the paper do.
        worded_captions: share of the clean captions in the wording `learned` instead of the plain one.
    """
    for index in range(start, stop):
        picture = scene(world, "train", index)
        draw = rng("stream", world.seed, index)
        style = STYLES[draw.integers(len(STYLES))]
        if draw.random() >= captions:
            text = alt_text(picture, world)
        elif draw.random() < worded_captions:
            text = worded(picture, style, "learned", 7)
        else:
            text = caption(picture, style, 7)
        yield render(picture, world.image_size), text


def _shifted(picture: Scene, world: World, shift: str | None, draw: np.random.Generator) -> Scene:
    match shift:
        case None:
            return picture
        case "grey" | "sketch":
            return dataclasses.replace(picture, style=shift)
        case "unseen_backgrounds":
            return dataclasses.replace(picture, background=draw_background(draw, UNSEEN_BACKGROUNDS))
        case "cluttered":
            table = name_table(0)
            small = []
            for k in draw.choice(len(table), 8, replace=False):
                (thing,) = draw_things(draw, [table[k]])
                x, y = draw.random(2)
                small.append(dataclasses.replace(thing, size=0.16, x=round(float(x), 4), y=round(float(y), 4)))
            return dataclasses.replace(picture, things=(*small, *picture.things))
    raise ValueError(f"shift {shift!r}: one of {SHIFTS} or None")


def _seed(part: str, split: str) -> str:
    """The first word of a generator's seed: a split's scenes come from generators of its own."""
    if split not in SPLITS:
        raise ValueError(f"split {split!r}: one of {SPLITS}")
    return part if split == "val" else f"{part}-{split}"


def zero_shot_set(
    world: World, renders: int, shift: str | None = None, side: int | None = None, *, split: str = "test"
) -> Classification:
    """`renders` scenes of every name of the world, one object each, in a shift of `SHIFTS` or as in training.

    Raises:
        ValueError: there is no such shift or split.
    """
    seed = _seed("zero-shot", split)
    table = name_table(world.names)
    scenes, labels = [], []
    for label, name in enumerate(table):
        for k in range(renders):
            draw = rng(seed, name.name, k)
            picture = Scene(f"{seed}-{name.name}-{k}", draw_things(draw, [name], tint=0.1), draw_background(draw))
            scenes.append(_shifted(picture, world, shift, rng(_seed("shift", split), shift or "", name.name, k)))
            labels.append(label)
    images = SceneImages(scenes, side or world.image_size)
    return Classification(images, np.array(labels), [name.name for name in table])


def retrieval_set(world: World, scenes: int, side: int | None = None, *, split: str = "test") -> Retrieval:
    """`scenes` scenes of two or more objects (one if the world allows no more), each with five clean captions.

    The captions are in the split's own wording (`wording.WORDINGS`), which no training text is written in.

    Raises:
        ValueError: there is no such split.
    """
    objects = tuple(range(2, world.max_objects + 1)) or (1,)
    pictures = [scene(world, _seed("retrieval", split), index, objects=objects) for index in range(scenes)]
    return Retrieval(
        SceneImages(pictures, side or world.image_size), [captions_in(picture, split) for picture in pictures]
    )


def two_objects(world: World, split: str, index: int, tint: float) -> Scene:
    """Scene number `index` of a split: two objects, each tinted (in unlike colours) with probability `tint`."""
    table = name_table(world.names)
    draw = rng(split, world.names, index)
    plain = [name for name in table if not set(TINTS) & set(name.name.split())]
    chosen = [plain[k] for k in draw.choice(len(plain), 2, replace=False)]
    things = draw_things(draw, chosen, tint=tint, distinct_tints=True)
    return Scene(f"{split}-{world.names}-{index}", things, draw_background(draw, BACKGROUNDS))


def binding_set(world: World, count: int, side: int | None = None, *, split: str = "test") -> HardNegatives:
    """Two tinted objects; the wrong caption gives each the other's colour.

    Raises:
        ValueError: there is no such split.
    """
    scenes = [two_objects(world, _seed("binding", split), index, tint=1.1) for index in range(count)]
    right, wrong = [], []
    for picture in scenes:
        first, second = picture.things
        swapped = [dataclasses.replace(a, tint=b.tint) for a, b in ((first, second), (second, first))]
        join = listing(split, picture.uid)
        right.append(join.join(article(phrase(thing)) for thing in (first, second)))
        wrong.append(join.join(article(phrase(thing)) for thing in swapped))
    return HardNegatives(SceneImages(scenes, side or world.image_size), right, wrong)


def relations_set(world: World, count: int, side: int | None = None, *, split: str = "test") -> HardNegatives:
    """Two objects clearly beside or above each other; the wrong caption exchanges them.

    Raises:
        ValueError: there is no such split.
    """
    scenes, right, wrong, index = [], [], [], 0
    while len(scenes) < count:
        picture = two_objects(world, _seed("relations", split), index, tint=0.0)
        index += 1
        first, second = picture.things
        if not clearly_placed(first, second):
            continue
        scenes.append(picture)
        where = relation(first, second)
        frame = statement(split, picture.uid)
        right.append(frame.format(first=article(first.name), relation=where, second=article(second.name)))
        wrong.append(frame.format(first=article(second.name), relation=where, second=article(first.name)))
    return HardNegatives(SceneImages(scenes, side or world.image_size), right, wrong)
