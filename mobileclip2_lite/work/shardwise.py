"""One function over many shards, in this process or on a Ray cluster; a finished shard is never made again.

The paper ran its data set reinforcement on Ray. A worker is made once a process (it holds the teachers) and called once
a shard; it reads and writes the files, the engine carries only names and counts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from mobileclip2_lite.work.files import pretty, sha256_file, write_atomic

Item = TypeVar("Item")

Result = TypeVar("Result")

ENGINES = ("local", "ray")


def run(
    make_worker: Callable[[], Callable[[Item], Result]],
    items: Iterable[Item],
    engine: str = "local",
    workers: int = 1,
    gpus: float = 0,
) -> Iterator[Result]:
    """The worker's result for every item, in the order of the items.

    Args:
        make_worker: called once in each process; returns the function. Must be picklable for `ray`.
        items: small and picklable: names of shards.
        engine: `local`, this process; `ray`, `workers` actors on the cluster that `ray.init()` finds or starts.
        workers: actors (ray only).
        gpus: GPUs an actor (ray only).

    Raises:
        ValueError: the engine has no such name.
        ModuleNotFoundError: engine `ray` without the extra `scale`.
        Exception: whatever the worker raises, at the first item where it does.
    """
    if engine == "local":
        worker = None
        for item in items:
            worker = worker or make_worker()
            yield worker(item)
    elif engine == "ray":
        yield from _ray(make_worker, items, workers, gpus)
    else:
        raise ValueError(f"engine {engine!r} is not one of {', '.join(ENGINES)}")


def _ray(make_worker: Callable, items: Iterable, workers: int, gpus: float) -> Iterator:
    """Actors that each hold one worker; items go to whichever is free, results come back in order."""
    try:
        import ray
        from ray.util import ActorPool
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("engine 'ray' needs the extra: pip install 'mobileclip2_lite[scale]'") from error

    class Actor:
        def __init__(self) -> None:
            self.worker = make_worker()

        def call(self, item):
            return self.worker(item)

    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False)
    remote = ray.remote(num_gpus=gpus)(Actor)
    pool = ActorPool([remote.remote() for _ in range(workers)])
    yield from pool.map(lambda actor, item: actor.call.remote(item), items)


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
