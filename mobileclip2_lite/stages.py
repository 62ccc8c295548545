"""What every stage of the way shares: finding finished work, writing without loss, one process a folder, seeded chance.

A stage reads folders and writes one folder with a `manifest.json`. Its `Work` knows when that manifest stands for the
same inputs, settings and code version, and then there is nothing to do. Files are written beside and renamed, so that a
killed stage leaves either the old file or the new one. Gives up: this is a record of what was made, not a scheduler.
Taught by notebooks/00_start_here.ipynb.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

SCHEMA = 1
"""Version of the manifest's own form."""


class StageMismatch(RuntimeError):
    """A folder holds work made from other inputs or settings than those asked for."""


class FolderLocked(RuntimeError):
    """Another process is writing the folder."""


def rng(*parts: int | str) -> np.random.Generator:
    """A generator that depends only on `parts`, on every platform: `rng(seed, "views", uid)`."""
    return np.random.Generator(np.random.PCG64(_seed(parts)))


def pick(count: int, *parts: int | str) -> int:
    """A number below `count` that depends only on `parts`, as `rng(*parts)` would draw one, but without a generator."""
    return _seed(parts) % count


def _seed(parts: tuple[int | str, ...]) -> int:
    """128 bits."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")


def stable_uid(source_key: str) -> str:
    """16 hex characters that name a pair wherever it goes, from its key at the source."""
    return hashlib.sha256(source_key.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def sha256_bytes(data: bytes | memoryview) -> str:
    """SHA-256 of bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: str | os.PathLike) -> str:
    """SHA-256 of a file's content, in hex, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def written_beside(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A file to fill that takes the name `path` when the block ends, on disk and whole, or vanishes if it fails.

    A reader, or a crash, sees the old content or the new one and nothing between.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
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
    with written_beside(path) as file:
        file.write(data)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut, where the system lets a folder be opened (not on Windows)."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def to_json(value: Any) -> Any:
    """`value` as JSON data: dataclasses become dicts, tuples lists, paths strings."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, np.generic):
        return value.item()
    return value


def canonical(value: Any) -> bytes:
    """The one JSON text of `value`, for hashing."""
    return json.dumps(to_json(value), sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def pretty(value: Any) -> bytes:
    """JSON for people, ending in a newline."""
    return (json.dumps(to_json(value), indent=2, ensure_ascii=False) + "\n").encode()


def read_manifest(folder: str | os.PathLike) -> dict:
    """The manifest of a finished folder.

    Raises:
        FileNotFoundError: the folder has no `manifest.json`, so its stage has not finished.
        ValueError: the manifest is not JSON or of a newer schema than this code reads.
    """
    path = Path(folder) / "manifest.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: the stage that writes {folder} has not finished; run it first")
    try:
        manifest = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}); remove the file and run its stage again") from error
    if manifest.get("schema", 0) > SCHEMA:
        raise ValueError(
            f"{path} has schema {manifest['schema']}, this version reads up to {SCHEMA}: update the package"
        )
    return manifest


@dataclasses.dataclass
class Work:
    """One stage's work in one folder, recognised by stage, code version, settings and inputs."""

    folder: str | os.PathLike
    stage: str
    version: int
    """Raise it when the stage's code changes what it writes."""
    settings: Any
    """JSON-able data or a dataclass; everything that changes the result."""
    inputs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Folders with a manifest (known by that manifest's key) or plain values."""

    def __post_init__(self) -> None:
        self.folder = Path(self.folder)
        self.identity = {
            "stage": self.stage,
            "version": self.version,
            "settings": to_json(self.settings),
            "inputs": {name: self._input(value) for name, value in self.inputs.items()},
        }
        self.key = hashlib.sha256(canonical(self.identity)).hexdigest()

    @staticmethod
    def _input(value: Any) -> Any:
        return read_manifest(value)["key"] if isinstance(value, os.PathLike) else to_json(value)

    def done(self) -> dict | None:
        """The finished manifest of this very work, or None if there is work to do.

        Raises:
            StageMismatch: the folder holds, finished or half-way, work of another key.
        """
        for name in ("manifest.json", "progress.json"):
            path = self.folder / name
            if not path.is_file():
                continue
            found = read_manifest(self.folder) if name == "manifest.json" else json.loads(path.read_text("utf-8"))
            if found.get("key") != self.key:
                changed = "; ".join(_changes({k: found.get(k) for k in self.identity}, self.identity)) or "its form"
                raise StageMismatch(
                    f"{self.folder} holds other work than asked for ({changed}). "
                    f"Nothing was touched: name another folder, or remove this one to make it anew."
                )
            if name == "manifest.json":
                with contextlib.suppress(OSError):  # left by a process killed between its last two steps
                    (self.folder / "progress.json").unlink(missing_ok=True)
                return found
        return None

    def begin(self) -> None:
        """Note in the folder what is being made, so that a resumed run cannot mix two settings."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "progress.json").is_file():
            write_atomic(self.folder / "progress.json", pretty({"key": self.key, **self.identity}))

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for this process; the system lets go of it when the process ends, however it ends.

        Raises:
            FolderLocked: another process, or another thread of this one, holds the folder.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / ".lock"
        place = str(path.resolve())
        if place in _HELD:
            raise FolderLocked(f"{self.folder} is being written by this very process ({_HELD[place]})")
        handle = _take(path, self.stage)
        _HELD[place] = self.stage
        for left in self.folder.glob(".*.partial"):  # by a process that was killed: nobody else writes here now
            left.unlink(missing_ok=True)
        try:
            yield
        finally:
            del _HELD[place]
            if os.name == "nt":  # an open file cannot be removed there, nor one that another process has just opened
                os.close(handle)
                with contextlib.suppress(PermissionError):
                    path.unlink(missing_ok=True)
            else:
                path.unlink(missing_ok=True)
                os.close(handle)

    def commit(self, **content: Any) -> dict:
        """Write the manifest: from here on the work is done. Returns it."""
        manifest = {"schema": SCHEMA, "key": self.key, **self.identity, **to_json(content)}
        write_atomic(self.folder / "manifest.json", pretty(manifest))
        (self.folder / "progress.json").unlink(missing_ok=True)
        return manifest


_HELD: dict[str, str] = {}
"""Locks of this process; the system's record locks do not keep a process from itself."""


def _take(path: Path, stage: str) -> int:
    """Open and lock a file, and note the owner in it for whoever comes second."""
    while True:
        handle = os.open(path, os.O_CREAT | os.O_RDWR)
        try:
            _lock_byte(handle)
        except OSError as error:
            os.close(handle)
            if error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                raise
            raise FolderLocked(
                f"{path.parent} is being written by {_owner(path)}. Wait for it to end, or name another folder."
            ) from error
        try:
            current = os.path.samestat(os.fstat(handle), os.stat(path))
        except FileNotFoundError:
            current = False
        if current:
            break
        os.close(handle)  # the owner before us removed the file between our opening and locking it
    note = canonical({"pid": os.getpid(), "host": socket.gethostname(), "stage": stage})
    os.ftruncate(handle, 0)
    os.write(handle, note)
    return handle


def once(shard: Path, key: str, make: Callable[[Path], dict]) -> dict:
    """The record of one shard of a folder, which stands beside it: of the shard that is there, or of the one it makes.

    Args:
        shard: the tar.
        key: of the work; a shard of other work, or one that is damaged, is made again.
        make: writes the tar and returns the content of its record.
    """
    record = shard.with_suffix(".json")
    if found := _finished(shard, record, key):
        return found
    content = {"key": key, "name": shard.name, **make(shard)}
    write_atomic(record, pretty(content))
    return content


def _finished(target: Path, record: Path, key: str) -> dict | None:
    """The record of a shard that this work has finished, None if it must be made; a damaged tar is made again."""
    if not target.is_file() or not record.is_file():
        return None
    try:
        found = json.loads(record.read_text("utf-8"))
    except ValueError:
        return None
    if found.get("key") != key or found.get("sha256") != sha256_file(target):
        return None
    return found


def _lock_byte(handle: int) -> None:
    """Lock one byte far behind the note, so that the note stays readable on Windows too; raises OSError if held."""
    if os.name == "nt":
        import msvcrt

        os.lseek(handle, 1 << 20, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        os.lseek(handle, 0, os.SEEK_SET)
    else:
        import fcntl

        # record locks, as opposed to flock, are not inherited by loader workers, which may outlive a killed parent
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 1 << 20)


def _owner(path: Path) -> str:
    try:
        owner = json.loads(path.read_text("utf-8"))
        return f"process {owner['pid']} on {owner['host']} ({owner['stage']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _changes(old: Any, new: Any, where: str = "") -> Iterator[str]:
    """Readable differences between two pieces of JSON data, at most a handful."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from _changes(old.get(key), new.get(key), f"{where}.{key}".lstrip("."))
    elif old != new:
        yield f"{where}: {str(old)[:60]} there, {str(new)[:60]} asked for"
