"""Workers in this process, or in processes of this machine that are replaced when they die."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator
from multiprocessing.connection import wait
from typing import Any

from mobileclip2_lite.work.crew import NOTHING, Event, WorkerDied, WorkerFailed, reason


class Alone:
    """This process itself; an error ends the run, unless it is `one_of_many` that share a folder."""

    def __init__(self, make_worker: Callable[[], Callable], one_of_many: bool = False) -> None:
        self.make_worker, self.worker, self.done, self.one_of_many = make_worker, None, [], one_of_many

    def suits(self, shunned: Collection[str]) -> bool:
        """There is no other machine."""
        return True

    def free(self, waiting: int) -> bool:
        """After every shard its result is taken first."""
        return not self.done

    def give(self, item: Any, shunned: Collection[str] = ()) -> None:
        """Do it now."""
        try:
            self.worker = self.worker or self.make_worker()
            self.done.append(Event(item, self.worker(item)))
        except Exception as error:
            if not self.one_of_many:
                raise
            self.done.append(Event(item, error=error))

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
        # forked processes would lack the threads of torch and of the stores' clients, and share a CUDA context
        self.context = multiprocessing.get_context("spawn")
        self.make_worker = make_worker
        cores = str(max(1, (os.cpu_count() or 1) // workers))  # shared: threads that wait for a core take others' time
        shared = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", cores), "OMP_WAIT_POLICY": "passive"}
        self.seen = [{**shared, **({"CUDA_VISIBLE_DEVICES": d} if d else {})} for d in _devices(workers, gpus)]
        self.workers: list[_Process | None] = [None] * workers

    def free(self, waiting: int) -> bool:
        """Starts a process if all others are busy; a starting one can be given its first shard."""
        if any(worker and worker.item is NOTHING for worker in self.workers):
            return True
        if not waiting or None not in self.workers:
            return False
        index = self.workers.index(None)
        self.workers[index] = _Process(self.context, self.make_worker, self.seen[index])
        return True

    def suits(self, shunned: Collection[str]) -> bool:
        """There is no other machine."""
        return True

    def give(self, item: Any, shunned: Collection[str] = ()) -> None:
        """To the first that is free."""
        next(worker for worker in self.workers if worker and worker.item is NOTHING).give(item)

    def events(self, seconds: float) -> list[Event]:
        """Answers and deaths."""
        busy = [worker for worker in self.workers if worker and worker.item is not NOTHING]
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
        return any(worker and worker.item is not NOTHING for worker in self.workers)

    def close(self) -> None:
        """End them."""
        for worker in self.workers:
            if worker:
                worker.end()


class _Process:
    """One process, at one shard at a time."""

    def __init__(self, context: Any, make_worker: Callable[[], Callable], seen: dict[str, str]) -> None:
        self.pipe, theirs = context.Pipe()
        self.item: Any = NOTHING
        self.process = context.Process(target=_serve, args=(theirs, make_worker), daemon=True)
        with environment(**seen):  # before it imports torch
            self.process.start()
        theirs.close()

    def give(self, item: Any) -> None:
        self.item = item
        with contextlib.suppress(OSError):  # it has died while idle: `take` finds that out
            self.pipe.send(item)

    def take(self) -> Event:
        """What it answered, or how it ended."""
        item, self.item = self.item, NOTHING
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


def _serve(pipe: Any, make_worker: Callable[[], Callable]) -> None:
    """The life of a worker process: it ends when its parent does, also if that was killed."""
    end_with_parent()
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


def end_with_parent(worker: int = 0) -> None:
    """Let this process end as soon as the one that started it does, also if that was killed.

    A killed parent cannot end its workers: they would wait for work, and hold cores and memory, for ever. The
    `initializer` of pools.
    """
    threading.Thread(target=_wait_for_parent, name=f"end with parent {worker}", daemon=True).start()


def serve_loader(worker: int) -> None:
    """The beginning of a loader process: it ends with its training, and outlives by a minute the SIGTERM that both get.

    A cluster sends it to all processes at once, and the training wants to write a checkpoint before it ends.
    """
    end_with_parent(worker)

    def later(*_: object) -> None:
        timer = threading.Timer(60.0, os._exit, (1,))
        timer.daemon = True
        timer.start()

    signal.signal(signal.SIGTERM, later)


def _wait_for_parent() -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
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
        if workers > share * count:  # no worker has parts of two GPUs
            raise ValueError(f"{workers} workers of {gpus:g} GPU each: {share} fit on one, and there are {count}")
        return [visible[index // share] for index in range(workers)]
    size = int(gpus)
    return [",".join(visible[index * size : (index + 1) * size]) for index in range(workers)]
