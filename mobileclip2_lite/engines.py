"""Run one function over many shards: in this process, or on a Ray cluster.

Paper: appendix on data set reinforcement, which was run on Ray. A worker is made once a process (it holds the teachers)
and called once a shard; it reads and writes the files, the engine carries only names and counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

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
