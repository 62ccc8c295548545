"""Asked to stop: a cluster sends SIGTERM some seconds before it kills, enough for a checkpoint.

Ours. Reads no file and writes none. Gives up: threads other than the first, which hear no signals.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator


class Stopped(RuntimeError):
    """A training was asked to stop; its checkpoint stands, and the same call goes on from there."""


@contextlib.contextmanager
def stop_asked() -> Iterator[Callable[[], bool]]:
    """Whether SIGTERM has come since the block began; within it, the process does not end of it."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
