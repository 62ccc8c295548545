"""Dataset reinforcement: store with every pair its views and all teachers' embeddings, once.

Paper: MobileCLIP (arXiv 2311.17049) section 4; MobileCLIP2 (arXiv 2508.20691) section 3. Reads a folder of pair shards
(captioned or not), writes a folder of reinforced shards, each with a small `.json` of its counts, and a manifest.
Differs from the official generator: every teacher sees its own replay of the full-size picture, never another teacher's
resized pixels; a bad sample is counted and leaves its neighbours' rows where they are; the result depends neither on
the batch size nor on interruptions. Taught by notebooks/20_reinforce.ipynb.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import augment, engines, shards
from .shards import Sample
from .stages import Work, pretty, read_manifest, rng, sha256_bytes, sha256_file, write_atomic

if TYPE_CHECKING:
    from torch import Tensor

    from .models.teachers import TeacherEnsemble
    from .recipes import Reinforce

VERSION = 1
PIECE = {"cpu": 32}
"""Images or texts in one forward pass, always padded to this number: libraries for matrices round differently at other
shapes, so a shape that depended on the settings would make the stored bytes depend on them."""
GPU_PIECE = 256


def reinforce(
    settings: Reinforce,
    pairs: str | os.PathLike,
    out: str | os.PathLike,
    engine: str = "local",
    ensemble: TeacherEnsemble | None = None,
    workers: int = 1,
    precision: str = "fp32",
    compile: bool = False,
    threads: int = 0,
) -> dict:
    """Reinforce a folder of pair shards; finished shards of an interrupted run are kept.

    Args:
        settings: teachers, views, storage and layout (`recipes.Reinforce`).
        pairs: folder with shards and a manifest, captioned or not.
        out: folder to write.
        engine: `local` or `ray` (`engines.run`), with `workers` actors.
        ensemble: teachers already loaded, with the interface of `models.teachers.TeacherEnsemble`; None loads
            `settings.teachers`.
        precision: `fp32`, or `bf16` for autocast; part of what is stored, so part of the work's identity.
        compile: `torch.compile` the teachers.
        threads: decode and replay ahead in so many threads.

    Returns:
        The manifest, with `teachers`, `captioners`, `shards` (name, sha256, samples, dropped by reason) and totals.

    Raises:
        StageMismatch: `out` holds other work. FolderLocked: another process writes `out`.
        FileNotFoundError: `pairs` is unfinished.
    """
    ensemble = ensemble if ensemble is not None else _load(settings.teachers)
    pairs, out = Path(pairs), Path(out)
    identity = {k: v for k, v in dataclasses.asdict(settings).items() if k not in ("batch_size", "teachers")}
    identity |= {"precision": precision, "compile": compile}
    teachers = [describe(ensemble, name) for name in ensemble.names]
    work = Work(out, "reinforce", VERSION, identity, {"pairs": pairs, "teachers": teachers})
    if done := work.done():
        return done
    with work.lock():
        if done := work.done():
            return done
        work.begin()
        make = functools.partial(ShardReinforcer, settings, pairs, out, work.key, ensemble, precision, compile, threads)
        expected = {shard["name"]: shard.get("samples") for shard in read_manifest(pairs)["shards"]}
        records = list(engines.run(make, expected.items(), engine, workers))
        return work.commit(**summary(records, teachers))


def _load(names: Sequence[str]) -> TeacherEnsemble:
    from .models.teachers import load_teachers

    return load_teachers(names)


def describe(ensemble: TeacherEnsemble, name: str) -> dict:
    """What the manifest says of a teacher: enough to know that two runs used the same one."""
    card = getattr(ensemble, "cards", {}).get(name, {})
    known = {key: card[key] for key in ("sha256", "mean", "std", "tokenizer") if key in card}
    return {
        "name": name,
        "logit_scale": float(ensemble.logit_scales[name]),
        "image_size": int(ensemble.image_size(name)),
        "interpolation": ensemble.interpolation(name),
        **known,
    }


def summary(records: Sequence[dict], teachers: Sequence[dict]) -> dict:
    """The manifest's content from the shards' records."""
    dropped = Counter()
    for record in records:
        dropped.update(record["dropped"])
    dimensions = {name: size for record in records for name, size in record["dimensions"].items()}
    return {
        "sample_schema": shards.SCHEMA,
        "teachers": [{**teacher, "dimension": dimensions.get(teacher["name"])} for teacher in teachers],
        "captioners": sorted({name for record in records for name in record["captioners"]}),
        "samples": sum(record["samples"] for record in records),
        "bytes": sum(record["bytes"] for record in records),
        "dropped": dict(sorted(dropped.items())),
        "shards": [
            {key: record[key] for key in ("name", "sha256", "samples", "bytes", "dropped")} for record in records
        ],
    }


class ShardReinforcer:
    """Reinforces one shard after another with teachers that stay in memory; engine-free."""

    def __init__(
        self,
        settings: Reinforce,
        pairs: Path,
        out: Path,
        key: str,
        ensemble: TeacherEnsemble,
        precision: str = "fp32",
        compile: bool = False,
        threads: int = 0,
    ) -> None:
        self.settings, self.pairs, self.out, self.key, self.ensemble = settings, pairs, out, key, ensemble
        self.embed = Embedder(ensemble, settings.batch_size, precision, compile)
        self.threads = threads

    def __call__(self, item: tuple[str, int | None]) -> dict:
        """Make one shard, unless it is there already, whole and of this work. Returns its record."""
        name, expected = item
        target, record = self.out / name, self.out / f"{Path(name).stem}.json"
        if found := finished(target, record, self.key):
            return found
        dropped: Counter = Counter()
        seen = Counter()
        samples = self.samples(shards.read_samples(self.pairs / name, dropped), dropped, seen)
        if self.settings.layout == "datacompdr":
            from . import datacompdr

            info = datacompdr.write_official(target, samples, self.ensemble.names, dtype=self.settings.storage)
        else:
            info = shards.write_shard(target, samples, self.settings.storage)
        if dropped["damaged_tar"] and expected is not None:  # count samples, not tars
            dropped["damaged_tar"] = (
                expected - info.samples - sum(n for why, n in dropped.items() if why != "damaged_tar")
            )
        content = {
            "key": self.key,
            "name": name,
            **info._asdict(),
            "dropped": dict(sorted((+dropped).items())),
            "captioners": sorted(name.removeprefix("captioner:") for name in seen if name.startswith("captioner:")),
            "dimensions": self.embed.dimensions,
        }
        write_atomic(record, pretty(content))
        return content

    def samples(self, source: Iterator[Sample], dropped: Counter, seen: Counter) -> Iterator[Sample]:
        """Reinforced samples in the order of the source; bad ones are counted in `dropped`."""
        waiting: deque[tuple[Sample, dict[str, int]]] = deque()
        uids: set[str] = set()
        for prepared in _ahead(self.prepare, source, self.threads):
            if isinstance(prepared, str):
                dropped[prepared] += 1
                continue
            sample, pictures = prepared
            if sample.uid in uids:
                dropped["duplicate_uid"] += 1
                continue
            uids.add(sample.uid)
            seen.update(f"captioner:{name}" for name in sample.syn_texts)
            waiting.append((sample, self.embed.push(sample, pictures)))
            yield from self._complete(waiting)
        self.embed.flush()
        yield from self._complete(waiting)

    def prepare(self, sample: Sample) -> tuple[Sample, dict[str, list[np.ndarray]]] | str:
        """A sample with its views drawn, and every teacher's pixels of them; or the reason why it cannot be used."""
        try:
            image = augment.decode(sample.image)
        except augment.BadImage as error:
            return error.reason
        sha256 = sha256_bytes(sample.image)
        if sample.meta.get("sha256", sha256) != sha256:
            return "hash_mismatch"
        if not sample.text.strip():
            return "empty_text"
        chance = rng(self.settings.seed, "views", sample.uid)
        views = [
            augment.draw(chance, image.width, image.height, self.settings.augment, sha256)
            for _ in range(self.settings.views)
        ]
        pictures = {
            name: [np.asarray(augment.replay(image, view, size, interpolation)) for view in views]
            for name, size, interpolation in (
                (name, self.ensemble.image_size(name), self.ensemble.interpolation(name))
                for name in self.ensemble.names
            )
        }
        return dataclasses.replace(sample, views=views, embeddings={}), pictures

    def _complete(self, waiting: deque) -> Iterator[Sample]:
        """Samples at the front whose rows have all been computed."""
        while waiting and self.embed.ready(waiting[0][0]):
            sample, _ = waiting.popleft()
            yield dataclasses.replace(sample, embeddings=self.embed.pop(sample))


def finished(target: Path, record: Path, key: str) -> dict | None:
    """The record of a shard that this work has finished, None if it must be made; a damaged tar is made again."""
    if not target.is_file() or not record.is_file():
        return None
    try:
        found = json.loads(record.read_text("utf-8"))
    except ValueError:
        return None
    if found.get("key") != key or found.get("sha256") != sha256_file(target):
        return None
    return found


def _ahead(function: Callable, source: Iterator, threads: int) -> Iterator:
    """`map`, with up to two items a thread under way; the order stays."""
    if not threads:
        yield from map(function, source)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(threads) as pool:
        waiting: deque = deque()
        for item in source:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


class Embedder:
    """All teachers' rows of a stream of samples, from forward passes of one fixed shape.

    Pictures and texts queue up per teacher, and leave in pieces of `PIECE`, counted from the start of the shard; only
    the last is padded. So a row's neighbours in its pass, and with them its bits, do not depend on the batch size.
    """

    def __init__(
        self, ensemble: TeacherEnsemble, batch_size: int, precision: str = "fp32", compile: bool = False
    ) -> None:
        import torch

        if precision not in ("fp32", "bf16"):
            raise ValueError(f"precision {precision!r} is not fp32 or bf16")
        self.ensemble, self.precision = ensemble, precision
        parameter = next(iter(ensemble.parameters()), None) if isinstance(ensemble, torch.nn.Module) else None
        self.device = parameter.device.type if parameter is not None else "cpu"
        piece = PIECE.get(self.device, GPU_PIECE)
        if isinstance(ensemble, torch.nn.Module):
            ensemble.eval().to(memory_format=torch.channels_last)
        embed_images = torch.compile(ensemble.embed_images) if compile else ensemble.embed_images
        self.queues = {}
        for name in ensemble.names:
            self.queues["image", name] = Queue(functools.partial(self._images, embed_images, name), piece, batch_size)
            self.queues["text", name] = Queue(functools.partial(self._texts, name), piece, batch_size)

    @property
    def dimensions(self) -> dict[str, int]:
        """Teacher -> dimension, of the teachers that have embedded something."""
        return {name: queue.width for (kind, name), queue in self.queues.items() if kind == "image" and queue.width}

    def _images(self, embed: Callable, name: str, pictures: list[np.ndarray]) -> Tensor:
        import torch

        return self._pass(embed, name, torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2))

    def _texts(self, name: str, texts: list[str]) -> Tensor:
        return self._pass(self.ensemble.embed_texts, name, texts)

    def _pass(self, embed: Callable, name: str, batch: Any) -> Tensor:
        import torch

        with torch.inference_mode(), torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16"):
            return embed(name, batch).float().cpu()

    def push(self, sample: Sample, pictures: dict[str, list[np.ndarray]]) -> dict[str, int]:
        """Queue a sample's pictures and texts."""
        texts = [sample.text, *(text for name in sorted(sample.syn_texts) for text in sample.syn_texts[name])]
        for (kind, name), queue in self.queues.items():
            queue.push(pictures[name] if kind == "image" else texts)
        return {}

    def ready(self, sample: Sample) -> bool:
        """Whether all rows of the sample, the oldest in the queues, are there."""
        texts = 1 + sum(map(len, sample.syn_texts.values()))
        return all(
            len(queue.rows) >= (len(sample.views) if kind == "image" else texts)
            for (kind, _), queue in self.queues.items()
        )

    def pop(self, sample: Sample) -> dict[str, Tensor]:
        """The rows of the oldest sample, by the names of the sample's schema."""
        out = {}
        for (kind, name), queue in self.queues.items():
            if kind == "image":
                if sample.views:
                    out[f"image/{name}"] = queue.pop(len(sample.views))
                continue
            out[f"text/{name}"] = queue.pop(1)
            for captioner in sorted(sample.syn_texts):
                if sample.syn_texts[captioner]:
                    out[f"syn_text_{captioner}/{name}"] = queue.pop(len(sample.syn_texts[captioner]))
        return out

    def flush(self) -> None:
        """Embed what is left, padded."""
        for queue in self.queues.values():
            queue.flush()


class Queue:
    """Items of one teacher waiting for a forward pass, and the rows that came out of it."""

    def __init__(self, embed: Callable[[list], Tensor], piece: int, batch_size: int) -> None:
        self.embed, self.piece, self.batch_size = embed, piece, max(piece, batch_size)
        self.items: list = []
        self.rows: deque = deque()
        self.width = 0

    def push(self, items: Sequence) -> None:
        """Add items; with `batch_size` of them, embed all whole pieces."""
        self.items += items
        if len(self.items) >= self.batch_size:
            self._run(len(self.items) // self.piece)

    def flush(self) -> None:
        """Embed all items; the last piece is filled up with copies of its last item."""
        if self.items:
            count = len(self.items)
            rest = -count % self.piece
            self.items += [self.items[-1]] * rest
            self._run(len(self.items) // self.piece)
            for _ in range(rest):
                self.rows.pop()

    def _run(self, pieces: int) -> None:
        for _ in range(pieces):
            piece, self.items = self.items[: self.piece], self.items[self.piece :]
            rows = self.embed(piece)
            if rows.ndim != 2 or len(rows) != self.piece:
                raise ValueError(f"a teacher gave rows of shape {tuple(rows.shape)} for {self.piece} items")
            self.width = rows.shape[1]
            self.rows.extend(rows.unbind())

    def pop(self, count: int) -> Tensor:
        """The oldest `count` rows as (count, D)."""
        import torch

        return torch.stack([self.rows.popleft() for _ in range(count)])
