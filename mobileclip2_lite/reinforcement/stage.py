"""Dataset reinforcement: store with every pair its views and all teachers' embeddings, once.

Paper: MobileCLIP (arXiv 2311.17049) section 4; MobileCLIP2 (arXiv 2508.20691) section 3. Reads a folder of pair shards
(captioned or not), writes a folder of reinforced shards, each with a small `.json` of its counts, and a manifest.
Differs from the official generator: every teacher sees its own replay of the full-size image, never another teacher's
resized pixels; a bad sample is counted and leaves its neighbours' rows where they are; the result depends neither on
the batch size nor on interruptions. Taught by notebooks/00_start_here.ipynb.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mobileclip2_lite.models.card import TeacherCard
from mobileclip2_lite.models.embedded import Travelling
from mobileclip2_lite.reinforcement.embedder import Embedder
from mobileclip2_lite.shards import embeddings as storage
from mobileclip2_lite.shards import samples as shards
from mobileclip2_lite.shards.samples import Sample
from mobileclip2_lite.shards.tars import count_lost
from mobileclip2_lite.shards.text_count import TextCount, total_texts
from mobileclip2_lite.shards.usable import Usable, usable
from mobileclip2_lite.views.drawing import draw
from mobileclip2_lite.views.replay import replay
from mobileclip2_lite.work.crew import Spread
from mobileclip2_lite.work.files import pretty, write_atomic
from mobileclip2_lite.work.folder import Work, read_manifest
from mobileclip2_lite.work.place import place_of
from mobileclip2_lite.work.randomness import rng
from mobileclip2_lite.work.records import totals
from mobileclip2_lite.work.shardwise import make_shards

if TYPE_CHECKING:
    from mobileclip2_lite.models.ensemble import TeacherEnsemble
    from mobileclip2_lite.recipes import Reinforce

VERSION = 2


def reinforce(
    settings: Reinforce,
    pairs: str | os.PathLike,
    out: str | os.PathLike,
    ensemble: TeacherEnsemble | None = None,
    precision: str = "fp32",
    compile: bool = False,
    threads: int = 0,
    device: str | None = None,
    spread: Spread | None = None,
) -> dict:
    """Reinforce a folder of pair shards; finished shards of an interrupted run are kept.

    Args:
        settings: teachers, views, storage and layout (`recipes.Reinforce`).
        pairs: folder with shards and a manifest, captioned or not.
        out: folder to write.
        spread: over which workers (`crew.Spread`); None for this process.
        ensemble: teachers already loaded, with the interface of `models.ensemble.TeacherEnsemble`; None loads
            `settings.teachers`.
        precision: `fp32`, or `bf16` for autocast; part of what is stored, so part of the work's identity.
        compile: `torch.compile` the teachers.
        threads: decode and replay ahead in so many threads.
        device: where each worker puts the teachers (`embedded.pick_device`); None leaves given ones where they are, and
            takes a CUDA GPU, if there is one, for named ones.

    Returns:
        The manifest, with `teachers`, `captioners`, `shards` (name, sha256, samples, dropped by reason) and totals,
        among them `texts` and, by captioner, `captions`: how many real and synthetic texts each teacher has embedded.

    Raises:
        ValueError: a setting has no such value, or the layout cannot hold it.
        StageMismatch: `out` holds other work (a logit scale is none). FolderLocked: another process writes `out`.
        FileNotFoundError: `pairs` is unfinished.
    """
    _check(settings)
    device = device or ("auto" if ensemble is None else None)
    if ensemble is None:
        from mobileclip2_lite.models.teachers import load_teachers

        ensemble = load_teachers(settings.teachers)
    pairs, out = place_of(pairs), place_of(out)
    identity = {k: v for k, v in dataclasses.asdict(settings).items() if k not in ("batch_size", "teachers")}
    identity |= {"precision": precision, "compile": compile}
    teachers = [describe(ensemble, name) for name in ensemble.names]
    same = [teacher.embeds() for teacher in teachers]
    work = Work(out, "reinforce", VERSION, identity, {"pairs": pairs, "teachers": same})
    expected = {shard["name"]: shard.get("samples") for shard in read_manifest(pairs)["shards"]}
    sent = Travelling(ensemble, device)
    make = functools.partial(ShardReinforcer, settings, pairs, expected, sent, precision, compile, threads)
    found = make_shards(work, expected, make, functools.partial(summary, teachers=teachers), spread)
    manifest = with_scales(found, teachers)
    if found != manifest and isinstance(work.folder, Path):  # in a store a manifest stays as it was written
        with work.lock():
            write_atomic(out / "manifest.json", pretty(manifest))
    return manifest


def _check(settings: Reinforce) -> None:
    if settings.layout not in ("native", "datacompdr"):
        raise ValueError(f"layout {settings.layout!r} is not native or datacompdr")
    if settings.storage not in storage.STORAGE:
        raise ValueError(f"storage {settings.storage!r} is not one of {', '.join(storage.STORAGE)}")
    whole = settings.storage in ("bf16", "fp32")
    if settings.layout == "datacompdr" and (settings.augment.flip or settings.augment.erase or not whole):
        raise ValueError(
            "layout datacompdr has no flip, no erasing and no integers: set flip=0, erase=0, storage bf16 or fp32"
        )


def describe(ensemble: TeacherEnsemble, name: str) -> TeacherCard:
    """What the manifest says of a teacher: enough to know that two runs used the same one, and how it scales logits."""
    seen = {"image_size": int(ensemble.image_size(name)), "interpolation": ensemble.interpolation(name)}
    scale = float(ensemble.logit_scales[name])
    card = getattr(ensemble, "cards", {}).get(name) or TeacherCard(name)
    return dataclasses.replace(card, name=name, logit_scale=scale, **seen)


def with_scales(manifest: dict, teachers: Sequence[TeacherCard]) -> dict:
    """A finished manifest with the teachers' present logit scales and biases.

    Nothing in a shard depends on them, so a scale tuned since (`temperature.use`) is no reason to embed again.
    """
    present = {teacher.name: teacher.to_json() for teacher in teachers}
    changing = ("logit_scale", "logit_bias", "source")
    known = [
        {**card, **{key: present[card["name"]][key] for key in changing if key in present[card["name"]]}}
        for card in manifest["teachers"]
    ]
    return {**manifest, "teachers": known}


def summary(records: Sequence[dict], teachers: Sequence[TeacherCard]) -> dict:
    """The manifest's content from the shards' records."""
    dimensions = {name: size for record in records for name, size in record["dimensions"].items()}
    return {
        "sample_schema": shards.SCHEMA,
        "teachers": [{**teacher.to_json(), "dimension": dimensions.get(teacher.name)} for teacher in teachers],
        **total_texts(records),
        **totals(records),
    }


class ShardReinforcer:
    """Reinforces one shard after another with teachers that stay in memory; engine-free."""

    def __init__(
        self,
        settings: Reinforce,
        pairs: Path,
        expected: Mapping[str, int | None],
        ensemble: Travelling,
        precision: str = "fp32",
        compile: bool = False,
        threads: int = 0,
    ) -> None:
        self.settings, self.pairs, self.expected, self.ensemble = settings, pairs, expected, ensemble.here()
        self.embed = Embedder(self.ensemble, settings.batch_size, precision, compile)
        self.threads = threads

    def __call__(self, target: Path) -> dict:
        """Write one shard; the content of its record."""
        dropped: Counter = Counter()
        texts = TextCount()
        self.embed.clear()
        samples = self.samples(self.pairs / target.name, dropped, texts)
        if self.settings.layout == "datacompdr":
            from mobileclip2_lite.shards import datacompdr

            info = datacompdr.write_official(target, samples, self.ensemble.names, dtype=self.settings.storage)
        else:
            info = shards.write_shard(target, samples, self.settings.storage)
        count_lost(dropped, self.expected[target.name], info.samples)
        return {
            **info._asdict(),
            "dropped": dict(sorted((+dropped).items())),
            **texts.to_json(),
            "dimensions": self.embed.dimensions,
        }

    def samples(self, path: Path, dropped: Counter, texts: TextCount) -> Iterator[Sample]:
        """Reinforced samples in the order of the shard, their texts counted; bad ones are counted in `dropped`."""
        waiting: deque[Sample] = deque()
        for item in usable(path, dropped, prepare=self.views, threads=self.threads):
            sample, images = item.prepared
            texts.add(sample)
            self.embed.push(sample, images)
            waiting.append(sample)
            yield from self._complete(waiting)
        self.embed.flush()
        yield from self._complete(waiting)

    def views(self, item: Usable) -> tuple[Sample, dict[str, list[np.ndarray]]]:
        """A sample with its views drawn, and every teacher's pixels of them."""
        settings, image = self.settings, item.pixels
        generator = rng(settings.seed, "views", item.sample.uid)
        views = [draw(generator, *image.shape[1::-1], settings.augment, item.sha256) for _ in range(settings.views)]
        kinds = {(self.ensemble.image_size(name), self.ensemble.interpolation(name)) for name in self.ensemble.names}
        # teachers that take the same size share their pixels; others have their own replay of the whole image
        replayed = {kind: [np.asarray(replay(image, view, *kind)) for view in views] for kind in kinds}
        images = {
            name: replayed[self.ensemble.image_size(name), self.ensemble.interpolation(name)]
            for name in self.ensemble.names
        }
        return dataclasses.replace(item.sample, views=views, embeddings={}), images

    def _complete(self, waiting: deque[Sample]) -> Iterator[Sample]:
        """Samples at the front whose rows have all been computed."""
        while waiting and self.embed.ready(waiting[0]):
            sample = waiting.popleft()
            yield dataclasses.replace(sample, embeddings=self.embed.pop(sample))
