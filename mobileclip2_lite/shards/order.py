"""The order of samples in an epoch, known from (seed, epoch) alone and computed a part at a time.

The official trainer shuffles as WebDataset does, differently in every run.
Taught by notebooks/40_reinforced_training.ipynb.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from mobileclip2_lite.work.randomness import rng

POOL = 64
"""Shards whose samples are shuffled together; the order of shards is shuffled over all."""


class Order:
    """The epoch's order of samples: shards shuffled, then the samples of `POOL` shards among themselves.

    Known from (seed, epoch) alone and computed a pool at a time, so that billions of samples need no list of them.
    """

    def __init__(self, counts: Sequence[int], seed: int) -> None:
        self.counts, self.seed, self.samples = list(counts), seed, sum(counts)
        self._shards = lru_cache(maxsize=2)(self._shuffle_shards)
        self._pool = lru_cache(maxsize=4)(self._shuffle_pool)

    def __getstate__(self) -> dict:
        return {"counts": self.counts, "seed": self.seed}

    def __setstate__(self, state: dict) -> None:
        self.__init__(**state)

    def _shuffle_shards(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        shards = rng(self.seed, "shards", epoch).permutation(len(self.counts))
        pools = [sum(self.counts[i] for i in shards[at : at + POOL]) for at in range(0, len(shards), POOL)]
        return shards, np.cumsum([0, *pools])

    def _shuffle_pool(self, epoch: int, pool: int) -> np.ndarray:
        shards = self._shards(epoch)[0][pool * POOL : (pool + 1) * POOL]
        pairs = np.concatenate([np.stack([np.full(self.counts[s], s), np.arange(self.counts[s])], 1) for s in shards])
        return rng(self.seed, "samples", epoch, pool).permutation(pairs)

    def soon(self, epoch: int, position: int) -> list[int]:
        """The shards of the pool at a position, and as large a share of the next pool's as this one is done."""
        shards, starts = self._shards(epoch)
        pool = int(np.searchsorted(starts, position, side="right")) - 1
        now, then = shards[pool * POOL : (pool + 1) * POOL], shards[(pool + 1) * POOL : (pool + 2) * POOL]
        done = (position - starts[pool]) / (starts[pool + 1] - starts[pool])
        return [*map(int, now), *map(int, then[: int(done * len(then)) + 1])]

    def at(self, epoch: int, position: int) -> tuple[int, int]:
        """(shard, sample in the shard) at a position of the epoch."""
        starts = self._shards(epoch)[1]
        pool = int(np.searchsorted(starts, position, side="right")) - 1
        shard, sample = self._pool(epoch, pool)[position - starts[pool]]
        return int(shard), int(sample)
