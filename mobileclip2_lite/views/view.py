"""A view: one augmentation of one image as numbers, and its packed form in a shard.

Crop boxes are relative to the source and shifts relative to the side, so that a view drawn for a teacher at 224 pixels
is the same view for a student at 64; a view knows its source's size and hash. The official generator stores pixels.
Taught by notebooks/00_start_here.ipynb.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable
from dataclasses import dataclass

from mobileclip2_lite.views.operations import OPERATIONS
from mobileclip2_lite.work.bad_sample import BadSample

SIGNED = frozenset(OPERATIONS[1:10])


class SourceMismatch(BadSample):
    """A view is replayed on an image that it was not drawn for."""

    def __init__(self, detail: str, where: str = "") -> None:
        super().__init__("source_mismatch", detail, where)


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
