"""Replayable augmentation: draw a view's parameters once, replay the same view anywhere, at any size.

Paper: MobileCLIP (arXiv 2311.17049) section 4.1, "strong augmentation": RandomResizedCrop, then RandAugment; both with
torchvision's operations and ranges, flip and erasing are options that are off. Reads images, writes nothing.
Differs from the official generator: crop boxes are relative to the source and shifts relative to the side, so that a
view drawn for a teacher at 224 pixels is the same view for a student at 64; a view knows its source's size and hash.
Taught by notebooks/00_start_here.ipynb.
"""

from __future__ import annotations

import base64
import functools
import math
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from .decoding import BadImage, decode
from .operations import OPERATIONS, apply

if TYPE_CHECKING:
    from .recipes import Augment

__all__ = ["OPERATIONS", "BadImage", "SourceMismatch", "View", "apply", "decode", "draw", "pack", "replay", "unpack"]

SIGNED = frozenset(OPERATIONS[1:10])
TRANSLATE = 150.0 / 331.0
"""Largest shift of RandAugment, as a share of the side (torchvision)."""
RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}


class SourceMismatch(ValueError):
    """A view is replayed on an image that it was not drawn for."""

    reason = "source_mismatch"


@dataclass(frozen=True)
class View:
    """One augmentation of one image, as numbers.

    `crop` is (left, top, right, bottom) as shares of the source, `operations` RandAugment's (name, magnitude) in order,
    with shifts as shares of the side, `erase` a box as shares of the view. `width`, `height` (pixels) and `sha256` (of
    the image's bytes) say which source the view was drawn for; 0 and "" if that is not known.
    """

    crop: tuple[float, float, float, float]
    operations: tuple[tuple[str, float], ...] = ()
    flip: bool = False
    erase: tuple[float, float, float, float] | None = None
    width: int = 0
    height: int = 0
    sha256: str = ""


def draw(rng: np.random.Generator, width: int, height: int, augment: Augment, sha256: str = "") -> View:
    """A random view of an image of `width` x `height` pixels.

    Args:
        rng: the only source of chance, e.g. `stages.rng(seed, "views", uid)`; views of one image are drawn in a row.
        augment: ranges (`recipes.Augment`).
        sha256: hash of the image's bytes, kept with the view.

    Raises:
        ValueError: width or height is below one pixel, or the magnitude is outside 0 to 30.

    Source: torchvision's RandomResizedCrop and RandAugment, whose distributions this follows.
    """
    if width < 1 or height < 1:
        raise ValueError(f"an image of {width} x {height} pixels has no views")
    if not 0 <= augment.magnitude <= 30:
        raise ValueError(f"Augment.magnitude is {augment.magnitude}, RandAugment takes 0 to 30")
    left, top, right, bottom = _crop(rng, width, height, augment)
    operations = tuple(_operation(rng, augment.magnitude) for _ in range(augment.operations))
    flip = bool(augment.flip and rng.random() < augment.flip)
    erase = _erase(rng) if augment.erase and rng.random() < augment.erase else None
    crop = (left / width, top / height, right / width, bottom / height)
    return View(crop, operations, flip, erase, width, height, sha256)


def _crop(rng: np.random.Generator, width: int, height: int, augment: Augment) -> tuple[int, int, int, int]:
    """torchvision's RandomResizedCrop in whole source pixels: ten tries, then the largest centred crop allowed."""
    low, high = augment.ratio
    for _ in range(10):
        area = width * height * rng.uniform(*augment.scale)
        ratio = math.exp(rng.uniform(math.log(low), math.log(high)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            return left, top, left + w, top + h
    w, h = width, height
    if width / height < low:
        h = min(height, max(1, round(width / low)))
    elif width / height > high:
        w = min(width, max(1, round(height * high)))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def _operation(rng: np.random.Generator, magnitude: int) -> tuple[str, float]:
    """One RandAugment operation of `magnitude` out of 30, with a random sign where the operation has one."""
    name = OPERATIONS[int(rng.integers(len(OPERATIONS)))]
    share = magnitude / 30
    value = {
        "ShearX": 0.3 * share,
        "ShearY": 0.3 * share,
        "TranslateX": TRANSLATE * share,
        "TranslateY": TRANSLATE * share,
        "Rotate": 30.0 * share,
        "Brightness": 0.9 * share,
        "Color": 0.9 * share,
        "Contrast": 0.9 * share,
        "Sharpness": 0.9 * share,
        "Posterize": 8 - round(magnitude / 7.5),
        "Solarize": 255.0 * (1 - share),
    }.get(name, 0.0)
    if name in SIGNED and rng.integers(2):
        value = -value
    return name, float(np.float32(value))


def _erase(rng: np.random.Generator) -> tuple[float, float, float, float]:
    """torchvision's RandomErasing box (2-33 % of the area, ratio 0.3-3.3), in 255ths of the side: it is stored so."""
    for _ in range(10):
        area, ratio = rng.uniform(0.02, 0.33), math.exp(rng.uniform(math.log(0.3), math.log(3.3)))
        w, h = round(255 * math.sqrt(area * ratio)), round(255 * math.sqrt(area / ratio))
        if 0 < w < 255 and 0 < h < 255:
            left, top = int(rng.integers(256 - w)), int(rng.integers(256 - h))
            return left / 255, top / 255, (left + w) / 255, (top + h) / 255
    return 0.25, 0.25, 0.75, 0.75


def replay(
    image: Image.Image | np.ndarray,
    view: View,
    size: int,
    interpolation: str = "bilinear",
    on_mismatch: str = "error",
    resampling: str = "pil",
) -> Image.Image:
    """The pixels of `view`: RGB, `size` x `size`. Used by the teachers and by the student's loader alike.

    Args:
        image: the whole source, a picture of any mode (`decode`) or uint8 pixels (H, W, 3) (`decoding.pixels`).
        size: side of the result in pixels.
        interpolation: `bilinear`, `bicubic`, `lanczos` or `nearest`, always antialiased.
        on_mismatch: `error`, or `ignore` to take the view relative to an image of another size.
        resampling: `pil`, or `torch` for its four times faster kernel (bilinear, bicubic), which rounds 2-3 % of the
            values to the next level before RandAugment; the official generator and trainer use PIL. With the extra
            `fast` (numba), `pil` gives the same pixels bit for bit, and is nearly as fast.

    Raises:
        SourceMismatch: the image's size is not the view's, and `on_mismatch` is `error`.
        ValueError: the interpolation, resampling or an operation has no such name.
    """
    return Image.fromarray(replay_pixels(image, view, size, interpolation, on_mismatch, resampling))


def replay_pixels(
    image: Image.Image | np.ndarray,
    view: View,
    size: int,
    interpolation: str = "bilinear",
    on_mismatch: str = "error",
    resampling: str = "pil",
    height: int = 0,
) -> np.ndarray:
    """`replay` as uint8 (size, size, 3), not to be written to.

    Args:
        height: of the source, where `image` holds no more than its first rows (`decoding.pixels`); 0 if it is whole.
    """
    if interpolation not in RESAMPLING:
        raise ValueError(f"interpolation {interpolation!r} is not one of {', '.join(RESAMPLING)}")
    if resampling not in ("pil", "torch"):
        raise ValueError(f"resampling {resampling!r} is not pil or torch")
    array = isinstance(image, np.ndarray)
    width, rows = image.shape[1::-1] if array else image.size
    height = height or rows
    if on_mismatch == "error" and view.width and (width, height) != (view.width, view.height):
        raise SourceMismatch(
            f"the view was drawn for {view.width} x {view.height} pixels, the image has {width} x {height}"
        )
    box, (kernels, trusted) = pixel_box(view.crop, width, height), _kernels()
    if resampling == "torch":
        out = _resize_torch(image if array else np.asarray(image.convert("RGB")), box, size, interpolation)
    elif interpolation in trusted and array:
        out = kernels.resize(image, box, size, interpolation)
    else:
        out = _resize_pil(image, box, size, interpolation)
    if view.flip:
        out = np.ascontiguousarray(out[:, ::-1])
    for name, magnitude in view.operations:
        if name in trusted:
            out = kernels.apply(out, name, magnitude)
        else:
            out = np.asarray(apply(Image.fromarray(out), name, magnitude))
    if view.erase is not None:
        left, top, right, bottom = pixel_box(view.erase, size, size)
        out = out.copy()
        out[top:bottom, left:right] = 0
    return out


@functools.cache
def _kernels() -> tuple[Any, frozenset[str]]:
    """The compiled kernels and the names of those that give the installed PIL's pixels; none without numba."""
    if os.environ.get("MOBILECLIP2_LITE_KERNELS") == "0":
        return None, frozenset()
    try:
        from . import kernels
    except (ImportError, RuntimeError):  # no numba, one for another numpy, or no folder for its cache
        return None, frozenset()
    return kernels, kernels.trusted()


def _resize_pil(
    image: Image.Image | np.ndarray, box: tuple[int, int, int, int], size: int, interpolation: str
) -> np.ndarray:
    """A box of a picture at `size` x `size` by PIL."""
    if isinstance(image, np.ndarray):  # only the crop is copied
        crop = Image.fromarray(np.ascontiguousarray(image[box[1] : box[3], box[0] : box[2]]))
    else:
        crop = image.crop(box).convert("RGB")
    return np.asarray(crop.resize((size, size), RESAMPLING[interpolation]))


def _resize_torch(pixels: np.ndarray, box: tuple[int, int, int, int], size: int, interpolation: str) -> np.ndarray:
    """A box of uint8 pixels (H, W, 3) at `size` x `size` by torch's antialiased integer kernel."""
    import torch

    if interpolation not in ("bilinear", "bicubic"):
        raise ValueError(f"resampling 'torch' has bilinear and bicubic, not {interpolation!r}")
    crop = torch.from_numpy(pixels[box[1] : box[3], box[0] : box[2]]).permute(2, 0, 1)[None]
    crop = crop.contiguous(memory_format=torch.channels_last)  # only then is the result channels-last, too
    out = torch.nn.functional.interpolate(crop, (size, size), mode=interpolation, antialias=True)
    return out[0].permute(1, 2, 0).contiguous().numpy()


def pixel_box(crop: tuple[float, float, float, float], width: int, height: int) -> tuple[int, int, int, int]:
    """A relative box in whole pixels of an image, at least one pixel large."""
    left, top = min(round(crop[0] * width), width - 1), min(round(crop[1] * height), height - 1)
    right, bottom = min(round(crop[2] * width), width), min(round(crop[3] * height), height)
    return left, top, max(right, left + 1), max(bottom, top + 1)


def pack(views: list[View]) -> str:
    """Views as one base64 string: 13 bytes a view and 5 an operation (31 characters a view with two operations).

    A row is: 4 x 24-bit box in 2^-24 of the side, a byte of flags (1 flip, 2 erase, number of operations x 4), for each
    operation its number and a float32, and if erased 4 bytes in 255ths. The source's size and hash are not in it.
    """
    rows = bytearray()
    for view in views:
        for share in view.crop:
            rows += min(round(share * (1 << 24)), (1 << 24) - 1).to_bytes(3, "little")
        rows.append(view.flip | (view.erase is not None) << 1 | len(view.operations) << 2)
        for name, magnitude in view.operations:
            rows += struct.pack("<Bf", OPERATIONS.index(name), magnitude)
        if view.erase is not None:
            rows += bytes(round(share * 255) for share in view.erase)
    return base64.b64encode(bytes(rows)).decode()


def unpack(
    text: str, width: int = 0, height: int = 0, sha256: str = "", choose: Callable[[int], int] | None = None
) -> list[View]:
    """The views of `pack`; boxes come back in whole pixels of the source if its size is given.

    Args:
        choose: is given the number of views and says which one to read; None for all.

    Raises:
        ValueError: the text is not base64, ends within a view, or names an unknown operation.
    """
    rows, at, starts = base64.b64decode(text), 0, []
    if len(text) % 4 or len(rows) != len(text) * 3 // 4 - text[-2:].count("="):
        raise ValueError("packed views are not base64")
    flags = rows[12:13]
    size = _row_size(flags[0]) if flags else 13
    if len(rows) % size == 0 and rows[12::size].count(flags) == len(rows) // size:  # all rows are equally long
        starts, at = range(0, len(rows), size), len(rows)
    while at < len(rows):
        starts.append(at)
        at += _row_size(rows[at + 12] if at + 12 < len(rows) else 0)
    if at != len(rows):
        raise ValueError(f"packed views end within a view, after {len(rows)} bytes")
    if choose is not None:
        starts = [starts[choose(len(starts))]] if starts else []
    return [_unpack_row(rows, start, width, height, sha256) for start in starts]


def _row_size(flags: int) -> int:
    return 13 + 5 * (flags >> 2) + 4 * (flags >> 1 & 1)


def _unpack_row(rows: bytes, at: int, width: int, height: int, sha256: str) -> View:
    crop = tuple(int.from_bytes(rows[at + 3 * i : at + 3 * i + 3], "little") / (1 << 24) for i in range(4))
    if width and height:
        left, top, right, bottom = pixel_box(crop, width, height)
        crop = (left / width, top / height, right / width, bottom / height)
    flags, at = rows[at + 12], at + 13
    operations = []
    for number, magnitude in struct.iter_unpack("<Bf", rows[at : at + 5 * (flags >> 2)]):
        if number >= len(OPERATIONS):
            raise ValueError(f"packed views name operation {number} of {len(OPERATIONS)}")
        operations.append((OPERATIONS[number], magnitude))
    at += 5 * len(operations)
    erase = tuple(value / 255 for value in rows[at : at + 4]) if flags & 2 else None
    return View(crop, tuple(operations), bool(flags & 1), erase, width, height, sha256)
