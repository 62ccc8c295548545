"""Files written whole or not at all, hashes, and the one JSON text of a value.

A file is written beside its place and renamed, so that a reader or a crash sees the old content or the new one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mobileclip2_lite.work.place import StorePath, made_here, place_of


def sha256_bytes(data: bytes | memoryview) -> str:
    """SHA-256 of bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: str | os.PathLike) -> str:
    """SHA-256 of a file's content, in hex, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def scan(folder: str | os.PathLike) -> list[str]:
    """All files below `folder`, relative and with forward slashes, sorted; broken links are among them.

    Links to folders are followed, each real folder once; names that begin with a dot are not looked at. Of a store's
    folder it is what the store lists.

    Raises:
        OSError: a folder cannot be opened; names it.
    """

    def refuse(error: OSError) -> None:
        raise error

    folder = place_of(folder)
    if isinstance(folder, StorePath):
        return [name for name in folder.store.names() if not any(part.startswith(".") for part in name.split("/"))]
    found, seen = [], set()
    for here, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:  # a link that leads back up
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(here, name).relative_to(folder).as_posix() for name in files if not name.startswith(".")]
    return sorted(found)


@contextlib.contextmanager
def written_beside(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A file to fill that takes the name `path` when the block ends, on disk and whole, or vanishes if it fails.

    A reader, or a crash, sees the old content or the new one and nothing between. In a store it is created when the
    block ends, and never over another.

    Raises:
        store.Clash: the store has an object of this name and other content.
    """
    path = place_of(path)
    if isinstance(path, StorePath):
        with made_here(path) as here, open(here, "w+b") as file:
            yield file
        return
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)  # what took hours must not be lost for want of a folder
    try:
        with open(beside, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException as error:
        beside.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # a full disk is reported without it
        raise
    sync_folder(path.parent)


def write_atomic(path: str | os.PathLike, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all."""
    path = place_of(path)
    if isinstance(path, StorePath):
        path.write_bytes(data)
        return
    with written_beside(path) as file:
        file.write(data)


def write_note(path: str | os.PathLike, data: bytes) -> None:
    """Write a file that may change later, such as a setting or a report; also in a store, whose works never change."""
    path = place_of(path)
    if isinstance(path, StorePath):
        path.store.replace(data)
    else:
        write_atomic(path, data)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut, where the system lets a folder be opened (not on Windows)."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_object(path: str | os.PathLike, remedy: str = "mend it, or take it away") -> dict:
    """The JSON object in a file, a byte order mark or none before it.

    Args:
        remedy: what to do where it holds none, for the message.

    Raises:
        ValueError: it holds none; names the file.
    """
    path = place_of(path)
    try:
        found = json.loads(path.read_text("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise ValueError(f"{path} is not valid JSON ({error}): {remedy}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__}, not a JSON object: {remedy}")
    return found


def to_json(value: Any) -> Any:
    """`value` as JSON data: dataclasses become dicts, tuples lists, paths strings."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, StorePath):
        return str(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, np.generic):
        return value.item()
    return value


def canonical(value: Any) -> bytes:
    """The one JSON text of `value`, for hashing."""
    return _encoded(json.dumps(to_json(value), sort_keys=True, ensure_ascii=False, separators=(",", ":")))


def pretty(value: Any) -> bytes:
    """JSON for people, ending in a newline."""
    return _encoded(json.dumps(to_json(value), indent=2, ensure_ascii=False) + "\n")


def _encoded(text: str) -> bytes:
    """JSON text as UTF-8; the lone surrogates that stand for a file name's odd bytes become JSON's own escapes."""
    return text.encode("utf-8", "backslashreplace")
