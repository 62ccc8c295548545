"""Published reinforced sets, which hold no pictures, joined with pictures by uid into native shards.

Paper: DataCompDR and DFNDR (MobileCLIP, arXiv 2311.17049; MobileCLIP2, arXiv 2508.20691) are published as URLs, views
and embeddings. Reads official shards and a folder or tars of pictures; writes native shards, their manifest, and
`missing.jsonl` with every sample that could not be used and why.
"""

from __future__ import annotations

import csv
import functools
import io
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mobileclip2_lite.shards import samples as shards
from mobileclip2_lite.shards.datacompdr import SIZE, read_official, with_image
from mobileclip2_lite.shards.samples import EXTENSIONS, PLAIN, Sample
from mobileclip2_lite.shards.tar_members import IMAGES
from mobileclip2_lite.shards.tars import TarIndex
from mobileclip2_lite.shards.text_count import TextCount, total_texts
from mobileclip2_lite.views.decoding import SUFFIXES
from mobileclip2_lite.views.images import image_bytes, storable
from mobileclip2_lite.work.bad_sample import BadSample
from mobileclip2_lite.work.crew import Spread
from mobileclip2_lite.work.files import pretty, scan, sha256_file, write_atomic, write_note
from mobileclip2_lite.work.folder import Work
from mobileclip2_lite.work.json_lines import to_lines
from mobileclip2_lite.work.place import StorePath, place_of
from mobileclip2_lite.work.records import listed
from mobileclip2_lite.work.shardwise import make_shards


class Pictures:
    """Pictures by uid: files named `<uid>.jpg` anywhere below folders, and tars, by key or by the `uid` in `json`.

    JPEG, PNG and WebP stay as they are; other formats become PNG.
    """

    def __init__(self, *folders: str | os.PathLike) -> None:
        """Index the folders; of a uid that several have, the first folder's is taken.

        Raises:
            FileNotFoundError: a folder does not exist or holds neither pictures nor tars.
            ShardError: a tar is damaged; names it.
        """
        self._files: dict[str, Path] = {}
        self._members: dict[str, tuple[TarIndex, int]] = {}
        for folder in map(place_of, folders):
            found = [folder / name for name in scan(folder)]
            for path in found:
                if path.suffix.lower() in SUFFIXES:
                    self._files.setdefault(path.stem, path)
                elif path.suffix == ".tar":
                    self._add(TarIndex(path))
            if not any(path.suffix.lower() in (*SUFFIXES, ".tar") for path in found):
                raise FileNotFoundError(f"{folder} holds neither pictures nor tars")

    def _add(self, index: TarIndex) -> None:
        for number, key in enumerate(index.keys):
            if not any(name in IMAGES for name in index.extensions(number)):
                continue
            self._members.setdefault(key, (index, number))
            if "json" in index.extensions(number):
                try:
                    uid = json.loads(bytes(index.member(number, "json"))).get("uid")
                except (ValueError, AttributeError, RecursionError):
                    continue  # the key still names the picture
                if uid is not None:
                    self._members.setdefault(str(uid), (index, number))

    def get(self, uid: str) -> tuple[bytes, str] | None:
        """(bytes, extension) of a picture; None if there is none of that uid, or its link leads nowhere.

        Raises:
            BadImage: it cannot be read, or is of a format that has to be changed and does not decode.
        """
        if uid in self._files and self._files[uid].exists():
            extension, data = self._files[uid].suffix.lower().lstrip("."), image_bytes(self._files[uid])
        elif uid in self._members:
            index, number = self._members[uid]
            extension = next(name for name in index.extensions(number) if name in IMAGES)
            data = bytes(index.member(number, extension))
        else:
            return None
        return (data, EXTENSIONS[extension]) if EXTENSIONS[extension] in PLAIN else storable(data)[:2]


def join(
    official: str | os.PathLike,
    out: str | os.PathLike,
    teachers: Mapping[str, int],
    images: str | os.PathLike | Sequence[str | os.PathLike] | None = None,
    logit_scales: Mapping[str, float] | None = None,
    storage: str = "bf16",
    size: int = SIZE,
    facts: Mapping[str, Mapping[str, Any]] | None = None,
    spread: Spread | None = None,
) -> dict:
    """Official shards as native ones, with pictures; a killed run goes on.

    Args:
        official: folder of official tars.
        teachers: name -> dimension, in the order in which they stand in the stored vectors.
        images: folder with pictures or tars of them, or several, the first of which counts most: what was joined before
            and what was fetched since (`write_links`); None if the official tars hold them.
        logit_scales: teacher -> logit scale, for the manifest (the official layout does not have them). They are no
            part of the work: a second call with others writes them into the manifest and does nothing else.
        facts: teacher -> what else the manifest is to say of it, by the names of `models.card.TeacherCard`:
            `image_size` and `interpolation`, a `logit_bias`, ... As with scales, a later call may add to them.
        size: side in pixels that RandAugment's shifts were recorded at.
        spread: over which workers (`crew.Spread`), None for this process; each indexes the pictures for itself.

    Returns:
        The manifest; `dropped` counts samples by reason, `missing_image` among them.

    Raises:
        StageMismatch: `out` holds other work. FolderLocked: another process writes `out`.
    """
    official, out, names = place_of(official), place_of(out), shards.shard_names(official)
    tars = {name: _known(official / name) for name in names}
    settings = {"teachers": list(teachers.items()), "storage": storage, "size": size}
    named = [str(place) for place in images] if isinstance(images, (list, tuple)) else str(images or "")
    work = Work(out, "join", 1, settings, {"official": tars, "images": named})
    make = functools.partial(ShardJoiner, official, images, dict(teachers), storage, size)
    for what, given in (("logit_scales", logit_scales or {}), ("facts", facts or {})):
        if unknown := sorted(set(given) - set(teachers)):
            raise ValueError(f"{what} names {unknown}, but the teachers are {sorted(teachers)}")
    scales = {name: {"logit_scale": float(scale)} for name, scale in (logit_scales or {}).items()}
    known = {name: {**(facts or {}).get(name, {}), **scales.get(name, {})} for name in teachers}
    cards = [{"name": name, "dimension": d, "logit_scale": None, **known[name]} for name, d in teachers.items()]
    found = make_shards(work, names, make, functools.partial(_summary, out=out, teachers=cards), spread)
    told = [{**card, **known[card["name"]]} for card in found["teachers"]]
    if told != found["teachers"]:
        found = {**found, "teachers": told}
        if isinstance(work.folder, Path):  # in a store a manifest stays as it was written
            write_atomic(out / "manifest.json", pretty(found))
    return found


def _known(tar: Path | StorePath) -> str:
    """By what an official tar is recognised: its hash, or size and tag in a store, where hashing would fetch it all."""
    if isinstance(tar, Path):
        return sha256_file(tar)
    found = tar.store.facts()
    if found is None:
        raise FileNotFoundError(f"{tar} does not exist")
    return f"{found.size} bytes, {found.tag}"


def write_links(joined: str | os.PathLike, path: str | os.PathLike) -> int:
    """The links of the samples that had no usable picture, to be fetched again later; returns how many there are.

    `img2dataset --url_list PATH --input_format csv --url_col url --save_additional_columns '["uid"]'
    --output_format webdataset --output_folder AGAIN` fetches them, and `join(…, images=[JOINED, AGAIN])` into a new
    folder takes them in. Links that are dead still stand in that folder's `missing.jsonl`.

    Args:
        joined: folder that `join` wrote.
        path: CSV to write, with the columns `url` and `uid`.
    """
    lines = (place_of(joined) / "missing.jsonl").read_text("utf-8").splitlines()
    links = [(line["source"], line["uid"]) for line in map(json.loads, lines) if line["source"]]
    table = io.StringIO(newline="")
    csv.writer(table, lineterminator="\n").writerows([("url", "uid"), *links])
    write_note(path, table.getvalue().encode())
    return len(links)


def _summary(records: Sequence[dict], out: Path, teachers: Sequence[dict]) -> dict:
    """The manifest's content; writes `missing.jsonl`, too."""
    lost = [line for record in records for line in record["lost"]]
    write_atomic(out / "missing.jsonl", to_lines(lost))
    total: Counter = sum((Counter(record["dropped"]) for record in records), Counter())
    return {
        "teachers": teachers,
        **total_texts(records),
        "samples": sum(record["samples"] for record in records),
        "dropped": dict(sorted(total.items())),
        "shards": listed(records),
    }


class ShardJoiner:
    """Joins one official shard after another with its pictures, which are indexed once."""

    def __init__(
        self,
        official: Path,
        images: str | os.PathLike | Sequence[str | os.PathLike] | None,
        teachers: Mapping[str, int],
        storage: str,
        size: int,
    ) -> None:
        self.official, self.teachers, self.storage, self.size = official, teachers, storage, size
        places = images if isinstance(images, (list, tuple)) else () if images is None else (images,)
        self.pictures = Pictures(*places) if places else None

    def __call__(self, target: Path) -> dict:
        """Write one shard; the content of its record, with `lost`: a line for each sample that could not be used."""
        dropped: Counter = Counter()
        lost: list[dict] = []
        texts = TextCount()
        samples = self.samples(self.official / target.name, dropped, lost, texts)
        info = shards.write_shard(target, samples, self.storage)
        return {**info._asdict(), "dropped": dict(sorted(dropped.items())), **texts.to_json(), "lost": lost}

    def samples(self, path: Path, dropped: Counter, lost: list[dict], texts: TextCount) -> Iterator[Sample]:
        """The samples of one official shard that have their picture; the others are counted and listed."""
        for sample in read_official(path, self.teachers, self.size, dropped):
            reason = ""
            if self.pictures is not None:
                try:
                    if found := self.pictures.get(sample.uid):
                        sample = with_image(sample, *found, self.size)
                except BadSample as error:
                    reason = error.reason
                except ValueError:  # a crop box lies outside it
                    reason = "other_image"
            if not reason and not sample.views:
                reason = "missing_image"
            if not reason:
                texts.add(sample)
                yield sample
                continue
            dropped[reason] += 1
            lost.append({"shard": path.name, "uid": sample.uid, "reason": reason, "source": sample.meta.get("source")})
