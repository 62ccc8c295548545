"""What every source of pairs gives: records, and the choice of columns that both tables and data sets need.

A record is one candidate for a pair as it stands at the source, good or bad; `pairs` checks it. Opens no file.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mobileclip2_lite.views.decoding import SUFFIXES
from mobileclip2_lite.work.randomness import rng

IMAGE_COLUMNS = ("image", "images", "img", "picture", "photo", "jpg", "jpeg", "png", "webp", "file_name", "filename")
IMAGE_COLUMNS += ("image_path", "image_file", "filepath", "file_path", "file", "path", "image_name", "img_path")
IMAGE_COLUMNS += ("image_bytes", "image_base64", "img_base64", "image_b64", "base64")
TEXT_COLUMNS = (
    "text",
    "texts",
    "caption",
    "captions",
    "alt_text",
    "alt",
    "txt",
    "description",
    "sentence",
    "sentences",
)
TEXT_COLUMNS += ("title", "comment", "prompt", "alttext", "raw")
_URL_COLUMNS = ("url", "urls", "image_url", "img_url", "imageurl")


@dataclass
class Record:
    """One candidate for a pair."""

    key: str
    """Where it stands at the source, for people: `captions.csv:18`, `00000.tar/000017`, `cats/tom.jpg`, `row 17`."""
    position: list[int]
    """Where reading goes on after this record."""
    image: Any = None
    """Encoded bytes, a path, the form of `datasets.Image`, or a `PIL.Image`."""
    text: Any = None
    """A string, UTF-8 bytes or a list of them."""
    uid: str | None = None
    """The source's own uid, taken as it is."""
    name: str | None = None
    """What a stable uid is hashed from if there is none; None: from the image's bytes and the text."""
    meta: dict = field(default_factory=dict)
    """The user's other columns."""
    problem: str = ""
    """Reason why it cannot become a pair, where the source already knows."""
    detail: str = ""
    """The problem in words."""


@dataclass
class Source:
    """An opened source: nothing of it is read before `records` is."""

    identity: dict
    """JSON data by which its content is recognised; free of absolute paths and times."""
    records: Callable[[list[int]], Iterator[Record]]
    """All records from a position on; `[]` is the start."""
    total: int | None = None
    """Number of records, where known."""
    notes: dict = field(default_factory=dict)
    """What the manifest should say of it."""


def drawn_order(total: int, count: int, seed: int) -> Iterable[int]:
    """Which records are tried, in which order: as they stand, or drawn where only some are wanted."""
    if not 0 < count < total:
        return range(total)
    return rng("pairs", seed).permutation(total).tolist()


def find_column(columns: Iterable[str], asked: str | None, known: tuple[str, ...], what: str, where: str) -> str:
    """The column that holds the `what` ("image" or "text"): the one asked for, or the first known name.

    Raises:
        ValueError: there is no such column; names the file, the columns it has and the setting that helps.
    """
    columns = list(columns)
    if asked is not None:
        if asked in columns:
            return asked
        raise ValueError(
            f"{where} has no column {asked!r} for the {what}; it has {columns}: name the right one, {what}_key "
            f"(--{what}-key)"
        )
    by_lower = {column.strip().lower(): column for column in reversed(columns)}
    for name in known:
        if name in by_lower:
            return by_lower[name]
    if url := next((by_lower[name] for name in _URL_COLUMNS if name in by_lower), None) if what == "image" else None:
        raise ValueError(
            f"{where} names its images by URL (column {url!r}): download them first, with img2dataset for example"
        )
    if any(column.lower().endswith(SUFFIXES) for column in columns):
        raise ValueError(f"{where} has no header, its first line is {columns}: add one, file_name and text for example")
    raise ValueError(
        f"{where} has no column that looks like the {what}; it has {columns}: name the right one, {what}_key "
        f"(--{what}-key)"
    )


def uid_of(value: Any) -> str | None:
    """The source's own uid: a string or a whole number."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return None
    return str(value) or None


def user_meta(row: Mapping[str, Any], without: Iterable[str]) -> dict:
    """The other columns of a row, as far as JSON can hold them."""
    without = set(without)
    kept = {name: _json_value(value) for name, value in row.items() if name not in without and isinstance(name, str)}
    return {name: value for name, value in kept.items() if value is not _NOT_JSON}


_NOT_JSON = object()


def _json_value(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, Mapping):
        items = {str(key): _json_value(item) for key, item in value.items()}
        return _NOT_JSON if any(item is _NOT_JSON for item in items.values()) else items
    if isinstance(value, (list, tuple)):
        items = [_json_value(item) for item in value]
        return _NOT_JSON if any(item is _NOT_JSON for item in items) else items
    return _NOT_JSON
