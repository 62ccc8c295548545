"""One sample's way into a batch: which view, text and caption it is in this epoch, its pixels, its embeddings.

Paper: MobileCLIP (arXiv 2311.17049) section 4. Reads single members of reinforced shards, writes nothing. Every choice
follows from (seed, epoch, uid) alone, so that it does not depend on who reads it, or when. Differs from the official
loader: of a sample's embeddings only the one view's row is read, and a JPEG is decoded no further than the view goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

import numpy as np

from mobileclip2_lite.recipes import Augment
from mobileclip2_lite.shards import embeddings as storage
from mobileclip2_lite.shards.keys import IMAGE, TEXT, caption_key, embedding_key
from mobileclip2_lite.shards.samples import EXTENSIONS, decode_text, load_json, parse_views, real_texts, sample_error
from mobileclip2_lite.shards.tars import TarIndex
from mobileclip2_lite.views import decoding
from mobileclip2_lite.views.drawing import draw
from mobileclip2_lite.views.replay import replay_pixels
from mobileclip2_lite.views.view import View, pixel_box
from mobileclip2_lite.work.files import sha256_bytes
from mobileclip2_lite.work.randomness import pick, rng

LIGHT = Augment(scale=(0.9, 1.0), operations=0)
"""The light crop of `views="weak"`: open_clip's training crop."""
TEXTS = ("sum", "synthetic", "one")
"""Choices between real texts and synthetic captions; see `ReinforcedDataset`."""
SMALL = ("json", "paug.json", "syn.json", "txt")
"""Members that are read whole."""


def check_texts(texts: str, captioners: Sequence[str]) -> None:
    """Raise ValueError unless `texts` is a choice, and captioners write what it takes."""
    if texts not in TEXTS:
        raise ValueError(f"texts {texts!r} is not one of {', '.join(TEXTS)}")
    if texts != "sum" and not captioners:
        raise ValueError(f"texts={texts!r} takes synthetic captions: name their captioners, or set texts='sum'")


def turn(seed: int, epoch: int, uid: str, count: int, what: str) -> int:
    """Which of a sample's `count` views, or real texts, this epoch takes: all in turn from a random one on."""
    turns, place = divmod(epoch, count)
    return (pick(count, seed, what, turns, uid) + place) % count


@dataclass
class Item:
    """A sample on its way into a batch."""

    index: TarIndex
    number: int
    epoch: int
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


@dataclass(frozen=True)
class SampleReader:
    """What is read of a sample, and how it is chosen; the fields are those of `ReinforcedDataset`."""

    image_size: int
    seed: int = 0
    views: str = "stored"
    teachers: tuple[str, ...] = ()
    captioners: tuple[str, ...] = ()
    texts: str = "sum"
    max_views: int = 0
    max_captions: int = 0
    interpolation: str = "bilinear"
    resampling: str = "pil"
    verify: bool = True

    def plan(self, index: TarIndex, number: int, epoch: int) -> Item:
        """Choose view and caption of sample `number` of a shard, and read what is small.

        Raises:
            ShardError: the sample has no image, no views, or a member that cannot be read.
        """
        path, key, names = index.path, index.keys[number], index.extensions(number)
        if not any(name in EXTENSIONS for name in names):
            raise sample_error(path, key, "jpg|png|webp", "no_image", "missing; join the shards with images first")
        parts = {name: bytes(index.member(number, name)) for name in names if name in SMALL}
        meta = load_json(path, key, "json", parts) if "json" in parts else {}
        uid = str(meta.get("uid", unquote(key)))
        texts = real_texts(decode_text(path, key, "txt", parts), meta)
        item = Item(index, number, epoch, key, uid, texts, meta.get("stored") or {}, str(meta.get("sha256") or uid))
        item.text_row = turn(self.seed, epoch, uid, len(texts), "texts")
        if choices := self._captions(path, key, parts):
            item.caption = choices[pick(len(choices), self.seed, "caption", epoch, uid)]
            if self.texts == "one" and pick(2, self.seed, "real or synthetic", epoch, uid):
                item.caption = None
        if self.views == "weak":
            return item

        def choose(count: int) -> int:
            item.row = turn(self.seed, epoch, uid, min(count, self.max_views or count), "turns")
            return item.row

        views = parse_views(path, key, parts, meta, choose) if "paug.json" in parts else []
        if not views:
            raise sample_error(path, key, "paug.json", "no_views", "no views; reinforce the shard first")
        item.view = views[0]
        return item

    def pixels(self, item: Item) -> np.ndarray:
        """Decode the picture, a JPEG no further than the view goes, and replay the view: uint8 (S, S, 3).

        Raises:
            BadSample: the picture cannot be read, or is not the one that the views were drawn for.
        """
        names = item.index.extensions(item.number)
        data = item.index.member(item.number, next(name for name in names if name in EXTENSIONS))
        header = decoding.jpeg_header(data)
        image = None if header else decoding.pixels(data)
        size = (header.width, header.height) if header else image.shape[1::-1]
        # pictures that `shrinking` made smaller are replayed relative to their view's source
        smaller = size == (item.stored.get("width"), item.stored.get("height"))
        view = item.view or draw(rng(self.seed, "weak view", item.epoch, item.uid), *size, LIGHT)
        sha256 = (item.stored.get("sha256") if smaller else view.sha256) if self.verify else ""
        if sha256:
            self._verify(item, data, sha256)
        if image is None:
            image = decoding.pixels(data, pixel_box(view.crop, *size)[3] if sha256 else 0, header)
        mismatch = "ignore" if smaller else "error"
        wanted = self.image_size, self.interpolation, mismatch, self.resampling
        return replay_pixels(image, view, *wanted, height=size[1])

    def _verify(self, item: Item, data: memoryview, sha256: str) -> None:
        """The picture's hash is the one kept with its views; looked at once, it does not change between two epochs."""
        if not item.index.verified[item.number]:
            if sha256_bytes(data) != sha256:
                detail = "the views were drawn for another picture"
                raise sample_error(item.index.path, item.key, "paug.json", "hash_mismatch", detail)
            item.index.verified[item.number] = 1

    def rows(self, item: Item) -> Item:
        """Read every teacher's embedding of the view, the text and the chosen caption.

        Raises:
            ShardError: they are missing or damaged.
        """
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
