"""What a search found, as a page that people keep: thumbnails, scores, duplicates, and what could not be read.

No paper section. Reads the found images and writes one HTML file with their thumbnails inside; a thumbnail leads to its
file, wherever that lies beside the page. Taught by notebooks/60_deploy.ipynb.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from mobileclip2_lite.deployment.image_files import open_image
from mobileclip2_lite.deployment.search import Hit, Index
from mobileclip2_lite.reports.page import Block, Heading, Picture, Pictures, Table, Text, to_html, verbatim
from mobileclip2_lite.views.decoding import BadImage
from mobileclip2_lite.work.files import write_note
from mobileclip2_lite.work.place import StorePath, place_of

SIDE = 160
"""Largest side of a thumbnail, pixels."""
MAX_GROUPS = 100
"""Groups of duplicates that a page shows."""
MAX_NAMES = 50
"""Files that could not be read, by reason, of which a page shows the names."""


def write_search_page(
    path: str | os.PathLike,
    index: Index,
    hits: Sequence[Hit] = (),
    question: str = "",
    duplicates: Sequence[Sequence[Path]] | None = None,
    warning: str = "",
) -> Path | StorePath:
    """Write the page of one search and return it.

    Args:
        path: HTML file to write.
        index: what was searched, for its counts.
        hits: found images, best first.
        question: what was asked, in words.
        duplicates: groups of images that are the same (`Index.duplicates`), () where none are; None did not ask.
        warning: what to know of the duplicates (`Index.too_alike`).
    """
    path = place_of(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    images = f"{len(index.entries):,} image{'' if len(index.entries) == 1 else 's'}"
    blocks: list[Block] = [Text(f"{images} in `{verbatim(shown(index.folder))}`.")]
    if hits:
        blocks += [Heading("Nearest first"), Pictures([_hit(hit, path, index) for hit in hits], small=True)]
    if duplicates is not None:
        heading, *groups = _same(duplicates, path, index)
        blocks += [heading, *([Text(f"{warning[0].upper()}{warning[1:]}.")] if warning else []), *groups]
    if index.dropped:
        rows = [[reason, f"{count:,}", _names(index, reason)] for reason, count in sorted(index.dropped.items())]
        blocks += [Heading("Not read"), Table(["reason", "files", "names"], rows, prose=True)]
    title = verbatim(question) or ("Search" if duplicates is None else "Images that are the same")
    write_note(path, to_html(title, blocks).encode("utf-8"))
    return path


def _same(duplicates: Sequence[Sequence[Path]], page: Path | StorePath, index: Index) -> list[Block]:
    """The groups of images that are the same, or that there are none."""
    if not duplicates:
        return [Heading("No two images are the same")]
    count = "1 group" if len(duplicates) == 1 else f"{len(duplicates):,} groups"
    blocks: list[Block] = [Heading(f"{count} of images that are the same")]
    blocks += [
        Pictures([_thumbnail(file, page, index) for file in group], small=True) for group in duplicates[:MAX_GROUPS]
    ]
    return [*blocks, Text(f"Shown are the {MAX_GROUPS} largest.")] if len(duplicates) > MAX_GROUPS else blocks


def shown(path: str | os.PathLike) -> str:
    """A path as text that can be printed anywhere; bytes that are no UTF-8 are written as `\\xe9`."""
    text = str(path) if isinstance(path, StorePath) else os.fspath(path)
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _hit(hit: Hit, page: Path | StorePath, index: Index) -> Picture:
    picture = _thumbnail(hit.path, page, index)
    picture.caption = f"{hit.score:.3f} {picture.caption}"
    return picture


def _names(index: Index, reason: str) -> str:
    """The first files that could not be read for one reason."""
    names = [verbatim(shown(name)) for name, why in index.unread if why == reason]
    return ", ".join(names[:MAX_NAMES]) + (" …" if len(names) > MAX_NAMES else "")


def _thumbnail(file: Path | StorePath, page: Path | StorePath, index: Index) -> Picture:
    """A small JPEG of an image with its name below the folder, or an empty picture that says why there is none."""
    from PIL import Image

    below = isinstance(file, Path) and isinstance(index.folder, Path) and file.is_relative_to(index.folder)
    name = shown(file.relative_to(index.folder).as_posix() if below else file.name)
    link = _address(file, page)
    try:
        image = open_image(file)
        image.thumbnail((SIDE, SIDE))
    except BadImage as error:
        image, name = Image.new("RGB", (SIDE, SIDE), "white"), f"{name} ({error.reason})"
    data = io.BytesIO()
    image.save(data, "JPEG", quality=85)
    return Picture(name, data.getvalue(), name, verbatim(name), link)


def _address(file: Path | StorePath, page: Path | StorePath) -> str:
    """Where a file lies as seen from the page; absolute on another drive and where one of them is in a store."""
    if isinstance(file, StorePath):
        return str(file)
    if isinstance(page, StorePath):
        return file.absolute().as_uri()
    try:
        way = os.path.relpath(file.absolute(), page.absolute().parent)
    except ValueError:
        return file.absolute().as_uri()
    return quote(os.fsencode(way.replace(os.sep, "/")))
