"""Workers that make shards, in processes of this machine or on a Ray cluster, and what happens when they die.

Paper: appendix on data set reinforcement, which was run on Ray. A worker is made once in its process (it holds the
teachers) and called once a shard; it reads and writes the files, the crew carries only names and counts. Whoever is
free takes the next shard, so a slow one holds nobody back. A shard that ends its worker three times, by an error or by
death, each time on another machine if there are several, is given up, and the run goes on. Ray's core is used instead
of Ray Data, which would try such a shard for ever.
Taught by notebooks/70_scaling.ipynb.
"""

from __future__ import annotations

import itertools
import operator
import time
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

TRIES = 3
"""Workers that one shard may end before it is given up."""
LOST = 20
"""Workers that may be lost with their machine under one shard: the shard is not to blame."""
ENGINES = ("local", "ray")


@dataclass(frozen=True)
class Spread:
    """Where a stage's shards are made, and by how many workers."""

    engine: str = "local"
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
        if self.engine not in ENGINES:
            raise ValueError(f"engine {self.engine!r} is not one of {', '.join(ENGINES)}")
        if not 1 <= self.least <= self.workers:
            raise ValueError(f"workers is {self.workers}, least {self.least}: 1 <= least <= workers")
        if self.gpus < 0 or (self.gpus > 1 and self.gpus != int(self.gpus)):
            raise ValueError(f"gpus is {self.gpus}: a fraction of one GPU, or whole ones")
        if self.lease <= 0:
            raise ValueError(f"lease is {self.lease} seconds: it must be more than none")

    @property
    def alone(self) -> bool:
        """Whether this process makes the shards itself."""
        return self.engine == "local" and self.workers == 1


NOTHING = object()
"""What an idle worker is at."""


class Event(NamedTuple):
    """What became of a shard that a worker was given."""

    item: Any
    result: Any = None
    error: BaseException | None = None
    """The worker raised it, or died of it."""
    lost: bool = False
    """The worker's machine went away: no fault of the shard's."""
    node: str = ""
    """Where the worker was, if there are several machines."""


class Crew(Protocol):
    """Workers that can be given shards."""

    def free(self, waiting: int) -> bool:
        """Whether a worker can take a shard now; may ask for more workers, since so many shards are `waiting`."""

    def suits(self, shunned: Collection[str]) -> bool:
        """Whether a worker that is free lies on none of those nodes, or there is none on any other."""

    def give(self, item: Any, shunned: Collection[str] = ()) -> None:
        """Let a free worker do it, on none of those nodes if there is one."""

    def events(self, seconds: float) -> list[Event]:
        """What has happened, at the latest after so many seconds."""

    def busy(self) -> bool:
        """Whether any worker is at a shard."""

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
    """Hands shards to a crew until each is done or given up; iterate over it for (item, result).

    Items are taken one by one, as workers come free.
    """

    crew: Crew
    items: Iterable[Any]
    pause: float = 1.0
    """Seconds until a shard that another process has is asked for again."""
    known: Collection[Any] = ()
    """Items that an earlier run has given up: that they fail again says nothing about the others."""
    failed: list[Failed] = field(default_factory=list)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        self.source, self.waiting, self.later, self.again = iter(self.items), deque(), deque(), 0.0
        self.ended, self.lost, self.in_a_row = Counter(), Counter(), 0
        self.shunned: dict[Any, set[str]] = defaultdict(set)
        while self._give() or self.later or self.crew.busy():
            for event in self.crew.events(0.2 if self.later and not self.crew.busy() else 1.0):
                if event.error is not None:
                    self._note(event)
                elif event.result is None:  # another process is at it
                    self.again = self.again if self.later else time.monotonic() + self.pause
                    self.later.append(event.item)
                else:
                    self.in_a_row = 0
                    yield event.item, event.result

    def _give(self) -> bool:
        """Give shards to whoever is free; whether there is one left that nobody has."""
        while self.crew.free(self._left(unknown=1)):
            item = self._next()
            if item is NOTHING:
                return bool(self.waiting)
            self.crew.give(item, self.shunned[item])
        return self._left(unknown=0) > 0

    def _next(self) -> Any:
        """A shard for a free worker: tried before, never tried, or, after all others, one that another process had."""
        for _ in range(len(self.waiting)):
            item = self.waiting.popleft()
            if self.crew.suits(self.shunned[item]):
                return item
            self.waiting.append(item)  # its turn comes when a worker elsewhere is free
        for item in itertools.islice(self.source, 1):
            return item
        if self.later and time.monotonic() >= self.again:
            self.waiting.extend(self.later)
            self.later.clear()
            return self.waiting.popleft()
        return NOTHING

    def _left(self, unknown: int) -> int:
        """Shards that can be given and that nobody has; `unknown` stands for those of a source that does not tell."""
        due = len(self.later) if time.monotonic() >= self.again else 0
        return len(self.waiting) + due + operator.length_hint(self.source, unknown)

    def _note(self, event: Event) -> None:
        """Try a shard again that has ended its worker, or give it up."""
        counted = self.lost if event.lost else self.ended
        counted[event.item] += 1
        if event.node and not event.lost:
            self.shunned[event.item].add(event.node)
        if self.ended[event.item] < TRIES and self.lost[event.item] < LOST:
            self.waiting.append(event.item)
            return
        self.in_a_row += event.item not in self.known
        self.failed.append(Failed(event.item, reason(event.error), counted[event.item]))
        if self.in_a_row > TRIES:
            raise GivenUp(
                f"{self.in_a_row} shards failed one after the other, the last with {reason(event.error)}"
            ) from event.error


class WorkerDied(RuntimeError):
    """A worker's process ended while it was at a shard."""


class WorkerFailed(RuntimeError):
    """A worker raised an error of a kind of its own; the message names it."""


def reason(error: BaseException) -> str:
    """An error in one line."""
    if isinstance(error, WorkerFailed):
        return str(error)
    return f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
