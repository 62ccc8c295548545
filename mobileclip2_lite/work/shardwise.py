"""The one skeleton of stages that work shard by shard: found, locked, looked at again, resumed, spread, summed up.

A stage says what a worker makes of one shard and how the shards' records become a manifest; everything else is here, so
that a killed run of any stage goes on, and any stage can be spread over processes or a cluster (`crew`).
"""

from __future__ import annotations

import functools
import json
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mobileclip2_lite.work.claims import Claims
from mobileclip2_lite.work.crew import Crew, Failed, Run, Spread
from mobileclip2_lite.work.files import pretty, sha256_file, write_atomic, write_note
from mobileclip2_lite.work.folder import Work
from mobileclip2_lite.work.json_lines import read_lines, to_lines
from mobileclip2_lite.work.place import Place, StorePath, made_here, place_of
from mobileclip2_lite.work.processes import Alone, Processes
from mobileclip2_lite.work.randomness import pick

FAILED = "failed.jsonl"
LOOKS = 16
"""Objects of a store that are looked at at a time."""

Worker = Callable[[Path], dict[str, Any]]
"""Makes one shard: writes the file it is given and returns its record's content, `sha256` of the file among it; a
record without `sha256` stands for itself, and no file is looked for."""


class ShardsFailed(RuntimeError):
    """All shards are made but a few, which `failed.jsonl` lists with their reasons; the folder is not finished."""


def make_shards(
    work: Work,
    names: Iterable[str],
    make_worker: Callable[[], Worker],
    summarise: Callable[[list[dict]], dict[str, Any]],
    spread: Spread | None = None,
) -> dict[str, Any]:
    """The manifest of finished work, or of the shards that are made now; a killed run goes on.

    Args:
        work: the folder, and what is to be made in it.
        names: of the shards, in the manifest's order.
        make_worker: makes a `Worker`, once in each process and only if a shard is missing; picklable for more than one.
        summarise: the shards' records, in the order of `names`, to the manifest's content.
        spread: over which workers; None for this process.

    Raises:
        StageMismatch: the folder holds other work. FolderLocked: another process writes it.
        ShardsFailed: of several workers, three ended at the same shard; the other shards are kept.
        crew.GivenUp: many shards in a row ended their workers.
        Exception: whatever the worker in this process raises, with the shard's name; finished shards are kept.
    """

    def make() -> dict[str, Any]:
        return summarise(list(each_shard(work.folder, work.key, names, make_worker, spread)))

    return find_or_make(work, make, spread=spread)


def find_or_make(
    work: Work,
    make: Callable[[], dict[str, Any]],
    leftovers: Callable[[], Iterable[Path]] = tuple,
    spread: Spread | None = None,
) -> dict[str, Any]:
    """The manifest of finished work, or of what `make` makes now, with the folder locked.

    Args:
        make: makes the files and returns the manifest's content.
        leftovers: files that a finished folder does not need; removed after the manifest is written, also by the next
            run if this one is killed in between. In a store, and where others may still use them, they stay.
        spread: over which workers; for `shared` ones the folder is not locked.
    """
    if spread and spread.shared:
        work.folder = place_of(work.folder, shared=True)
    if isinstance(work.folder, StorePath):
        leftovers = tuple
    if (found := work.done()) and not list(leftovers()):
        return found
    with work.lock():
        found = work.done()  # again: by a run that ended while this one waited, or was killed after its last word
        if found is None:
            work.begin()
            try:
                content = make()
            except Exception:
                if isinstance(work.folder, Path) and not any(work.folder.glob("*.tar")):
                    work.give_up()
                raise
            found = work.commit(**content)
        for path in leftovers():
            path.unlink(missing_ok=True)
        return found


def each_shard(
    folder: Place,
    key: str,
    names: Iterable[str],
    make_worker: Callable[[], Worker],
    spread: Spread | None = None,
    suffix: str = ".json",
) -> Iterator[dict[str, Any]]:
    """The record of each shard, in the order of `names`: of the finished ones, and of those that are made now.

    Workers take shards as they come free; only the records wait for their turn. The caller holds the folder's lock.

    Args:
        key: under which a record counts as finished: of the work, or of the part of it that the shards depend on.
        spread: over which workers; None for this process.
        suffix: of a record's file, in place of the shard's own.

    Raises:
        ShardsFailed: after the records of all shards before the first that was given up, now or in an earlier run.
    """
    spread = spread or Spread()
    folder = place_of(folder, shared=spread.shared)
    given_up = read_failed(folder)
    left_out = {} if spread.retry_failed else given_up
    wanted = names if spread.alone and not (spread.shared or left_out) else [n for n in names if n not in left_out]
    one = functools.partial(_Once, folder, key, make_worker, suffix, spread.lease if spread.shared else None)
    crew = open_crew(one, spread, label=f"mobileclip2_lite-{folder.name}")
    todo = _from_own_start(wanted) if spread.shared else wanted
    run = Run(crew, todo, pause=min(10.0, spread.lease / 20))
    sizes: dict[str, int] = {}
    try:
        for record in (record for _, record in run) if wanted is names else _in_order(run, wanted):
            if "sha256" in record and isinstance(folder, StorePath):
                sizes[record["name"]] = record["bytes"]
            yield record
        for _ in Run(crew, _gone(folder, sizes), run.pause):  # the same bytes again: their records are known
            pass
    finally:
        crew.close()
    _settle(folder, given_up, left_out, run.failed)


def _in_order(run: Run, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The records in the order of names; those after a shard that was given up are made, and not given."""
    done: dict[str, dict[str, Any]] = {}
    waiting = iter(names)
    name = next(waiting, None)
    for made, record in run:
        done[made] = record
        while name in done:
            yield done.pop(name)
            name = next(waiting, None)


def _gone(folder: Place, sizes: Mapping[str, int]) -> list[str]:
    """Shards that a store has lost since they were written: all are looked at once more before they are relied on."""
    from concurrent.futures import ThreadPoolExecutor

    def whole(name: str) -> bool:
        found = (folder / name).store.facts()
        return found is not None and found.size == sizes[name]

    with ThreadPoolExecutor(LOOKS) as pool:
        return [name for name, there in zip(sizes, pool.map(whole, sizes), strict=True) if not there]


def _from_own_start(names: Sequence[str]) -> list[str]:
    """The same shards from a start of this process's own, so that processes that share them seldom meet."""
    start = pick(len(names), "start", uuid.uuid4().hex) if names else 0
    return [*names[start:], *names[:start]]


def read_failed(folder: Place) -> dict[str, dict[str, Any]]:
    """Shard -> line of `failed.jsonl`: name, reason, tries."""
    path = folder / FAILED
    if not path.is_file():
        return {}
    return {line["name"]: line for line in read_lines(path)}


def _settle(folder: Place, before: dict, left_out: dict, failed: Sequence[Failed]) -> None:
    """Write `failed.jsonl` anew, and raise if anything stands in it."""
    now = {one.item: {"name": one.item, "reason": one.reason, "tries": one.tries} for one in failed}
    lines = {**left_out, **now}
    if lines != before:
        write_note(folder / FAILED, to_lines(lines[name] for name in sorted(lines)))
    if not lines:
        if before and isinstance(folder, Path):
            (folder / FAILED).unlink(missing_ok=True)
        return
    first = lines[min(lines)]
    raise ShardsFailed(
        f"{len(lines)} shards failed, {first['name']} with {first['reason']}; all are listed in {folder / FAILED}, all "
        "others are made. Mend the cause and run again with retry_failed (--retry-failed)"
    )


class _Once:
    """In one process: the record of a shard by its name; the worker is made when the first shard is missing."""

    def __init__(
        self, folder: Place, key: str, make_worker: Callable[[], Worker], suffix: str, lease: float | None
    ) -> None:
        self.folder, self.key, self.make_worker, self.suffix = folder, key, make_worker, suffix
        self.worker: Worker | None = None
        self.claims = Claims(folder, lease) if lease is not None else None

    def __call__(self, name: str) -> dict[str, Any] | None:
        """The record; None while another process that shares the folder makes it."""
        shard = self.folder / name
        if self.claims is None:
            return once(shard, self.key, self._make, self.suffix)
        record = shard.with_suffix(self.suffix)
        if found := _finished(shard, record, self.key):
            return found
        with self.claims.taken(record.name) as ours:
            return once(shard, self.key, self._make, self.suffix) if ours else None

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


def once(shard: Place, key: str, make: Worker, suffix: str = ".json") -> dict[str, Any]:
    """The record of one shard of a folder, which stands beside it: of the shard that is there, or of the one it makes.

    Args:
        shard: the tar.
        key: of the work; a shard of other work, or one that is damaged, is made again.
        make: writes the tar to the path that it is given, of the same name, and returns the content of its record.

    Raises:
        store.Clash: a store has another tar of this name.
    """
    record = shard.with_suffix(suffix)
    if found := _finished(shard, record, key):
        return found
    with made_here(shard) as target:
        content = {"key": key, "name": shard.name, **make(target)}
    write_atomic(record, pretty(content))
    return content


def _finished(shard: Place, record: Place, key: str) -> dict[str, Any] | None:
    """The record of a shard that this work has finished, None if it must be made; a damaged tar is made again."""
    try:
        found = json.loads(record.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    if not isinstance(found, dict) or found.get("key") != key:
        return None
    if not found.get("sha256"):
        return found
    if not shard.is_file():
        return None
    if isinstance(shard, StorePath) and "bytes" in found:  # a store does not change what it has taken whole
        return found if shard.stat().st_size == found["bytes"] else None
    return found if found["sha256"] == sha256_file(shard) else None


def open_crew(make_worker: Callable[[], Callable], spread: Spread, label: str) -> Crew:
    """The workers that `spread` asks for. It is here since both kinds of crew know `work.crew`, which knows neither.

    Args:
        make_worker: called once in each process; picklable for more than one.
        label: part of the actors' names on a cluster's dashboard.
    """
    if spread.engine == "ray":
        from mobileclip2_lite.work.ray_crew import Actors

        return Actors(make_worker, spread, label)
    return Alone(make_worker) if spread.alone else Processes(make_worker, spread.workers, spread.gpus)


def listed(records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What a manifest says of each shard, from the shards' records."""
    return [{key: record[key] for key in ("name", "sha256", "samples", "bytes", "dropped")} for record in records]


def totals(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a manifest says of all shards together, `dropped` by reason, and of each (`shards`)."""
    dropped: Counter = Counter()
    for record in records:
        dropped.update(record["dropped"])
    return {
        "samples": sum(record["samples"] for record in records),
        "bytes": sum(record["bytes"] for record in records),
        "dropped": dict(sorted(dropped.items())),
        "shards": listed(records),
    }
