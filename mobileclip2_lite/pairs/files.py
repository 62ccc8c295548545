"""Folders and tables as sources of pairs: a `.txt` beside each image, or rows of CSV, TSV or JSON Lines.

Reads the user's files and writes nothing. Nested folders and links to folders are followed; names that begin with a dot
are not looked at. Taught by notebooks/00_start_here.ipynb.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mobileclip2_lite.pairs.records import (
    IMAGE_COLUMNS,
    TEXT_COLUMNS,
    Record,
    Source,
    drawn_order,
    find_column,
    user_meta,
)
from mobileclip2_lite.work.files import canonical, sha256_bytes, sha256_file

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".jpe", ".jfif", ".ppm", ".pgm")
IMAGE_SUFFIXES += (".avif", ".heic", ".heif", ".jp2")
TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")


def scan(folder: Path) -> list[str]:
    """All files below `folder`, relative and with forward slashes, sorted; broken links are among them."""
    found, seen = [], set()
    for here, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:  # a link that leads back up
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(here, name).relative_to(folder).as_posix() for name in files if not name.startswith(".")]
    return sorted(found)


def quick_digest(path: Path) -> str:
    """A hash of a large file's size, beginning, middle and end: hardly any other content has the same."""
    size = os.path.getsize(path)
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        for start in (0, max(0, size // 2 - 32768), max(0, size - 65536)):
            file.seek(start)
            digest.update(file.read(65536))
    return digest.hexdigest()[:32]


def beside_source(folder: Path, names: Sequence[str], count: int, seed: int) -> Source:
    """Images with a `.txt` of the same name beside each."""
    images = [name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES]
    texts = {name for name in names if name.lower().endswith(".txt")}
    by_stem = {os.path.splitext(name)[0]: name for name in sorted(texts, reverse=True)}
    items: list[tuple[str, str | None]] = [(name, by_stem.get(os.path.splitext(name)[0])) for name in images]
    used = {text for _, text in items if text}
    items += [(name, name) for name in sorted(texts - used)]
    known = [[name, _size(folder / name)] for name in images]
    known += [[name, sha256_file(folder / name) if (folder / name).is_file() else None] for name in sorted(texts)]
    order = drawn_order(len(items), count, seed)

    def records(start: list[int]) -> Iterator[Record]:
        for k in range(start[0] if start else 0, len(items)):
            name, text = items[order[k]]
            record = Record(key=name, position=[k + 1], image=folder / name, name=name)
            if text is None:
                record.problem, record.detail = "no_text", f"no {os.path.splitext(name)[0]}.txt beside it"
            elif text == name:
                record.problem, record.detail = "no_image", "a text without an image beside it"
            else:
                try:
                    record.text = (folder / text).read_bytes()
                except OSError as error:
                    record.problem, record.detail = "unreadable_file", f"{text}: {error.strerror or error}"
            yield record

    identity = {"kind": "folder", "files": len(items), "digest": sha256_bytes(canonical(known))}
    return Source(identity, records, len(items), _ignored(names, {*images, *texts}))


def table_source(folder: Path, tables: Sequence[str], names: Sequence[str] | None, settings: Any, seed: int) -> Source:
    """Rows of one table or several, each of which names its images relative to its own folder.

    Args:
        names: the other files of the folder: images that no row names are counted; None does not look.
    """
    items: list[tuple[str, str, dict | str, tuple[str, str] | None]] = []  # key, image, row or what is wrong, columns
    known, listed = [], set()
    for table in tables:
        known.append([table, sha256_file(folder / table)])
        rows = list(read_rows(folder / table))
        columns = _columns([row for _, row in rows if isinstance(row, dict)], settings, folder / table)
        for line, row in rows:
            image = row.get(columns[0]) if isinstance(row, dict) else None
            name = (Path(table).parent / image).as_posix() if isinstance(image, str) and image.strip() else ""
            items.append((f"{table}:{line}", name, row, columns))
            listed.add(name)
    images = [name for name in names or () if Path(name).suffix.lower() in IMAGE_SUFFIXES]
    unlisted = [name for name in images if name not in listed]
    items += [(name, name, "", None) for name in unlisted]
    known += [[name, _size(folder / name)] for name in sorted({*listed, *unlisted} - {""})]
    groups = _groups([name for _, name, _, _ in items], settings.group)
    order = [k for group in drawn_order(len(groups), settings.count, seed) for k in groups[group]]

    def records(start: list[int]) -> Iterator[Record]:
        for k in range(start[0] if start else 0, len(items)):
            yield _row_record(folder, *items[order[k]], [k + 1])

    identity = {"kind": "table", "rows": len(items), "digest": sha256_bytes(canonical(known))}
    return Source(identity, records, len(groups), _ignored(names or (), {*images, *tables}))


def _groups(names: Sequence[str], together: bool) -> list[list[int]]:
    """The rows of each image, in the order of its first; a row without a name, or every row, stands alone."""
    groups: dict[object, list[int]] = {}
    for row, name in enumerate(names):
        groups.setdefault(name if together and name else row, []).append(row)
    return list(groups.values())


def _columns(rows: list[dict], settings: Any, path: Path) -> tuple[str, str]:
    """Image and text column, among those of all rows: in JSON Lines one row may lack what others have."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return (
        find_column(names, settings.image_key, IMAGE_COLUMNS, "image", str(path)),
        find_column(names, settings.text_key, TEXT_COLUMNS, "text", str(path)),
    )


def _row_record(
    folder: Path, key: str, name: str, row: dict | str, columns: tuple[str, str] | None, position: list[int]
) -> Record:
    record = Record(key=key, position=position)
    if columns is None:
        record.problem, record.detail = "no_text", "no row of the table names this image"
        return record
    if isinstance(row, str):
        record.problem, record.detail = "bad_row", row
        return record
    image, text = columns
    record.text = row.get(text)
    if not name:
        record.problem, record.detail = "no_image", f"column {image!r} is empty or no file name"
    elif "://" in str(row[image]):
        record.problem, record.detail = "image_is_url", f"{row[image]}: download it first, with img2dataset for example"
    else:
        record.image = folder / name
        record.name = f"{row[image]}\n{record.text}"  # one image may have several rows, each with another caption
        record.uid = row["uid"] if isinstance(row.get("uid"), str) and row["uid"] else None
        record.meta = user_meta(row, without=(image, text, "uid")) | {"file": str(row[image])}
    return record


def read_rows(path: Path) -> Iterator[tuple[int, dict | str]]:
    """(line, row) of a table, or (line, what is wrong with it).

    Raises:
        ValueError: the table is empty.
    """
    rows = _csv_rows(path) if path.suffix.lower() in (".csv", ".tsv") else _json_rows(path)
    empty = True
    for line, row in rows:
        empty = False
        yield line, row
    if empty:
        raise ValueError(f"{path} has no rows")


def _csv_rows(path: Path) -> Iterator[tuple[int, dict | str]]:
    # What is not UTF-8 passes here as lone surrogates, so that one bad text does not end the table.
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        first = file.readline()
        file.seek(0)
        delimiter = "\t" if path.suffix.lower() == ".tsv" else next((d for d in ",;\t" if d in first), ",")
        reader = csv.reader(file, delimiter=delimiter)
        header = next(reader, [])
        while True:
            line = reader.line_num + 1
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield line, str(error)
                continue
            if len(row) > len(header):
                wrong = (
                    f"{len(row)} fields, the header has {len(header)}: a text with {delimiter!r} needs quotes around it"
                )
                yield line, wrong
            elif row:
                yield line, {**dict.fromkeys(header), **dict(zip(header, row, strict=False))}


def _json_rows(path: Path) -> Iterator[tuple[int, dict | str]]:
    with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
        for line, text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except ValueError as error:
                yield line, f"not JSON: {error}"
                continue
            yield line, row if isinstance(row, dict) else f"a {type(row).__name__}, not an object"


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except (OSError, ValueError):  # a name with a NUL is a ValueError
        return None


def _ignored(names: Sequence[str], used: set[str]) -> dict:
    """The manifest's note on files that are neither image nor text."""
    suffixes = Counter(Path(name).suffix.lower() or "(none)" for name in names if name not in used)
    return {"ignored_files": dict(sorted(suffixes.items()))} if suffixes else {}
