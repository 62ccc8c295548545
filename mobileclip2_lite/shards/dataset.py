"""The student's batches: every reinforced sample once an epoch, the same for any number of workers.

Paper: MobileCLIP (arXiv 2311.17049) section 4, training on a reinforced data set. Reads a folder of reinforced shards,
writes nothing. Differs from the official loader: order and choices follow from (seed, epoch) alone, an epoch can be
taken up in the middle, and of a sample's embeddings only the one view's row is read.
Taught by notebooks/40_reinforced_training.ipynb.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np

from mobileclip2_lite.recipes import Augment
from mobileclip2_lite.shards import embeddings as storage
from mobileclip2_lite.shards.keys import IMAGE, TEXT, caption_key, embedding_key, teachers_of
from mobileclip2_lite.shards.order import POOL, Order
from mobileclip2_lite.shards.samples import (
    EXTENSIONS,
    decode_text,
    load_json,
    parse_views,
    real_texts,
    sample_error,
    shard_names,
)
from mobileclip2_lite.shards.tars import ShardError, TarIndex
from mobileclip2_lite.views import decoding
from mobileclip2_lite.views.drawing import draw
from mobileclip2_lite.views.replay import replay_pixels
from mobileclip2_lite.views.view import View, pixel_box
from mobileclip2_lite.work.bad_sample import BadSample
from mobileclip2_lite.work.files import sha256_bytes
from mobileclip2_lite.work.folder import read_manifest
from mobileclip2_lite.work.place import StorePath, fetch_ahead, place_of
from mobileclip2_lite.work.processes import serve_loader
from mobileclip2_lite.work.randomness import pick, rng

if TYPE_CHECKING:
    from torch import Tensor

LIGHT = Augment(scale=(0.9, 1.0), operations=0)
"""The light crop of `views="weak"`: open_clip's training crop."""
TEXTS = ("sum", "synthetic", "one")
"""Choices between real texts and synthetic captions; see `ReinforcedDataset`."""
SMALL = ("json", "paug.json", "syn.json", "txt")
"""Members that are read whole."""


@dataclass
class Batch:
    """What a training step needs. Images are uint8 and not normalised: (x / 255 - mean) / std is the model's."""

    uids: list[str]
    images: Tensor
    """uint8 (B, 3, S, S)"""
    texts: list[str]
    syn_texts: list[str] | None
    image_embeddings: dict[str, Tensor]
    """teacher -> float32 (B, D), of the very view in `images`"""
    text_embeddings: dict[str, Tensor]
    """teacher -> float32 (B, D)"""
    syn_text_embeddings: dict[str, Tensor] | None
    dropped: dict[str, int] = field(default_factory=dict)
    """Samples of this batch that could not be used, by reason."""
    image_ids: Tensor | None = None
    """int64 (B,), equal where two samples hold the same image; None where that is not known."""


def start_method(folder: Path | StorePath) -> str | None:
    """How loader processes are started: as the system does it, but by `spawn` where a store is read.

    Forked ones would lack the threads of the store's client, and wait for them for ever; those of a fork server would
    not know what the environment says of the store since that server was started.
    """
    return "spawn" if isinstance(folder, StorePath) else None


def check_texts(texts: str, captioners: Sequence[str]) -> None:
    """Raise ValueError unless `texts` is a choice, and captioners write what it takes."""
    if texts not in TEXTS:
        raise ValueError(f"texts {texts!r} is not one of {', '.join(TEXTS)}")
    if texts != "sum" and not captioners:
        raise ValueError(f"texts={texts!r} takes synthetic captions: name their captioners, or set texts='sum'")


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
        resampling: `pil` gives the pixels that the teachers saw; `torch` is faster without numba, see `augment.replay`.

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
        self.image_size, self.batch_size, self.seed, self.epoch = image_size, batch_size, seed, epoch
        self.views, self.interpolation, self.on_mismatch = views, interpolation, on_mismatch
        self.resampling, self.verify = resampling, verify
        self.max_views, self.max_captions = max_views, max_captions
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
        self.teachers, self.captioners, self.texts = tuple(teachers), tuple(captioners), texts
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
        images = np.empty((len(items), self.image_size, self.image_size, 3), np.uint8)
        free = iter(images)
        for step in (self._plan, self._rows, lambda item: self._pixels(item, free)):
            items = list(self._each(step, items, dropped))
        return self._collate(items, images[: len(items)], dropped)

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

    def _plan(self, place: tuple[int, int]) -> Item:
        """Choose view and caption of a sample, and read what is small."""
        index, number = self._shard(self.names[place[0]]), place[1]
        path, key, names = index.path, index.keys[number], index.extensions(number)
        if not any(name in EXTENSIONS for name in names):
            raise sample_error(path, key, "jpg|png|webp", "no_image", "missing; join the shards with images first")
        parts = {name: bytes(index.member(number, name)) for name in names if name in SMALL}
        meta = load_json(path, key, "json", parts) if "json" in parts else {}
        uid = str(meta.get("uid", unquote(key)))
        texts = real_texts(decode_text(path, key, "txt", parts), meta)
        item = Item(index, number, key, uid, texts, meta.get("stored") or {}, str(meta.get("sha256") or uid))
        item.text_row = self._turn(uid, len(texts), "texts")
        if choices := self._captions(path, key, parts):
            item.caption = choices[pick(len(choices), self.seed, "caption", self.epoch, uid)]
            if self.texts == "one" and pick(2, self.seed, "real or synthetic", self.epoch, uid):
                item.caption = None
        if self.views == "weak":
            return item

        def choose(count: int) -> int:
            item.row = self._turn(uid, min(count, self.max_views or count), "turns")
            return item.row

        views = parse_views(path, key, parts, meta, choose) if "paug.json" in parts else []
        if not views:
            raise sample_error(path, key, "paug.json", "no_views", "no views; reinforce the shard first")
        item.view = views[0]
        return item

    def _pixels(self, item: Item, free: Iterator[np.ndarray]) -> Item:
        """Decode the picture, a JPEG no further than the view goes, and replay the view into the next free place."""
        names = item.index.extensions(item.number)
        data = item.index.member(item.number, next(name for name in names if name in EXTENSIONS))
        header = decoding.jpeg_header(data)
        image = None if header else decoding.pixels(data)
        size = (header.width, header.height) if header else image.shape[1::-1]
        # pictures that `shrinking` made smaller are replayed relative to their view's source
        smaller = size == (item.stored.get("width"), item.stored.get("height"))
        view = item.view or draw(rng(self.seed, "weak view", self.epoch, item.uid), *size, LIGHT)
        sha256 = (item.stored.get("sha256") if smaller else view.sha256) if self.verify else ""
        if sha256:
            self._verify(item, data, sha256)
        if image is None:
            image = decoding.pixels(data, pixel_box(view.crop, *size)[3] if sha256 else 0, header)
        mismatch = "ignore" if smaller else "error"
        wanted = self.image_size, self.interpolation, mismatch, self.resampling
        pixels = replay_pixels(image, view, *wanted, height=size[1])
        next(free)[:] = pixels  # at once, while they are in the processor's cache
        return item

    def _verify(self, item: Item, data: memoryview, sha256: str) -> None:
        """The picture's hash is the one kept with its views; looked at once, it does not change between two epochs."""
        if not item.index.verified[item.number]:
            if sha256_bytes(data) != sha256:
                detail = "the views were drawn for another picture"
                raise sample_error(item.index.path, item.key, "paug.json", "hash_mismatch", detail)
            item.index.verified[item.number] = 1

    def _rows(self, item: Item) -> Item:
        """Read every teacher's embedding of the view, the text and the chosen caption."""
        if not self.teachers:
            return item
        data = item.index.member(item.number, "emb.safetensors")
        if data is None:
            detail = "missing; reinforce the shard first"
            raise sample_error(item.index.path, item.key, "emb.safetensors", "no_embeddings", detail)
        try:
            table = storage.header(data)
            texts = [embedding_key(TEXT, teacher) for teacher in self.teachers]
            held = min(table[key].shape[0] if key in table else 1 for key in texts)
            item.text_row %= held  # folders made when only the first of several texts was embedded
            for teacher, key in zip(self.teachers, texts, strict=True):
                item.rows["image", teacher] = storage.rows(data, embedding_key(IMAGE, teacher), item.row, table)
                item.rows["text", teacher] = text = storage.rows(data, key, item.text_row, table)
                if item.caption is not None:
                    captioner, number, _ = item.caption
                    captions = embedding_key(caption_key(captioner), teacher)
                    text = storage.rows(data, captions, number, table)
                item.rows["syn_text", teacher] = text
            if not all(np.isfinite(row).all() for row in item.rows.values()):
                raise ValueError("a row is not finite")
        except ValueError as error:
            raise sample_error(item.index.path, item.key, "emb.safetensors", "bad_embeddings", str(error)) from error
        return item

    def _captions(self, path: str, key: str, parts: dict[str, bytes]) -> list[tuple[str, int, str]]:
        """(captioner, number, caption) of the captioners asked for."""
        if not self.captioners or "syn.json" not in parts:
            return []
        syn = load_json(path, key, "syn.json", parts)
        last = self.max_captions or None
        return [(c, i, text) for c in self.captioners for i, text in enumerate(syn.get(caption_key(c), [])[:last])]

    def _turn(self, uid: str, count: int, what: str) -> int:
        """The view, or the real text, of this epoch: all in turn from a random one on."""
        turn, place = divmod(self.epoch, count)
        return (pick(count, self.seed, what, turn, uid) + place) % count

    def _collate(self, items: list[Item], images: np.ndarray, dropped: Counter) -> Batch:
        import torch

        def rows(kind: str) -> dict[str, Tensor]:
            return {
                t: torch.from_numpy(np.stack([item.rows[kind, t] for item in items])) for t in self.teachers if items
            }

        captions = [item.text if item.caption is None else item.caption[2] for item in items]
        alone = self.texts != "sum"  # the captions are the batch's only texts
        return Batch(
            uids=[item.uid for item in items],
            images=torch.from_numpy(images).permute(0, 3, 1, 2),
            texts=captions if alone else [item.text for item in items],
            syn_texts=captions if self.captioners and not alone else None,
            image_embeddings=rows("image"),
            text_embeddings=rows("syn_text" if alone else "text"),
            syn_text_embeddings=rows("syn_text") if self.captioners and not alone else None,
            dropped=dict(dropped),
            image_ids=torch.tensor([pick(1 << 62, "image", item.image) for item in items], dtype=torch.long),
        )


@dataclass
class Item:
    """A sample on its way into a batch."""

    index: TarIndex
    number: int
    key: str
    uid: str
    texts: list[str]
    """The real texts."""
    stored: dict
    """Size and hash of a picture that was made smaller, else empty."""
    image: str
    """What tells the image from others: its hash, or the uid where there is none."""
    text_row: int = 0
    """Which of the real texts it is in this epoch."""
    view: View | None = None
    row: int = 0
    """The view's number among the stored ones."""
    caption: tuple[str, int, str] | None = None
    """(captioner, number, caption)"""
    rows: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The real text of this epoch."""
        return self.texts[self.text_row]


class _Steps:
    """A sequence of batches for torch's DataLoader, which hands numbers to workers in turn and keeps their order."""

    def __init__(self, dataset: ReinforcedDataset, numbers: range) -> None:
        self.dataset, self.numbers = dataset, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, place: int) -> Batch:
        return self.dataset.batch(self.numbers[place])
