"""The student's batches: every reinforced sample once an epoch, the same for any number of workers.

Paper: MobileCLIP (arXiv 2311.17049) section 4, training on a reinforced data set. Reads a folder of reinforced shards,
writes nothing. Differs from the official loader: order and choices follow from (seed, epoch) alone, and an epoch can be
taken up in the middle. `sample_reader` reads one sample, `batch` puts a batch together.
Taught by notebooks/40_reinforced_training.ipynb.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from mobileclip2_lite.shards import embeddings as storage
from mobileclip2_lite.shards.batch import Batch, collate
from mobileclip2_lite.shards.keys import teachers_of
from mobileclip2_lite.shards.order import POOL, Order
from mobileclip2_lite.shards.sample_reader import Item, SampleReader, check_texts
from mobileclip2_lite.shards.samples import shard_names
from mobileclip2_lite.shards.tars import ShardError, TarIndex
from mobileclip2_lite.work.bad_sample import BadSample
from mobileclip2_lite.work.folder import read_manifest
from mobileclip2_lite.work.place import StorePath, fetch_ahead, place_of
from mobileclip2_lite.work.processes import serve_loader


def start_method(folder: Path | StorePath) -> str | None:
    """How loader processes are started: as the system does it, but by `spawn` where a store is read.

    Forked ones would lack the threads of the store's client, and wait for them for ever; those of a fork server would
    not know what the environment says of the store since that server was started.
    """
    return "spawn" if isinstance(folder, StorePath) else None


class ReinforcedDataset:
    """Batches of one epoch of a folder of reinforced shards.

    Args:
        folder: shards and, usually, their manifest.
        image_size: side of the images in pixels.
        batch_size: samples a batch of this process.
        views: `stored` replays one of the sample's views, each once in as many epochs as there are views; `weak` draws
            a light crop instead, for which there are no embeddings.
        teachers: whose embeddings to read; None for all of the manifest, () for none.
        captioners: from whose captions one is drawn; () for none. A sample without any gives its own text again.
        texts: `sum` gives real texts and captions as two groups; `synthetic` gives the captions in the place of the
            real texts, `one` gives one of the two for each sample, drawn in each epoch.
        max_views, max_captions: use only a sample's first so many views, and each captioner's first so many captions;
            0 for all.
        interpolation: of the resized crop; the teachers' own is in the manifest.
        rank, world_size: this process among those that share an epoch.
        workers: loader processes; they do not change what comes out, nor its order.
        on_mismatch: `error` raises at the first sample that cannot be used, `warn` leaves it out, warns once a reason
            and counts it in `dropped`.
        drop_last: leave out the samples that fill no batch on every rank.
        verify: check that each picture's hash is the one that its views were drawn for, when it is first read.
        resampling: `pil` gives the pixels that the teachers saw; `torch` is faster without numba, see `views.replay`.

    Raises:
        ValueError: an argument is not one of those above, or teachers are asked for with weak views.
        ShardError: a sample cannot be used and `on_mismatch` is `error`; names shard, key and member.
    """

    def __init__(
        self,
        folder: str | Path,
        image_size: int,
        batch_size: int,
        seed: int = 0,
        epoch: int = 0,
        views: str = "stored",
        teachers: Sequence[str] | None = None,
        captioners: Sequence[str] = (),
        texts: str = "sum",
        max_views: int = 0,
        max_captions: int = 0,
        interpolation: str = "bilinear",
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        on_mismatch: str = "error",
        drop_last: bool = True,
        resampling: str = "pil",
        verify: bool = True,
    ) -> None:
        if views not in ("stored", "weak"):
            raise ValueError(f"views {views!r} is not stored or weak")
        if on_mismatch not in ("error", "warn"):
            raise ValueError(f"on_mismatch {on_mismatch!r} is not error or warn")
        if max_views < 0 or max_captions < 0:
            raise ValueError(f"max_views is {max_views}, max_captions {max_captions}: 0 for all, or more")
        if not 0 <= rank < world_size or batch_size < 1:
            raise ValueError(f"rank {rank} of {world_size}, batch size {batch_size}")
        self.folder, self.names = place_of(folder), shard_names(folder)
        self.batch_size, self.seed, self.epoch, self.on_mismatch = batch_size, seed, epoch, on_mismatch
        self.rank, self.world_size, self.workers, self.drop_last = rank, world_size, workers, drop_last
        manifest = read_manifest(folder) if (self.folder / "manifest.json").is_file() else {}
        known = [teacher["name"] for teacher in manifest.get("teachers", [])]
        if teachers is None:
            teachers = () if views == "weak" else known or self._teachers_of_first_sample()
        if views == "weak" and teachers:
            raise ValueError("weak views have no stored embeddings: pass teachers=() or views='stored'")
        if missing := [name for name in teachers if known and name not in known]:
            raise ValueError(
                f"{folder} holds no embeddings of {', '.join(missing)}; it has {', '.join(known)}: "
                "name one of these, or reinforce with the other first"
            )
        check_texts(texts, captioners)
        self.reader = SampleReader(
            image_size, seed, views, tuple(teachers), tuple(captioners), texts, max_views, max_captions,
            interpolation, resampling, verify,
        )  # fmt: skip
        self.dropped: Counter = Counter()
        self._start, self._asked = 0, set()
        self._index = lru_cache(maxsize=2 * POOL)(self._open)
        shards = manifest.get("shards") or [{"samples": len(self._shard(name))} for name in self.names]
        self.order = Order([shard["samples"] for shard in shards], seed)

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name != "_index"}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._index = lru_cache(maxsize=2 * POOL)(self._open)

    def _open(self, name: str) -> TarIndex | ShardError:
        """A shard's index, or why it has none: a damaged tar is walked once, and not again for each of its samples."""
        try:
            return TarIndex(self.folder / name)
        except ShardError as error:
            return error

    def _shard(self, name: str) -> TarIndex:
        found = self._index(name)
        if isinstance(found, ShardError):
            raise found
        return found

    def _teachers_of_first_sample(self) -> list[str]:
        member = TarIndex(self.folder / self.names[0]).member(0, "emb.safetensors")
        table = storage.header(member) if member is not None else {}
        return teachers_of(table)

    def __len__(self) -> int:
        """Batches of this rank in one epoch."""
        full, rest = divmod(self.order.samples, self.batch_size * self.world_size)
        return full + (not self.drop_last and rest > self.rank * self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Take another epoch, from its start."""
        self.epoch, self._start = epoch, 0

    def state_dict(self) -> dict:
        """Where the epoch stands: load it into an equal data set and the remaining batches come."""
        return {"epoch": self.epoch, "batch": self._start, "seed": self.seed, "step": self.batch_size * self.world_size}

    def load_state_dict(self, state: dict) -> None:
        """Go on where `state` was taken.

        Raises:
            ValueError: seed or samples a step (batch size times processes) differ: the batches would be others.
        """
        mine = {"seed": self.seed, "step": self.batch_size * self.world_size}
        if any(state[name] != value for name, value in mine.items()):
            raise ValueError(f"the state was taken with {state}, this data set has {mine}")
        self.epoch, self._start = state["epoch"], state["batch"]

    def __iter__(self) -> Iterator[Batch]:
        first, last = self._start, len(self)
        for number, batch in enumerate(self._batches(range(first, last)), first + 1):
            self._start = number if number < last else 0
            self._note(batch.dropped)
            yield batch

    def _batches(self, numbers: range) -> Iterator[Batch]:
        if not self.workers:
            yield from map(self.batch, numbers)
            return
        from torch.utils.data import DataLoader

        yield from DataLoader(
            _Steps(self, numbers),
            batch_size=None,
            num_workers=self.workers,
            multiprocessing_context=start_method(self.folder),
            worker_init_fn=serve_loader,
        )

    def _note(self, dropped: dict[str, int]) -> None:
        for name, count in dropped.items():
            if not self.dropped[name]:
                warnings.warn(f"{self.folder}: leaving out samples: {name}", stacklevel=3)
            self.dropped[name] += count

    def _fetch_ahead(self, position: int) -> None:
        """Have shards copied from a store while batches before them are used."""
        if isinstance(self.folder, StorePath):
            for shard in self.order.soon(self.epoch, position):
                if (self.epoch, shard) not in self._asked:
                    self._asked.add((self.epoch, shard))
                    fetch_ahead(self.folder / self.names[shard])

    def batch(self, number: int) -> Batch:
        """Batch `number` of this rank in the current epoch; needs no batch before it.

        Step after step for all samples, not sample after sample: small work in a row stays in the processor's caches,
        which each decoded picture sweeps out.
        """
        first = (number * self.world_size + self.rank) * self.batch_size
        positions = range(first, min(first + self.batch_size, self.order.samples))
        self._fetch_ahead(first)
        items: list[Any] = [self.order.at(self.epoch, position) for position in positions]
        dropped: Counter = Counter()
        images = np.empty((len(items), self.reader.image_size, self.reader.image_size, 3), np.uint8)
        free = iter(images)

        def plan(place: tuple[int, int]) -> Item:
            return self.reader.plan(self._shard(self.names[place[0]]), place[1], self.epoch)

        def pixels(item: Item) -> Item:
            made = self.reader.pixels(item)
            next(free)[:] = made  # at once, while they are in the processor's cache
            return item

        for step in (plan, self.reader.rows, pixels):
            items = list(self._each(step, items, dropped))
        return collate(items, images[: len(items)], self.reader, dropped)

    def _each(self, step: Callable, items: list[Any], dropped: Counter) -> Iterator[Any]:
        """What a step makes of the items; one that it cannot use is raised or counted, as `on_mismatch` says."""
        for item in items:
            try:
                yield step(item)
            except FileNotFoundError:
                if self.on_mismatch == "error":
                    raise
                dropped["missing_shard"] += 1
            except BadSample as error:
                if self.on_mismatch == "error":
                    if isinstance(error, ShardError):
                        raise
                    raise ShardError(error.reason, str(error), f"{item.index.path}, key {item.key!r}") from error
                dropped[error.reason] += 1


class _Steps:
    """A sequence of batches for torch's DataLoader, which hands numbers to workers in turn and keeps their order."""

    def __init__(self, dataset: ReinforcedDataset, numbers: range) -> None:
        self.dataset, self.numbers = dataset, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, place: int) -> Batch:
        return self.dataset.batch(self.numbers[place])
