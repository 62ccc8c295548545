"""Workers as actors on a Ray cluster: more of them while there is room and work, a new one for each that dies.

Paper: appendix on data set reinforcement, which was run on Ray. Only names travel through Ray, no pixels and no tars:
its object store stays empty. An actor that went away with its node is not held against the shard that it had.
Gives up: Ray's own restarts, which could not count whose fault a death was.
"""

from __future__ import annotations

import contextlib
import re
import time
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from mobileclip2_lite.work.crew import NOTHING, Event, Spread, WorkerDied


class Actors:
    """Actors on the cluster that `spread.address` names."""

    START_TRIES = 3
    """Actors that may die while they start, before any has come up."""
    PATIENCE = 60.0
    """Seconds without any actor after which that is said."""

    def __init__(self, make_worker: Callable[[], Callable], spread: Spread, label: str) -> None:
        """Find or start the cluster; ask for the first actors.

        Raises:
            ModuleNotFoundError: the extra `scale` is not installed.
            ConnectionError: no cluster answers at the address, or none comes up on this machine.
        """
        try:
            import ray
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("engine 'ray' needs the extra: pip install 'mobileclip2_lite[scale]'") from error

        self.ray, self.spread, self.label = ray, spread, label
        if not ray.is_initialized():
            _connect(ray, spread.address)
        self.made = ray.put(make_worker)  # once for all actors
        self.remote = ray.remote(num_gpus=spread.gpus, num_cpus=1, max_restarts=0)(_Actor)
        self.actors: list[_Handle] = []
        self.number = self.died_starting = 0
        self.patient_until = time.monotonic() + self.PATIENCE
        for _ in range(spread.least):
            self._start()

    def _start(self) -> None:
        self.number += 1
        actor = self.remote.options(name=f"{self.label}-{self.number}-{time.time_ns():x}").remote(self.made)
        self.actors.append(_Handle(actor, actor.node.remote()))

    def free(self, waiting: int) -> bool:
        """Asks for actors as long as shards wait: the cluster's own autoscaler sees the demand and may add nodes."""
        idle = sum(one.item is NOTHING and one.node is not None for one in self.actors)
        coming = sum(one.node is None for one in self.actors)
        for _ in range(min(waiting - idle - coming, self.spread.workers - len(self.actors))):
            self._start()
        return idle > 0

    def suits(self, shunned: Collection[str]) -> bool:
        """Whether an actor on another node is free, or none is there or coming up that may be on another."""
        elsewhere = [one for one in self.actors if one.node is not None and one.node not in shunned]
        if any(one.item is NOTHING for one in elsewhere):
            return True
        patient_since = time.monotonic() - self.PATIENCE  # a cluster may have no room for those that were asked for
        return not elsewhere and not any(one.node is None and one.since > patient_since for one in self.actors)

    def give(self, item: Any, shunned: Collection[str] = ()) -> None:
        """To one that is up and free, on another node if there is one."""
        free = [one for one in self.actors if one.item is NOTHING and one.node is not None]
        one = next((one for one in free if one.node not in shunned), free[0])
        one.item, one.answer = item, one.actor.call.remote(item)

    def events(self, seconds: float) -> list[Event]:
        """Answers, deaths, and arrivals (which say nothing about a shard)."""
        self._say_if_none_comes()
        under_way = {one.answer: one for one in self.actors if one.answer is not None}
        if not under_way:
            time.sleep(seconds)
            return []
        ready, _ = self.ray.wait(list(under_way), num_returns=1, timeout=seconds)
        return [event for answer in ready if (event := self._take(under_way[answer])) is not None]

    def _take(self, one: _Handle) -> Event | None:
        item, answer = one.item, one.answer
        one.item, one.answer = NOTHING, None
        try:
            value = self.ray.get(answer)
        except self.ray.exceptions.RayTaskError as error:  # raised by the worker
            self._end(one)
            cause = getattr(error, "cause", None) or error
            if item is NOTHING:
                raise cause from None
            return Event(item, error=cause, node=one.node or "")
        except self.ray.exceptions.RayError as error:
            self._end(one)
            if item is NOTHING:
                self._died_starting(error)
                return None
            return Event(item, error=_death(error), lost=_node_gone(self.ray, one.node, error), node=one.node or "")
        if item is NOTHING:
            one.node, self.died_starting = value, 0
            return None
        return Event(item, result=value)

    def _say_if_none_comes(self) -> None:
        if time.monotonic() < self.patient_until or any(one.node for one in self.actors):
            return
        self.patient_until = time.monotonic() + 10 * self.PATIENCE
        has = {name: amount for name, amount in self.ray.cluster_resources().items() if name in ("CPU", "GPU")}
        warnings.warn(
            f"no worker has come up: each asks for 1 CPU and {self.spread.gpus:g} GPUs, the cluster has {has}; waiting "
            "for it to grow",
            stacklevel=2,
        )

    def _died_starting(self, error: Exception) -> None:
        self.died_starting += 1
        if self.died_starting >= self.START_TRIES and not any(one.node for one in self.actors):
            raise error
        if len(self.actors) < self.spread.least:
            self._start()

    def _end(self, one: _Handle) -> None:
        self.actors.remove(one)
        self.ray.kill(one.actor)

    def busy(self) -> bool:
        """Some actor is at a shard."""
        return any(one.item is not NOTHING for one in self.actors)

    def close(self) -> None:
        """Give the actors' places back; the cluster stays as it was found."""
        for one in list(self.actors):
            with contextlib.suppress(self.ray.exceptions.RayError):
                self._end(one)


@dataclass(eq=False)
class _Handle:
    """An actor, what it is at, and the answer that is awaited: first its node's name, then a shard's record.

    It was asked for at `since`.
    """

    actor: Any
    answer: Any
    item: Any = NOTHING
    node: str | None = None
    since: float = field(default_factory=time.monotonic)


class _Actor:
    """Holds one worker in its process."""

    def __init__(self, make_worker: Callable[[], Callable]) -> None:
        self.make_worker, self.worker = make_worker, None

    def node(self) -> str:
        """Where it has come up."""
        import ray

        return ray.get_runtime_context().get_node_id()

    def call(self, item: Any) -> Any:
        """The worker's answer; it is made for the first shard, so that a failure counts for something."""
        self.worker = self.worker or self.make_worker()
        return self.worker(item)


def _connect(ray: Any, address: str) -> None:
    """Join the cluster at an address, or start one on this machine."""
    chosen = {"address": address} if address else {"include_dashboard": False}
    try:
        ray.init(log_to_driver=False, **chosen)
    except Exception as error:  # of a raylet that is slow to start it is a bare one
        first = " ".join(str(error).split())[:300]
        remedy = (
            "look at the address, and whether `ray status` answers there"
            if address
            else "this machine may be too busy: try again, or start Ray by `ray start --head` and take --address auto"
        )
        raise ConnectionError(f"no Ray cluster{f' at {address}' if address else ''}: {first}; {remedy}") from error


def _death(error: Exception) -> Exception:
    """How an actor ended, without the advice that Ray adds; the error itself where it says otherwise."""
    text = " ".join(str(error).split())
    found = re.search(r"Worker exit type: (\w+) Worker exit detail: (.*?)(?: Some common causes|$)", text)
    return WorkerDied(f"the actor's process ended with {found[1]}: {found[2].rstrip('.')}") if found else error


def _node_gone(ray: Any, node: str | None, error: Exception) -> bool:
    """Whether the actor's node is no longer part of the cluster, so that the actor did not die of its shard."""
    if getattr(error, "preempted", False) or ("node" in str(error).lower() and "died" in str(error).lower()):
        alive = {found["NodeID"] for found in ray.nodes() if found["Alive"]}
        return node not in alive
    return False
