"""One function over many items: in this process, in several of this machine, or in actors of a Ray cluster.

The paper ran its data set reinforcement on Ray. A worker is made once a process (it holds the models) and called once
an item; it reads and writes the files, and the engine carries only names and counts.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

ENGINES = ("local", "ray")


class WorkerLost(RuntimeError):
    """A worker's process ended without a word, most often because the system took its memory back."""


def run(
    make_worker: Callable[[], Callable[[Item], Result]],
    items: Iterable[Item],
    engine: str = "local",
    workers: int = 1,
    gpus: float = 0,
) -> Iterator[Result]:
    """The worker's result for every item, in the order of the items.

    Args:
        make_worker: called once in each process; returns the function. Must be picklable for more than one process.
        items: small and picklable: names of shards. One local worker takes them one by one, as it gets to them.
        engine: `local`, this machine; `ray`, actors on the cluster that `ray.init()` finds or starts.
        workers: local processes, which share the cores (1: this process itself), or actors.
        gpus: GPUs that an actor asks for (ray only).

    Raises:
        ValueError: the engine has no such name, or there is less than one worker.
        ModuleNotFoundError: engine `ray` without the extra `scale`.
        WorkerLost: a local process was killed.
        Exception: whatever the worker raises, after the results of the items before it.
    """
    if workers < 1:
        raise ValueError(f"workers must be 1 or more, not {workers}")
    if engine == "local" and workers == 1:
        worker = None
        for item in items:
            worker = worker or make_worker()
            yield worker(item)
    elif engine == "local":
        yield from _processes(make_worker, items, workers)
    elif engine == "ray":
        yield from _ray(make_worker, items, workers, gpus)
    else:
        raise ValueError(f"engine {engine!r} is not one of {', '.join(ENGINES)}")


_WORKER: Callable | None = None


def _processes(make_worker: Callable, items: Iterable, workers: int) -> Iterator:
    """Fresh processes that each hold one worker; an item goes to whichever is free, results come back in order."""
    context = multiprocessing.get_context("spawn")  # a fork would share locks of torch's threads and a CUDA context
    cores = max(1, (os.cpu_count() or 1) // workers)
    threads = os.environ.get("OMP_NUM_THREADS", str(cores))
    with (
        environment(OMP_NUM_THREADS=threads, OMP_WAIT_POLICY="passive"),
        ProcessPoolExecutor(workers, context, _begin, (make_worker,)) as pool,
    ):
        under_way: deque[tuple[Any, Future]] = deque()
        try:
            for item in items:
                under_way.append((item, pool.submit(_call, item)))
                if len(under_way) >= 2 * workers:
                    yield _oldest(under_way)
            while under_way:
                yield _oldest(under_way)
        except BrokenProcessPool as error:
            lost = ", ".join(str(item) for item, future in under_way if not _finished(future))
            raise WorkerLost(
                f"a worker process ended without a word; not finished: {lost}. Most often memory ran out. "
                "What is finished is kept: run the same again, with fewer workers"
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # those under way end, and what they make is kept
            raise


def _oldest(under_way: deque[tuple[Any, Future]]) -> Any:
    """The result that is next in order; its item stays in the queue if it failed."""
    result = under_way[0][1].result()
    under_way.popleft()
    return result


def _finished(future: Future) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


def _begin(make_worker: Callable) -> None:
    """In a new process: end with the parent, make the worker."""
    global _WORKER
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _WORKER = make_worker()


def _end_with_parent() -> None:
    """A killed parent can't end its workers; they would wait for items, and hold their memory, for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _call(item: Any) -> Any:
    return _WORKER(item)


@contextlib.contextmanager
def environment(**values: str) -> Iterator[None]:
    """Environment variables for child processes, put back afterwards."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


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


def ahead(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """`map`, with up to two items a thread under way; the order stays. Without threads, plain `map`."""
    if not threads:
        yield from map(function, items)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
