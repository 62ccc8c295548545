"""Seconds of the clock: of a piece of work, and of one call that is repeated until its median means something."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any


class Stopwatch:
    """Runs from the moment it is made.

    Args:
        clock: seconds that only grow; `time.process_time` counts those of this process's CPU alone.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self.start = clock()

    @property
    def seconds(self) -> float:
        """Seconds since it was made or last restarted."""
        return self.clock() - self.start

    def restart(self) -> float:
        """Begin anew; the seconds until now."""
        now = self.clock()
        seconds, self.start = now - self.start, now
        return seconds


def call_seconds(
    call: Callable[[], Any],
    passes: tuple[int, int],
    seconds: float = 0.0,
    warmup: int = 1,
    wait: Callable[[], Any] | None = None,
) -> Iterator[float]:
    """Seconds of each call after `warmup` of them.

    Args:
        call: what is timed.
        passes: fewest and most timed calls.
        seconds: beyond the fewest calls, another one is made only before so much time has passed.
        warmup: calls before, not timed.
        wait: waits until the device has done what a call asked for, such as `torch.cuda.synchronize`.
    """

    def once() -> None:
        call()
        if wait is not None:
            wait()

    for _ in range(warmup):
        once()
    whole, least, most = Stopwatch(), *passes
    for count in range(most):
        if count >= least and whole.seconds >= seconds:
            return
        watch = Stopwatch()
        once()
        yield watch.seconds
