"""Seeded chance: generators and picks that depend only on named parts, on every platform.

Every random choice of the way follows from (recipe seed, stage, uid), so that the same recipe gives the same shards
whatever the batch size, the number of workers, the engine or interruptions.
"""

from __future__ import annotations

import hashlib

import numpy as np


def rng(*parts: int | str) -> np.random.Generator:
    """A generator that depends only on `parts`, on every platform: `rng(seed, "views", uid)`."""
    return np.random.Generator(np.random.PCG64(_seed(parts)))


def pick(count: int, *parts: int | str) -> int:
    """A number below `count` that depends only on `parts`, as `rng(*parts)` would draw one, but without a generator."""
    return _seed(parts) % count


def _seed(parts: tuple[int | str, ...]) -> int:
    """128 bits."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)  # a uid may hold odd bytes as surrogates
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16], "little")


def stable_uid(source_key: str) -> str:
    """16 hex characters that name a pair wherever it goes, from its key at the source."""
    return hashlib.sha256(source_key.encode("utf-8", "surrogatepass")).hexdigest()[:16]
