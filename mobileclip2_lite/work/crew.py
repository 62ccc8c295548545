"""Workers that make shards, in processes of this machine or on a Ray cluster, and what happens when they die.

Paper: appendix on data set reinforcement, which was run on Ray. A worker is made once in its process (it holds the
teachers) and called once a shard; it reads and writes the files, the crew carries only names and counts. Whoever is
free takes the next shard, so a slow one holds nobody back. A shard that ends its worker three times, by an error or by
death, is given up, and the run goes on. Ray's core is used instead of Ray Data, which would try such a shard for ever.
Taught by notebooks/70_scaling.ipynb.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

TRIES = 3
"""Workers that one shard may end before it is given up."""
LOST = 20
"""Workers that may be lost with their machine under one shard: the shard is not to blame."""
ENGINES = ("local", "ray")


@dataclass(frozen=True)
class Engine:
    """Where shards are made, and by how many workers."""

    name: str = "local"
    """`local`, processes of this machine, or `ray`, actors on a cluster (the extra `scale`)."""
    workers: int = 1
    """Workers at most. One local worker is this process itself."""
    least: int = 1
    """Workers that are asked for at once and kept (ray); more come while shards wait and the cluster has room."""
    gpus: float = 0.0
    """GPUs a worker, also a fraction of one that workers share."""
    address: str = ""
    """Of a running Ray cluster (`auto`, `ray://head:10001`); empty starts one on this machine, or takes RAY_ADDRESS."""
    shared: bool = False
    """Other processes, here or on other machines, make shards of the same folder at the same time."""
    lease: float = 300.0
    """Seconds without a sign of life after which another process takes over a shard (shared)."""
    retry_failed: bool = False
    """Try the shards again that an earlier run has given up."""

    def __post_init__(self) -> None:
        if self.name not in ENGINES:
            raise ValueError(f"engine {self.name!r} is not one of {', '.join(ENGINES)}")
        if not 1 <= self.least <= self.workers:
            raise ValueError(f"workers is {self.workers}, least {self.least}: 1 <= least <= workers")
        if self.gpus < 0 or (self.gpus > 1 and self.gpus != int(self.gpus)):
            raise ValueError(f"gpus is {self.gpus}: a fraction of one GPU, or whole ones")
        if self.lease <= 0:
            raise ValueError(f"lease is {self.lease} seconds: it must be more than none")


class Event(NamedTuple):
    """What became of a shard that a worker was given."""

    item: Any
    result: Any = None
    error: BaseException | None = None
    """The worker raised it, or died of it."""
    lost: bool = False
    """The worker's machine went away: no fault of the shard's."""


class Crew(Protocol):
    """Workers that can be given shards."""

    def free(self, waiting: int) -> bool:
        """Whether a worker can take a shard now; may ask for more workers, since so many shards are `waiting`."""

    def give(self, item: Any) -> None:
        """Let a free worker do it."""

    def events(self, seconds: float) -> list[Event]:
        """What has happened, at the latest after so many seconds."""

    def busy(self) -> bool:
        """Whether any worker is at a shard, or about to come."""

    def close(self) -> None:
        """End all workers."""


class Failed(NamedTuple):
    """A shard that was given up."""

    item: Any
    reason: str
    tries: int


class GivenUp(RuntimeError):
    """So many shards failed one after the other that the shards cannot be the reason."""


@dataclass
class Run:
    """Hands shards to a crew until each is done or given up; iterate over it for (item, result)."""

    crew: Crew
    items: Iterable[Any]
    pause: float = 1.0
    """Seconds until a shard that another process has is asked for again."""
    failed: list[Failed] = field(default_factory=list)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        waiting, later = deque(self.items), deque()
        ended, lost, in_a_row = Counter(), Counter(), 0
        again = 0.0
        while waiting or later or self.crew.busy():
            if later and time.monotonic() >= again:
                waiting.extend(later)
                later.clear()
            while waiting and self.crew.free(len(waiting)):
                self.crew.give(waiting.popleft())
            for event in self.crew.events(0.2 if later and not self.crew.busy() else 1.0):
                if event.error is not None:
                    counted = lost if event.lost else ended
                    counted[event.item] += 1
                    if ended[event.item] < TRIES and lost[event.item] < LOST:
                        waiting.append(event.item)
                        continue
                    in_a_row += 1
                    self.failed.append(Failed(event.item, reason(event.error), counted[event.item]))
                    if in_a_row >= TRIES + 1:
                        raise GivenUp(
                            f"{in_a_row} shards failed one after the other, the last with {reason(event.error)}"
                        ) from event.error
                elif event.result is None:  # another process is at it
                    if not later:
                        again = time.monotonic() + self.pause
                    later.append(event.item)
                else:
                    in_a_row = 0
                    yield event.item, event.result


def reason(error: BaseException) -> str:
    """An error in one line."""
    if isinstance(error, WorkerFailed):
        return str(error)
    return f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"


class Alone:
    """This process itself; an error ends the run."""

    def __init__(self, make_worker: Callable[[], Callable]) -> None:
        self.make_worker, self.worker, self.done = make_worker, None, []

    def free(self, waiting: int) -> bool:
        """After every shard its result is taken first."""
        return not self.done

    def give(self, item: Any) -> None:
        """Do it now."""
        self.worker = self.worker or self.make_worker()
        self.done.append(Event(item, self.worker(item)))

    def events(self, seconds: float) -> list[Event]:
        """The shard that was just done; a pause if there was none."""
        done, self.done = self.done, []
        if not done:
            time.sleep(seconds)
        return done

    def busy(self) -> bool:
        """A result waits to be taken."""
        return bool(self.done)

    def close(self) -> None:
        """Nothing runs."""


class Processes:
    """Processes of this machine; one that dies is replaced."""

    def __init__(self, make_worker: Callable[[], Callable], workers: int, gpus: float = 0.0) -> None:
        import multiprocessing

        # forked processes would lack the threads of torch and of the stores' clients
        self.context = multiprocessing.get_context("spawn")
        self.make_worker = make_worker
        self.devices = _devices(workers, gpus)
        self.workers: list[_Process | None] = [None] * workers

    def free(self, waiting: int) -> bool:
        """Starts a process where one is missing; a starting one can be given its first shard."""
        for index, worker in enumerate(self.workers):
            if worker is None:
                self.workers[index] = _Process(self.context, self.make_worker, self.devices[index])
                return True
        return any(worker.item is _NOTHING for worker in self.workers)

    def give(self, item: Any) -> None:
        """To the first that is free."""
        next(worker for worker in self.workers if worker and worker.item is _NOTHING).give(item)

    def events(self, seconds: float) -> list[Event]:
        """Answers and deaths."""
        from multiprocessing.connection import wait

        busy = [worker for worker in self.workers if worker and worker.item is not _NOTHING]
        if not busy:
            time.sleep(seconds)
            return []
        ready = wait([thing for worker in busy for thing in (worker.pipe, worker.process.sentinel)], seconds)
        found = []
        for worker in busy:
            if worker.pipe in ready or worker.process.sentinel in ready:
                found.append(event := worker.take())
                if event.error is not None:  # a CUDA error, for one, would meet every later shard, too
                    worker.end()
                    self.workers[self.workers.index(worker)] = None
        return found

    def busy(self) -> bool:
        """Some process is at a shard."""
        return any(worker and worker.item is not _NOTHING for worker in self.workers)

    def close(self) -> None:
        """End them."""
        for worker in self.workers:
            if worker:
                worker.end()


_NOTHING = object()


class _Process:
    """One process, at one shard at a time."""

    def __init__(self, context: Any, make_worker: Callable[[], Callable], device: str | None) -> None:
        self.pipe, theirs = context.Pipe()
        self.item: Any = _NOTHING
        self.process = context.Process(target=_serve, args=(theirs, make_worker, os.getpid()), daemon=True)
        with _seeing(device):
            self.process.start()
        theirs.close()

    def give(self, item: Any) -> None:
        self.item = item
        with contextlib.suppress(OSError):  # it has died while idle: `take` finds that out
            self.pipe.send(item)

    def take(self) -> Event:
        """What it answered, or how it ended."""
        item, self.item = self.item, _NOTHING
        try:
            kind, value = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join(10)
            code = self.process.exitcode
            how = f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"
            return Event(item, error=WorkerDied(f"the worker process ended with {how}"))
        return Event(item, result=value) if kind == "result" else Event(item, error=value)

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


class WorkerDied(RuntimeError):
    """A worker's process ended while it was at a shard."""


class WorkerFailed(RuntimeError):
    """A worker raised an error of a kind of its own; the message names it."""


@contextlib.contextmanager
def _seeing(device: str | None) -> Iterator[None]:
    """Processes started in the block see these GPUs only; they read that before they import torch."""
    name = "CUDA_VISIBLE_DEVICES"
    before = os.environ.get(name)
    if device is not None:
        os.environ[name] = device
    try:
        yield
    finally:
        if device is not None:
            os.environ.pop(name)
            os.environ.update({name: before} if before is not None else {})


def _serve(pipe: Any, make_worker: Callable[[], Callable], parent: int) -> None:
    """The life of a worker process: it ends when its parent does, also if that was killed."""
    if hasattr(os, "getppid"):
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    worker = None
    while True:
        try:
            item = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            worker = worker or make_worker()
            answer = "result", worker(item)
        except Exception as error:  # handed over: the parent decides; errors of other kinds may not travel
            built_in = type(error).__module__ == "builtins"
            answer = "error", error if built_in else WorkerFailed(reason(error))
        pipe.send(answer)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _devices(workers: int, gpus: float) -> list[str | None]:
    """What each local worker sees of the GPUs: whole ones in turn, or a share of one."""
    if not gpus:
        return [None] * workers
    import torch

    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(count)))).split(",")
    if count < 1 or workers * gpus > count + 1e-6:
        raise ValueError(f"{workers} workers with {gpus:g} GPUs each need more than the {count} GPUs of this machine")
    if gpus <= 1:
        share = int(1 / gpus + 1e-6)
        return [visible[index // share] for index in range(workers)]
    size = int(gpus)
    return [",".join(visible[index * size : (index + 1) * size]) for index in range(workers)]
