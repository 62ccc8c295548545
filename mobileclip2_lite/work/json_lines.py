"""JSON lines: one JSON value a line, written and read the same way by logs, counts of bad samples and studies."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mobileclip2_lite.work.place import on_disk, place_of

NEEDS_DISK = "lines are appended to a file, which no store can: name a file of a disk"
"""Why no lines are added to an object."""


def to_lines(values: Iterable[Any]) -> bytes:
    """Each value as one line of ASCII that ends in a newline, the same on every system."""
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def append_lines(path: str | os.PathLike, values: Iterable[Any]) -> Path:
    """Add a line a value to a file, which is made, with its folder, where there is none; the file's path.

    One write to the file's end: lines of several programs that record at a time stay whole.

    Raises:
        ValueError: it is a store's address.
        OSError: the disk is full; the file is as it was.
    """
    path = on_disk(path, NEEDS_DISK)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab", buffering=0) as file:
        write_whole(file, to_lines(values), path)
    return path


def write_whole(file: Any, data: bytes, path: Path) -> None:
    """Write to a file's end, or leave it as it was: a disk that runs full takes the first part of a line.

    Args:
        file: opened to append, without a buffer.
        path: its name, for the message.

    Raises:
        OSError: the disk is full.
    """
    before = os.fstat(file.fileno()).st_size
    written = 0
    try:
        while written < len(data):
            written += file.write(data[written:])
    except OSError as error:
        if os.fstat(file.fileno()).st_size == before + written:  # nobody else has written behind it
            os.ftruncate(file.fileno(), before)
        error.filename = error.filename or str(path)
        raise


def read_lines(path: str | os.PathLike, cut_short: bool = False) -> Iterator[Any]:
    """The values of a file, or of a store's object, one after the other; empty lines are passed over.

    Args:
        path: the file.
        cut_short: leave out a last line that a killed writer did not finish.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is not JSON; the message names file and line.
    """
    path = place_of(path)
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except ValueError as error:
                if cut_short and not line.endswith(b"\n"):
                    return
                raise ValueError(f"{path}, line {number} is not JSON ({error}): remove the line") from error
            yield value
