"""Pixels of a scene at any size: its background, its drawings in place, and the style of the whole.

The same scene looks the same at 64 and at 256 pixels. Drawings are OpenMoji's SVGs, turned into pixels once a size and
kept in memory; a tint or a shift of hue is one matrix over their colours.
"""

from __future__ import annotations

import functools
import io
import math

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from mobileclip2_lite.emoji_world.scenes import (
    BACKGROUNDS,
    COLOURS,
    UNSEEN_BACKGROUNDS,
    Background,
    Scene,
    Thing,
    svg_folder,
)
from mobileclip2_lite.work.randomness import rng


@functools.lru_cache(maxsize=8192)
def _drawing(icon: str, pixels: int) -> Image.Image:
    """The drawing of an icon as RGBA at `pixels` a side, kept in memory."""
    import resvg_py

    svg = (svg_folder() / f"{icon}.svg").read_text("utf-8")
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


def render(scene: Scene, side: int) -> np.ndarray:
    """Pixels of a scene: uint8 (side, side, 3), the same scene at any size."""
    canvas = render_background(scene.background, side)
    for thing in scene.things:
        _paste(canvas, thing, side)
    if scene.style == "grey":
        canvas = ImageOps.grayscale(canvas).convert("RGB")
    elif scene.style == "sketch":
        edges = ImageOps.grayscale(canvas).filter(ImageFilter.FIND_EDGES).crop((1, 1, side - 1, side - 1))
        canvas = ImageOps.invert(ImageOps.autocontrast(edges.resize((side, side)))).convert("RGB")
    return np.asarray(canvas)


def jpeg(pixels: np.ndarray) -> bytes:
    """Pixels (H, W, 3) uint8 as the file that the world's images are: JPEG of quality 90."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
