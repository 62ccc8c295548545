"""A smaller copy of reinforced shards: pictures stored near the training size, so that decoding them costs less.

Paper: none; ours. The teachers have seen the full pictures, the student then sees views cut from the smaller ones, so
pixels differ (docs/lab_log.md has by how much a teacher's embedding moves). Reads and writes a folder of reinforced
shards; views and embeddings are kept as they are.
"""

from __future__ import annotations

import dataclasses
import io
import os
from pathlib import Path

from PIL import Image

from mobileclip2_lite.shards import samples as shards
from mobileclip2_lite.shards.samples import Sample
from mobileclip2_lite.views.decoding import decode
from mobileclip2_lite.work.files import sha256_bytes
from mobileclip2_lite.work.folder import Work, read_manifest


def shrink(folder: str | os.PathLike, out: str | os.PathLike, side: int = 256, quality: int = 85) -> dict:
    """Copy reinforced shards with pictures whose shorter side is at most `side` pixels.

    Args:
        side: shorter side in pixels; smaller pictures are kept untouched.
        quality: of the new JPEGs, 1 to 95.

    Returns:
        The manifest: that of `folder` with other shards.

    Raises:
        StageMismatch: `out` holds other work. FolderLocked: another process writes `out`.
    """
    folder, out = Path(folder), Path(out)
    work = Work(out, "shrink", 1, {"side": side, "quality": quality}, {"reinforced": folder})
    if done := work.done():
        return done
    with work.lock():
        work.begin()
        manifest, records = read_manifest(folder), []
        for shard in manifest["shards"]:
            samples = (shrunk(sample, side, quality) for sample in shards.read_samples(folder / shard["name"]))
            info = shards.write_shard(out / shard["name"], samples, manifest["settings"]["storage"])
            records.append({"name": shard["name"], **info._asdict(), "dropped": {}})
        kept = {k: manifest[k] for k in ("sample_schema", "teachers", "captioners", "samples") if k in manifest}
        return work.commit(**kept, bytes=sum(r["bytes"] for r in records), dropped={}, shards=records)


def shrunk(sample: Sample, side: int, quality: int) -> Sample:
    """One sample with a smaller picture; `meta["stored"]` then has its size and hash."""
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
