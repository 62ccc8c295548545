"""The one skeleton of stages that work shard by shard: found, locked, looked at again, resumed, spread, summed up.

A stage says what a worker makes of one shard and how the shards' records become a manifest; everything else is here, so
that a killed run of any stage goes on, and any stage can be spread over processes or a cluster (`engines`).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from mobileclip2_lite.work.engines import run
from mobileclip2_lite.work.files import pretty, sha256_file, write_atomic
from mobileclip2_lite.work.folder import Work

Worker = Callable[[Path], dict[str, Any]]
"""Makes one shard: writes the file it is given and returns its record's content, `sha256` of the file among it; a
record without `sha256` stands for itself, and no file is looked for."""


def make_shards(
    work: Work,
    names: Iterable[str],
    make_worker: Callable[[], Worker],
    summarise: Callable[[list[dict]], dict[str, Any]],
    engine: str = "local",
    workers: int = 1,
    gpus: float = 0.0,
) -> dict[str, Any]:
    """The manifest of finished work, or of the shards that are made now; a killed run goes on.

    Args:
        work: the folder, and what is to be made in it.
        names: of the shards, in the manifest's order.
        make_worker: makes a `Worker`, once in each process and only if a shard is missing; picklable for more than one.
        summarise: the shards' records, in the order of `names`, to the manifest's content.
        engine, workers, gpus: see `engines.run`.

    Raises:
        StageMismatch: the folder holds other work. FolderLocked: another process writes it.
        Exception: whatever the worker raises, with the shard's name in its message; finished shards are kept.
    """

    def make() -> dict[str, Any]:
        return summarise(list(each_shard(work.folder, work.key, names, make_worker, engine, workers, gpus)))

    return find_or_make(work, make)


def find_or_make(
    work: Work, make: Callable[[], dict[str, Any]], leftovers: Callable[[], Iterable[Path]] = tuple
) -> dict[str, Any]:
    """The manifest of finished work, or of what `make` makes now, with the folder locked.

    Args:
        make: makes the files and returns the manifest's content.
        leftovers: files that a finished folder does not need; removed after the manifest is written, also by the next
            run if this one is killed in between.
    """
    if (found := work.done()) and not list(leftovers()):
        return found
    with work.lock():
        found = work.done()  # again: by a run that ended while this one waited, or was killed after its last word
        if found is None:
            work.begin()
            try:
                content = make()
            except Exception:
                if not any(work.folder.glob("*.tar")):  # nothing is made yet: other settings may follow
                    (work.folder / "progress.json").unlink(missing_ok=True)
                raise
            found = work.commit(**content)
        for path in leftovers():
            path.unlink(missing_ok=True)
        return found


def each_shard(
    folder: Path,
    key: str,
    names: Iterable[str],
    make_worker: Callable[[], Worker],
    engine: str = "local",
    workers: int = 1,
    gpus: float = 0.0,
    suffix: str = ".json",
) -> Iterator[dict[str, Any]]:
    """The record of each shard, in the order of `names`: of the finished ones, and of those that are made now.

    The caller holds the folder's lock.

    Args:
        key: under which a record counts as finished: of the work, or of the part of it that the shards depend on.
        suffix: of a record's file, in place of the shard's own.
    """
    one = functools.partial(_Once, folder, key, make_worker, suffix)
    return run(one, names, engine, workers, gpus)


class _Once:
    """In one process: the record of a shard by its name; the worker is made when the first shard is missing."""

    def __init__(self, folder: Path, key: str, make_worker: Callable[[], Worker], suffix: str) -> None:
        self.folder, self.key, self.make_worker, self.suffix = folder, key, make_worker, suffix
        self.worker: Worker | None = None

    def __call__(self, name: str) -> dict[str, Any]:
        return once(self.folder / name, self.key, self._make, self.suffix)

    def _make(self, shard: Path) -> dict[str, Any]:
        self.worker = self.worker or self.make_worker()
        try:
            return self.worker(shard)
        except Exception as error:
            name_shard(error, shard)
            raise


def name_shard(error: Exception, shard: Path) -> None:
    """Put the shard's name before an error's message, unless it is there."""
    if shard.name in str(error):
        return
    if isinstance(error, OSError) and error.errno is not None:
        error.filename = error.filename or str(shard)
    elif error.args and isinstance(error.args[0], str):
        error.args = (f"{shard}: {error.args[0]}", *error.args[1:])
    elif hasattr(error, "add_note"):  # Python 3.11
        error.add_note(f"while {shard} was made")


def once(shard: Path, key: str, make: Worker, suffix: str = ".json") -> dict[str, Any]:
    """The record of one shard of a folder, which stands beside it: of the shard that is there, or of the one it makes.

    Args:
        shard: the tar.
        key: of the work; a shard of other work, or one that is damaged, is made again.
        make: writes the tar and returns the content of its record.
    """
    record = shard.with_suffix(suffix)
    if found := _finished(shard, record, key):
        return found
    content = {"key": key, "name": shard.name, **make(shard)}
    write_atomic(record, pretty(content))
    return content


def _finished(shard: Path, record: Path, key: str) -> dict[str, Any] | None:
    """The record of a shard that this work has finished, None if it must be made; a damaged tar is made again."""
    if not record.is_file():
        return None
    try:
        found = json.loads(record.read_text("utf-8"))
    except ValueError:
        return None
    if not isinstance(found, dict) or found.get("key") != key:
        return None
    if found.get("sha256") and not (shard.is_file() and found["sha256"] == sha256_file(shard)):
        return None
    return found
