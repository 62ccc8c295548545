"""Published reinforced sets, which hold no pictures, joined with pictures by uid into native shards.

Paper: DataCompDR and DFNDR (MobileCLIP, arXiv 2311.17049; MobileCLIP2, arXiv 2508.20691) are published as URLs, views
and embeddings. Reads official shards and a folder or tars of pictures; writes native shards, their manifest, and
`missing.jsonl` with every sample that could not be used and why.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from mobileclip2_lite.shards import samples as shards
from mobileclip2_lite.shards.datacompdr import SIZE, read_official, with_image
from mobileclip2_lite.shards.samples import EXTENSIONS, Sample
from mobileclip2_lite.shards.tars import TarIndex
from mobileclip2_lite.work.files import sha256_file, write_atomic
from mobileclip2_lite.work.folder import Work


class Pictures:
    """Pictures by uid: files named `<uid>.jpg` anywhere below a folder, and tars, by key or by the `uid` in `json`."""

    def __init__(self, folder: str | os.PathLike) -> None:
        """Index the folder.

        Raises:
            FileNotFoundError: the folder does not exist or holds neither pictures nor tars.
            ShardError: a tar is damaged; names it.
        """
        self._files: dict[str, Path] = {}
        self._members: dict[str, tuple[TarIndex, int]] = {}
        for path in sorted(Path(folder).rglob("*")):
            if path.suffix.lower().lstrip(".") in EXTENSIONS:
                self._files.setdefault(path.stem, path)
            elif path.suffix == ".tar":
                self._add(TarIndex(path))
        if not self._files and not self._members:
            raise FileNotFoundError(f"{folder} holds neither pictures (jpg, png, webp) nor tars")

    def _add(self, index: TarIndex) -> None:
        for number, key in enumerate(index.keys):
            if not any(name in EXTENSIONS for name in index.extensions(number)):
                continue
            self._members.setdefault(key, (index, number))
            if "json" in index.extensions(number):
                try:
                    uid = json.loads(bytes(index.member(number, "json"))).get("uid")
                except (ValueError, AttributeError):
                    continue  # the key still names the picture
                if uid:
                    self._members.setdefault(str(uid), (index, number))

    def get(self, uid: str) -> tuple[bytes, str] | None:
        """(bytes, extension) of a picture; None if there is none of that uid."""
        if uid in self._files:
            path = self._files[uid]
            return path.read_bytes(), EXTENSIONS[path.suffix.lower().lstrip(".")]
        if uid in self._members:
            index, number = self._members[uid]
            extension = next(name for name in index.extensions(number) if name in EXTENSIONS)
            return bytes(index.member(number, extension)), EXTENSIONS[extension]
        return None


def join(
    official: str | os.PathLike,
    out: str | os.PathLike,
    teachers: Mapping[str, int],
    images: str | os.PathLike | None = None,
    logit_scales: Mapping[str, float] | None = None,
    storage: str = "bf16",
    size: int = SIZE,
) -> dict:
    """Official shards as native ones, with pictures.

    Args:
        official: folder of official tars.
        teachers: name -> dimension, in the order in which they stand in the stored vectors.
        images: folder with pictures or tars of them; None if the official tars hold them.
        logit_scales: teacher -> logit scale, for the manifest (the official layout does not have them).
        size: side in pixels that RandAugment's shifts were recorded at.

    Returns:
        The manifest; `dropped` counts samples by reason, `missing_image` among them.

    Raises:
        StageMismatch: `out` holds other work. FolderLocked: another process writes `out`.
    """
    out, names = Path(out), shards.shard_names(official)
    tars = {name: sha256_file(Path(official) / name) for name in names}
    settings = {"teachers": list(teachers.items()), "storage": storage, "size": size}
    work = Work(out, "join", 1, settings, {"official": tars, "images": str(images or "")})
    if done := work.done():
        return done
    with work.lock():
        work.begin()
        pictures = Pictures(images) if images is not None else None
        records, lost = [], []
        for name in names:
            dropped: Counter = Counter()
            samples = _joined(Path(official) / name, pictures, teachers, size, dropped, lost)
            info = shards.write_shard(out / name, samples, storage)
            records.append({"name": name, **info._asdict(), "dropped": dict(sorted(dropped.items()))})
        write_atomic(out / "missing.jsonl", b"".join(json.dumps(line).encode() + b"\n" for line in lost))
        total: Counter = sum((Counter(record["dropped"]) for record in records), Counter())
        scales = logit_scales or {}
        return work.commit(
            teachers=[{"name": n, "dimension": d, "logit_scale": scales.get(n)} for n, d in teachers.items()],
            samples=sum(record["samples"] for record in records),
            dropped=dict(sorted(total.items())),
            shards=records,
        )


def _joined(
    path: Path, pictures: Pictures | None, teachers: Mapping[str, int], size: int, dropped: Counter, lost: list[dict]
) -> Iterator[Sample]:
    """The samples of one official shard that have their picture; the others are counted and listed."""
    for sample in read_official(path, teachers, size, dropped):
        reason = ""
        if pictures is not None:
            found = pictures.get(sample.uid)
            try:
                if found:
                    sample = with_image(sample, *found, size)
            except ValueError as error:
                reason = getattr(error, "reason", "other_image")
        if not reason and not sample.views:
            reason = "missing_image"
        if reason:
            dropped[reason] += 1
            lost.append({"shard": path.name, "uid": sample.uid, "reason": reason, "source": sample.meta.get("source")})
        else:
            yield sample
