"""The one skeleton of stages that work shard by shard: found, locked, looked at again, resumed, spread, summed up.

A stage says what a worker makes of one shard and how the shards' records become a manifest; everything else is here, so
that a killed run of any stage goes on, and any stage can be spread over processes or a cluster (`crew`).
"""

from __future__ import annotations

import functools
import operator
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mobileclip2_lite.work.claims import Claims
from mobileclip2_lite.work.crew import LOST, Crew, Run, Spread
from mobileclip2_lite.work.failed import read_failed, settle
from mobileclip2_lite.work.folder import Work
from mobileclip2_lite.work.place import Place, StorePath, place_of
from mobileclip2_lite.work.processes import Alone, Processes
from mobileclip2_lite.work.progress import Progress
from mobileclip2_lite.work.randomness import pick
from mobileclip2_lite.work.records import Worker, finished, name_shard, once

LOOKS = 16
"""Objects of a store that are looked at at a time."""


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
        failed.ShardsFailed: of several workers, three ended at one shard; the other shards are kept.
        crew.GivenUp: many shards in a row ended their workers.
        Exception: whatever the worker in this process raises, with the shard's name, unless the folder is shared;
            finished shards are kept.
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
        failed.ShardsFailed: some were given up, now or in an earlier run; the records before the first are given.
    """
    spread = spread or Spread()
    folder = place_of(folder, shared=spread.shared)
    given_up = read_failed(folder)
    left_out = {} if spread.retry_failed else given_up
    wanted = names if spread.alone and not (spread.shared or left_out) else [n for n in names if n not in left_out]
    one = functools.partial(_Once, folder, key, make_worker, suffix, spread)
    crew = open_crew(one, spread, label=f"mobileclip2_lite-{folder.name}")
    todo = _from_own_start(wanted) if spread.shared else wanted
    run = Run(crew, todo, pause=min(10.0, spread.lease / 20), known=given_up)
    sizes: dict[str, int] = {}
    shown = Progress(folder.name, operator.length_hint(wanted, 0))
    try:
        made = shown.over(run)
        for record in (record for _, record in made) if wanted is names else _in_order(made, wanted):
            if "sha256" in record and isinstance(folder, StorePath):
                sizes[record["name"]] = record["bytes"]
            yield record
        again = Run(crew, _gone(folder, sizes), run.pause)
        for _ in again:  # the same bytes: their records are known
            pass
    finally:
        crew.close()
    settle(folder, given_up, left_out, [*run.failed, *again.failed])


def _in_order(run: Iterable[tuple[str, dict]], names: Sequence[str]) -> Iterator[dict[str, Any]]:
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


class _Once:
    """In one process: the record of a shard by its name; the worker is made when the first shard is missing."""

    def __init__(self, folder: Place, key: str, make_worker: Callable[[], Worker], suffix: str, spread: Spread) -> None:
        self.folder, self.key, self.make_worker, self.suffix = folder, key, make_worker, suffix
        self.worker: Worker | None = None
        most = None if spread.retry_failed else LOST
        self.claims = Claims(folder, spread.lease, most) if spread.shared else None

    def __call__(self, name: str) -> dict[str, Any] | None:
        """The record; None while another process that shares the folder makes it."""
        shard = self.folder / name
        if self.claims is None:
            return once(shard, self.key, self._make, self.suffix)
        record = shard.with_suffix(self.suffix)
        if found := finished(shard, record, self.key):
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


def open_crew(make_worker: Callable[[], Callable], spread: Spread, label: str) -> Crew:
    """The workers that `spread` asks for. It is here since both kinds of crew know `work.crew`, which knows neither.

    Args:
        make_worker: called once in each process; picklable for more than one.
        label: part of the actors' names on a cluster's dashboard.
    """
    if spread.engine == "ray":
        from mobileclip2_lite.work.ray_crew import Actors

        return Actors(make_worker, spread, label)
    return Alone(make_worker, spread.shared) if spread.alone else Processes(make_worker, spread.workers, spread.gpus)
