"""Memory that a process has freed, given back to the system.

glibc keeps what is freed for the next time. Where small things that stay (rows, texts) are made between large ones that
go (the pixels of a pass), the holes of the large ones no longer fit the next, and a process grows by the pixels of
every sample that waits for its rows: on photographs of 224 pixels with 30 views to nine GB (docs/lab_log.md).
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable

LARGE = 2**23
"""Bytes from which on an array leaves a hole that is worth giving back; below, that takes longer than it helps."""


def give_back() -> bool:
    """Let the system have what this process freed; takes milliseconds. False where the C library has no way to.

    That is glibc's `malloc_trim`; other C libraries (macOS, Windows, musl) give large arrays back by themselves.
    """
    trim = _trim()
    return bool(trim(0)) if trim else False


@functools.cache
def _trim() -> Callable[[int], int] | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library; Windows wants a name
        return None
