"""Images held out of everything: a folder of pairs in two, one to train on and one to measure on.

Which images are held out follows from their bytes alone, so that the same image is on the same side whatever else is in
the folder, and whichever order it came in. The paper has no own data. Reads a folder of pairs; writes two.
Taught by notebooks/80_your_own_data.ipynb.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import dropwhile, islice
from pathlib import Path
from typing import Any

from mobileclip2_lite.shards.samples import Sample, read_samples, shard_names, write_shard
from mobileclip2_lite.work.files import sha256_bytes
from mobileclip2_lite.work.folder import Work, read_manifest
from mobileclip2_lite.work.place import StorePath, place_of


def hold_out(
    pairs: str | os.PathLike, train: str | os.PathLike, test: str | os.PathLike, count: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write the pairs of a folder into two; found again when they are there.

    Args:
        pairs: folder of pairs.
        train: folder to write, of all images but `count`.
        test: folder to write, of `count` images with all their texts.
        count: images to hold out; samples with the same image lie on the same side and count once.

    Returns:
        The manifests of `train` and `test`.

    Raises:
        ValueError: there are not more images than are to be held out, or two of the folders are the same.
    """
    pairs, train, test = map(place_of, (pairs, train, test))
    if len({one.absolute() for one in (pairs, train, test)}) < 3:
        raise ValueError(f"{pairs}, {train} and {test} must be three folders: one is read, two are written")
    drawn = {_draw(sample) for sample in samples(pairs)}  # an image's number, not the image: folders may be large
    _check_count(pairs, count, len(drawn))
    held = frozenset(heapq.nsmallest(count, drawn))
    manifest = read_manifest(pairs)
    known, source = {"pairs": manifest["key"], "held_out": count}, manifest["source"]
    write_pairs(train, (one for one in samples(pairs) if _draw(one) not in held), {"part": "train", **known}, source)
    write_pairs(test, (one for one in samples(pairs) if _draw(one) in held), {"part": "test", **known}, source)
    return read_manifest(train), read_manifest(test)


def samples(folder: Path | StorePath) -> Iterator[Sample]:
    """All samples of a folder of pairs."""
    for name in shard_names(folder):
        yield from read_samples(folder / name)


def split(folder: Path | StorePath, held_out: int) -> tuple[list[Sample], list[Sample]]:
    """(training, held out) of a folder that fits into memory, both in the order in which images are drawn.

    Other samples of the last image held out are left out of the training.
    """
    found = sorted(samples(folder), key=_draw)
    _check_count(folder, held_out, len(found))
    held = found[:held_out]
    last = _draw(held[-1])
    return list(dropwhile(lambda sample: _draw(sample) == last, found[held_out:])), held


def _draw(sample: Sample) -> str:
    """A number of an image that follows from its bytes: the smallest are held out."""
    return sha256_bytes(b"held out" + sample.image)


def _check_count(folder: Path | StorePath, held_out: int, found: int) -> None:
    if not 0 < held_out < found:
        raise ValueError(f"{held_out} of the {found} images of {folder} cannot be held out: name fewer, at least 1")


def write_pairs(
    folder: Path | StorePath,
    found: Iterable[Sample],
    identity: Mapping[str, Any],
    source: str = "pairs",
    shard: int = 500,
) -> Path | StorePath:
    """A folder of pairs, made once; `source` is where its manifest says they come from."""
    work = Work(folder, "pairs", 1, dict(identity))
    if work.done():
        return folder
    with work.lock():
        work.begin()
        rest, records, texts = iter(found), [], 0
        while some := list(islice(rest, shard)):
            name = f"shard-{len(records):06d}.tar"
            records.append({"name": name, **write_shard(folder / name, some)._asdict(), "dropped": {}})
            texts += sum(len(sample.texts) for sample in some)
        total = sum(record["samples"] for record in records)
        work.commit(source=source, samples=total, texts=texts, dropped={}, shards=records)
    return folder
