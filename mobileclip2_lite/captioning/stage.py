"""Synthetic captions: every captioner writes about every image of a folder of pairs, once.

Paper: MobileCLIP2 (arXiv 2508.20691) section 3, captions by CoCa with top-p sampling, five an image. Reads a folder of
pair shards, writes a folder of the same shards whose samples have `syn.json` {"syn_text_<captioner>": [..]} beside what
was there, each with a small `.json` of its counts, and a manifest. Differs from the official generator: several
captioners in one go, each with its own preprocess of the full-size image; a bad image is counted and leaves its
neighbours' captions as they are; the result depends neither on the batch size nor on interruptions.
Taught by notebooks/20_captioner_finetuning.ipynb.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mobileclip2_lite.models.embedded import Travelling, load
from mobileclip2_lite.shards import samples as shards
from mobileclip2_lite.shards.keys import caption_key
from mobileclip2_lite.shards.tars import count_lost, write_tar
from mobileclip2_lite.shards.usable import Usable, usable
from mobileclip2_lite.work.crew import Spread
from mobileclip2_lite.work.files import to_json
from mobileclip2_lite.work.folder import Work, read_manifest
from mobileclip2_lite.work.place import place_of
from mobileclip2_lite.work.randomness import rng
from mobileclip2_lite.work.records import totals
from mobileclip2_lite.work.shardwise import make_shards

if TYPE_CHECKING:
    from PIL import Image

    from mobileclip2_lite.captioning import generation
    from mobileclip2_lite.models.loaded import LoadedModel
    from mobileclip2_lite.recipes import Caption, Generate

VERSION = 1
"""Raise it when this stage, or what a captioner writes with the same settings, changes."""
PIECE = 128
"""Images given to a captioner at a time, counted from the start of the shard: a group that depended on the settings
could, by the last bits of its sums, make captions depend on them."""
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@-]*")
_NOT_KEPT = {"schema", "key", "stage", "version", "settings", "inputs"}
"""Parts of a manifest that say how that folder was made; all others are facts about its pairs."""


def caption(
    settings: Caption,
    pairs: str | os.PathLike,
    out: str | os.PathLike,
    captioners: Mapping[str, LoadedModel] | None = None,
    precision: str = "fp32",
    device: str | None = None,
    spread: Spread | None = None,
) -> dict:
    """Write captions for a folder of pair shards; finished shards of an interrupted run are kept.

    Captions that were there stay. Those of a captioner of the same name are replaced: `pairs` itself is only read.

    Args:
        settings: captioners and decoding (`recipes.Caption`).
        pairs: folder with shards and a manifest, captioned already or not, not reinforced.
        out: folder to write.
        spread: over which workers (`crew.Spread`); None for this process.
        captioners: loaded already, by the name under which their captions are kept; None loads `settings.captioners`.
        precision: `fp32`, or `bf16` for autocast; part of the work's identity, since it changes captions.
        device: where each worker puts the captioners (`embedded.pick_device`); None leaves given ones where they are,
            and takes a CUDA GPU, if there is one, for named ones.

    Returns:
        The manifest, with `captioners` (a card each: weights' SHA-256, preprocess, decoding), `captions` (number by
        captioner), `shards` (name, sha256, samples, dropped by reason), totals, and what the manifest of `pairs` says
        of the pairs.

    Raises:
        ValueError: no captioner, two of one name, a name that cannot be a key, or a setting without such a value;
            `pairs` is reinforced, so that new captions would lack their embeddings.
        StageMismatch: `out` holds other work. FolderLocked: another process writes `out`.
        FileNotFoundError: `pairs` is unfinished, or an embedded captioner is missing.
    """
    from mobileclip2_lite.captioning import generation

    pairs, out = place_of(pairs), place_of(out)
    source = read_manifest(pairs)
    _check(settings, precision, pairs, source)
    loaded = _load(settings.captioners) if captioners is None else dict(captioners)
    device = device or ("auto" if captioners is None else None)
    for item in loaded.values():
        generation.check(settings.generate, item.model)
    cards = [describe(name, loaded[name]) for name in loaded]
    identity = {k: v for k, v in to_json(settings).items() if k not in ("batch_size", "captioners")}
    identity |= {"precision": precision}
    work = Work(out, "caption", VERSION, identity, {"pairs": pairs, "captioners": cards})
    sent = {name: Travelling(item, device) for name, item in loaded.items()}
    expected = {shard["name"]: shard.get("samples") for shard in source["shards"]}
    make = functools.partial(ShardCaptioner, settings, pairs, expected, sent, precision)
    summarise = functools.partial(summary, source=source, cards=[{**card, **identity} for card in cards])
    return make_shards(work, expected, make, summarise, spread)


def _check(settings: Caption, precision: str, pairs: Path, source: dict) -> None:
    if precision not in ("fp32", "bf16"):
        raise ValueError(f"precision {precision!r} is not fp32 or bf16")
    if settings.batch_size < 1:
        raise ValueError(f"batch_size must be 1 or more, not {settings.batch_size}")
    if source.get("teachers"):
        raise ValueError(
            f"{pairs} is reinforced: new captions would lack the teachers' embeddings. Caption the pairs it was made "
            "from, and reinforce what comes out"
        )


def captioner_key(name: str | os.PathLike) -> str:
    """The name under which a captioner's captions are kept: the last part of a folder's or repository's name.

    Raises:
        ValueError: nothing of the name is left.
    """
    last = Path(name).resolve().name if Path(name).is_dir() else re.split(r"[/\\:]", os.fspath(name))[-1]
    key = re.sub(r"[^A-Za-z0-9._@-]+", "-", last).strip("-.@")
    if not key:
        raise ValueError(f"captioner {os.fspath(name)!r} has no name to keep its captions under: rename its folder")
    return key


def _load(names: Sequence[str]) -> dict[str, LoadedModel]:
    keys = Counter(captioner_key(name) for name in names)
    if not names or max(keys.values()) > 1:
        raise ValueError(f"captioners must be one or more, of different names (by their last part), not {names}")
    return {captioner_key(name): load(name, "captioner", "cpu") for name in names}  # workers move them


def caption_pictures(
    loaded: LoadedModel,
    pictures: Iterable[Image.Image | np.ndarray],
    settings: Generate,
    seed: int = 0,
    uids: Sequence[str] | None = None,
    name: str = "",
) -> list[list[generation.Caption]]:
    """Captions of N images in memory: N lists of `generation.Caption`.

    Args:
        loaded: the captioner.
        pictures: of any size, PIL images or uint8 (H, W, 3).
        settings: decoding (`recipes.Generate`).
        seed, uids, name: as the stage has them, for the captions that it would write; without uids an image's index
            stands for its own.
    """
    import torch

    from mobileclip2_lite.captioning import generation
    from mobileclip2_lite.views.images import read_image

    pixels = np.stack([np.asarray(loaded.preprocess.resize(read_image(one))) for one in pictures])
    uids = [str(place) for place in range(len(pixels))] if uids is None else uids
    rngs = [rng(seed, "caption", name, uid) for uid in uids]
    return generation.generate(loaded, torch.from_numpy(pixels).permute(0, 3, 1, 2), settings, rngs=rngs)


def describe(name: str, loaded: LoadedModel) -> dict:
    """What the manifest says of a captioner: enough to know that two runs used the same one.

    Raises:
        ValueError: the name cannot be part of a key.
    """
    from mobileclip2_lite.models.card import digest

    if not _NAME.fullmatch(name):
        raise ValueError(
            f"captioner name {name!r} may hold letters, digits and . _ - @ only, and starts with none of .-@"
        )
    text = getattr(loaded.model, "model_cfg", {}).get("multimodal_cfg", {})
    tokenizer = {key: text[key] for key in ("vocab_size", "context_length") if key in text}
    return {
        "name": name,
        "sha256": digest(loaded.model),
        "preprocess": loaded.preprocess.to_config(),
        **({"tokenizer": tokenizer} if tokenizer else {}),
    }


def summary(records: Sequence[dict], source: dict, cards: Sequence[dict]) -> dict:
    """The manifest's content from the shards' records and the manifest of the pairs."""
    captions = Counter()
    for record in records:
        captions.update(record["captions"])
    before = [card for card in source.get("captioners", []) if card["name"] not in {new["name"] for new in cards}]
    return {
        **{key: value for key, value in source.items() if key not in _NOT_KEPT},
        "sample_schema": shards.SCHEMA,
        "captioners": [*before, *cards],
        "captions": dict(sorted(captions.items())),
        **totals(records),
    }


class Waiting(NamedTuple):
    """A sample that waits for its captions."""

    uid: str
    members: dict[str, bytes]
    """By extension, as they are in the shard."""
    captions: dict
    """Content of its `syn.json`."""
    pixels: dict[str, np.ndarray]
    """Captioner -> uint8 (S, S, 3)."""


class ShardCaptioner:
    """Captions one shard after another with captioners that stay in memory; engine-free."""

    def __init__(
        self,
        settings: Caption,
        pairs: Path,
        expected: Mapping[str, int | None],
        captioners: Mapping[str, Travelling],
        precision: str = "fp32",
    ) -> None:
        self.settings, self.pairs, self.expected = settings, pairs, expected
        self.captioners = {name: captioner.here() for name, captioner in captioners.items()}
        self.precision = precision
        self.gathered = -(-settings.batch_size // PIECE) * PIECE

    def __call__(self, target: Path) -> dict:
        """Write one shard; the content of its record."""
        dropped: Counter = Counter()
        captions: Counter = Counter()
        info = write_tar(target, self.samples(self.pairs / target.name, dropped, captions))
        count_lost(dropped, self.expected[target.name], info.samples)
        counts = {"dropped": dict(sorted((+dropped).items())), "captions": dict(sorted(captions.items()))}
        return {**info._asdict(), **counts}

    def samples(self, path: Path, dropped: Counter, captions: Counter) -> Iterator[tuple[str, dict[str, bytes]]]:
        """(uid, members) of captioned samples in the order of the shard; bad ones are counted in `dropped`."""
        waiting: list[Waiting] = []
        for item in usable(path, dropped, need_text=False, prepare=self.resized):
            uid, members = item.sample.uid, item.members
            written = shards.load_json(str(path), uid, "syn.json", members) if "syn.json" in members else {}
            waiting.append(Waiting(uid, members, written, item.prepared))
            if len(waiting) == self.gathered:
                yield from self._captioned(waiting, captions)
                waiting = []
        yield from self._captioned(waiting, captions)

    def resized(self, item: Usable) -> dict[str, np.ndarray]:
        """Every captioner's pixels of an image."""
        from PIL import Image

        image, resized = Image.fromarray(item.pixels), {}  # captioners that take the same size share their pixels
        for loaded in self.captioners.values():
            kind = _kind(loaded)
            resized[kind] = resized[kind] if kind in resized else np.asarray(loaded.preprocess.resize(image))
        return {name: resized[_kind(loaded)] for name, loaded in self.captioners.items()}

    def _captioned(self, waiting: Sequence[Waiting], captions: Counter) -> Iterator[tuple[str, dict[str, bytes]]]:
        """The members of gathered samples, with all captioners' captions."""
        for start in range(0, len(waiting), PIECE):
            piece = waiting[start : start + PIECE]
            texts = {name: self._write(name, piece) for name in self.captioners}
            for number, item in enumerate(piece):
                own = {caption_key(name): texts[name][number] for name in texts}
                captions.update({name: len(texts[name][number]) for name in texts})
                content = json.dumps({**item.captions, **own}, separators=(",", ":"))
                yield item.uid, {**item.members, "syn.json": content.encode()}

    def _write(self, name: str, piece: Sequence[Waiting]) -> list[list[str]]:
        """One captioner's captions of each image, empty ones left out."""
        import torch

        from mobileclip2_lite.captioning import generation

        rngs = [rng(self.settings.seed, "caption", name, item.uid) for item in piece]
        images = torch.from_numpy(np.stack([item.pixels[name] for item in piece])).permute(0, 3, 1, 2)
        written = generation.generate(
            self.captioners[name], images, self.settings.generate, rngs=rngs, precision=self.precision
        )
        if len(written) != len(piece):
            raise ValueError(f"captioner {name} gave captions of {len(written)} images for {len(piece)}")
        return [[text for one in captions if (text := one.text.strip())] for captions in written]


def _kind(loaded: LoadedModel) -> tuple:
    return loaded.preprocess.image_size, loaded.preprocess.interpolation, loaded.preprocess.resize_mode
