"""A smaller copy of reinforced shards: images stored near the training size, so that decoding them costs less.

The paper stores full images. Here the teachers have seen those, and the student then sees views cut from the smaller
ones, so pixels differ (docs/lab_log.md has by how much a teacher's embedding moves). Views and embeddings are kept as
they are.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from mobileclip2_lite.shards import samples as shards
from mobileclip2_lite.shards.samples import Sample
from mobileclip2_lite.views.decoding import decode
from mobileclip2_lite.work.crew import Spread
from mobileclip2_lite.work.files import sha256_bytes, write_atomic
from mobileclip2_lite.work.folder import Work, read_manifest
from mobileclip2_lite.work.place import place_of
from mobileclip2_lite.work.records import listed
from mobileclip2_lite.work.shardwise import make_shards


def shrink(
    folder: str | os.PathLike,
    out: str | os.PathLike,
    side: int = 256,
    quality: int = 85,
    spread: Spread | None = None,
) -> dict:
    """Copy reinforced shards with images whose shorter side is at most `side` pixels; a killed run goes on.

    Args:
        side: shorter side in pixels; smaller images are kept untouched.
        quality: of the new JPEGs, 1 to 95.
        spread: over which workers (`crew.Spread`); None for this process.

    Returns:
        The manifest: that of `folder` with other shards; `reinforced` says how its rows and views were stored. A
        `temperature.json` beside it is copied.

    Raises:
        StageMismatch: `out` holds other work. FolderLocked: another process writes `out`.
    """
    folder, out = place_of(folder), place_of(out)
    work = Work(out, "shrink", 1, {"side": side, "quality": quality}, {"reinforced": folder})
    manifest = read_manifest(folder)
    make = functools.partial(ShardShrinker, folder, stored_as(folder, manifest)["storage"], side, quality)
    names = [shard["name"] for shard in manifest["shards"]]
    found = make_shards(work, names, make, functools.partial(_summary, folder=folder, manifest=manifest), spread)
    if (folder / TUNED).is_file() and not (out / TUNED).is_file():  # a search of the copy's own goes before
        write_atomic(out / TUNED, (folder / TUNED).read_bytes())
    return found


def stored_as(folder: Path, manifest: dict) -> dict:
    """How rows and views of a reinforced folder, or of a copy of one, were stored: `storage`, `layout`, `augment`, ...

    Raises:
        ValueError: the manifest does not say.
    """
    said = {**manifest.get("settings", {}), **manifest.get("reinforced", {})}
    if "storage" not in said:
        raise ValueError(
            f"{folder / 'manifest.json'} does not say how embeddings are stored: it is no reinforced folder"
        )
    return {key: said[key] for key in ("storage", "layout", "augment", "views", "seed", "precision") if key in said}


_TOLD = ("sample_schema", "teachers", "captioners", "texts", "captions", "samples")
"""What a copy's manifest says as its original's does."""


def _summary(records: Sequence[dict], folder: Path, manifest: dict) -> dict:
    """The manifest's content: what that of the reinforced folder says of its samples, with other shards."""
    kept = {k: manifest[k] for k in _TOLD if k in manifest}
    kept["reinforced"] = stored_as(folder, manifest)
    made = listed(records)
    return {**kept, "bytes": sum(record["bytes"] for record in made), "dropped": {}, "shards": made}


TUNED = "temperature.json"
"""Beside a manifest: teacher -> logit scale found by `studies.temperature`; goes before the manifest's."""


class ShardShrinker:
    """Copies one shard after another with smaller images."""

    def __init__(self, folder: Path, storage: str, side: int, quality: int) -> None:
        self.folder, self.storage, self.side, self.quality = folder, storage, side, quality

    def __call__(self, target: Path) -> dict:
        """Write one shard; the content of its record."""
        source = shards.read_samples(self.folder / target.name)
        samples = (shrunk(sample, self.side, self.quality) for sample in source)
        return {**shards.write_shard(target, samples, self.storage)._asdict(), "dropped": {}}


def shrunk(sample: Sample, side: int, quality: int) -> Sample:
    """One sample with a smaller image; `meta["stored"]` then has its size and hash."""
    image = decode(sample.image)
    if min(image.size) <= side:
        return sample
    scale = side / min(image.size)
    image = image.resize(
        tuple(max(side, round(length * scale)) for length in image.size), Image.Resampling.BICUBIC, reducing_gap=3.0
    )
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    data = buffer.getvalue()
    stored = {"width": image.width, "height": image.height, "sha256": sha256_bytes(data)}
    return dataclasses.replace(sample, image=data, ext="jpg", meta={**sample.meta, "stored": stored})
