"""One folder of one stage: its manifest, its lock, and whether it already holds the work that is asked for.

A stage reads folders and writes one folder with a `manifest.json`. `Work` knows when that manifest stands for the same
inputs, settings and code version, and then there is nothing to do. This is a record of what was made, not a scheduler.
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
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mobileclip2_lite.work.files import canonical, pretty, read_object, to_json, write_atomic
from mobileclip2_lite.work.place import StorePath, place_of
from mobileclip2_lite.work.store import Clash

SCHEMA = 1
"""Version of the manifest's own form."""


class StageMismatch(RuntimeError):
    """A folder holds work made from other inputs or settings than those asked for."""


class FolderLocked(RuntimeError):
    """Another process is writing the folder."""


def read_manifest(folder: str | os.PathLike) -> dict:
    """The manifest of a finished folder.

    Raises:
        FileNotFoundError: the folder has no `manifest.json`, so its stage has not finished.
        ValueError: the manifest is no JSON object, or of a newer schema than this code reads.
    """
    path = place_of(folder) / "manifest.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: the stage that writes {folder} has not finished; run it first")
    manifest = read_object(path, "remove the file and run its stage again")
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
        self.folder = place_of(self.folder)
        self.identity = {
            "stage": self.stage,
            "version": self.version,
            "settings": to_json(self.settings),
            "inputs": {name: self._input(value) for name, value in self.inputs.items()},
        }
        self.key = hashlib.sha256(canonical(self.identity)).hexdigest()

    @staticmethod
    def _input(value: Any) -> Any:
        if not isinstance(value, os.PathLike):
            return to_json(value)
        if "key" not in (manifest := read_manifest(value)):
            path = place_of(value) / "manifest.json"
            raise ValueError(f"{path} has no `key`, by which work is known: remove the file and run its stage again")
        return manifest["key"]

    def done(self) -> dict | None:
        """The finished manifest of this very work, or None if there is work to do.

        Raises:
            StageMismatch: the folder holds, finished or half-way, work of another key.
        """
        for name in ("manifest.json", "progress.json"):
            path = self.folder / name
            if not path.is_file():
                continue
            remedy = "another writer's, cut short: remove it, and what is finished is found again"
            found = read_manifest(self.folder) if name == "manifest.json" else read_object(path, remedy)
            if found.get("key") != self.key:
                changed = "; ".join(_changes({k: found.get(k) for k in self.identity}, self.identity)) or "its form"
                raise StageMismatch(
                    f"{self.folder} holds other work than asked for ({changed}). "
                    f"Nothing was touched: name another folder, or remove this one to make it anew."
                )
            if name == "manifest.json":
                self._tidy()
                return found
        return None

    def begin(self) -> None:
        """Note in the folder what is being made, so that a resumed run cannot mix two settings."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "progress.json").is_file():
            try:
                write_atomic(self.folder / "progress.json", pretty({"key": self.key, **self.identity}))
            except Clash:
                self.done()  # another process was faster: says what differs

    def give_up(self) -> None:
        """Take the note back while nothing is made, so that other settings may follow; a store keeps it."""
        if isinstance(self.folder, Path):
            (self.folder / "progress.json").unlink(missing_ok=True)

    def _tidy(self) -> None:
        """Remove the note of what is being made; in a store, where nothing is removed, it stays."""
        if isinstance(self.folder, Path):
            with contextlib.suppress(OSError):  # read-only: left by a process killed between its last two steps
                (self.folder / "progress.json").unlink(missing_ok=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for this process; the system lets go of it when the process ends, however it ends.

        In a store nothing is held: objects are created once, and who comes second compares.

        Raises:
            FolderLocked: another process, or another thread of this one, holds the folder.
        """
        if isinstance(self.folder, StorePath):
            yield
            return
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
        self._tidy()
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
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for place, (mine, other) in enumerate(zip(old, new, strict=True)):
            yield from _changes(mine, other, f"{where}[{place}]")
    elif old != new:
        yield f"{where}: {str(old)[:60]} there, {str(new)[:60]} asked for"
