"""The gate of usable samples: what captioning, reinforcement, filtering and reports take from a shard.

Paper: none; ours. Reads pair shards, writes nothing. A sample that one stage cannot use, all leave out, under the same
word; docs/faults.md lists them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mobileclip2_lite.shards.samples import Sample, parse
from mobileclip2_lite.shards.tars import read_tar
from mobileclip2_lite.views import decoding
from mobileclip2_lite.work.bad_sample import BadSample
from mobileclip2_lite.work.files import sha256_bytes
from mobileclip2_lite.work.texts import is_blank
from mobileclip2_lite.work.threads import ahead


@dataclass
class Usable:
    """A sample that every stage can work on."""

    index: int
    """Which sample of the shard it is, counted from 0, unusable ones too."""
    sample: Sample
    members: dict[str, bytes]
    """By extension, as they are in the shard."""
    pixels: np.ndarray
    """uint8 (H, W, 3), as stored."""
    sha256: str
    """Of the image's bytes."""
    prepared: Any = None
    """What the stage's `prepare` made of it."""


def usable(
    path: str | os.PathLike,
    dropped: Counter,
    need_text: bool = True,
    prepare: Callable[[Usable], Any] | None = None,
    threads: int = 0,
) -> Iterator[Usable]:
    """The usable samples of a shard, in its order.

    Args:
        path: the shard.
        dropped: counts the others by reason: what `parse` and `decoding.pixels` raise, `hash_mismatch` (the image is
            not the one that the sample was made with), `empty_text`, `duplicate_uid`, and once a tar `damaged_tar`.
        need_text: whether a sample with an empty text is unusable; a captioner needs none.
        prepare: called with each sample, for `Usable.prepared`; a `BadSample` that it raises makes the sample unusable.
        threads: that decode and prepare ahead; 0 does it in turn.
    """

    def opened(numbered: tuple[int, tuple[str, dict[str, bytes]]]) -> Usable | BadSample:
        index, (key, members) = numbered
        try:
            item = _open(str(path), index, key, members, need_text)
            item.prepared = prepare(item) if prepare else None
        except BadSample as error:
            return error
        return item

    uids: set[str] = set()
    for item in ahead(opened, enumerate(read_tar(path, dropped)), threads):
        if isinstance(item, BadSample):
            dropped[item.reason] += 1
        elif item.sample.uid in uids:
            dropped["duplicate_uid"] += 1
        else:
            uids.add(item.sample.uid)
            yield item


def _open(shard: str, index: int, key: str, members: dict[str, bytes], need_text: bool) -> Usable:
    """One sample with its pixels.

    Raises:
        BadSample: it cannot be used.
    """
    where = f"{shard}, key {key!r}"
    sample = parse(key, members, shard)
    pixels, sha256 = decoding.pixels(sample.image), sha256_bytes(sample.image)
    if sample.meta.get("sha256") not in (None, sha256):
        raise BadSample("hash_mismatch", "the image is not the one that the sample was made with", where)
    if need_text and is_blank(sample.text):
        raise BadSample("empty_text", "the text is empty", where)
    return Usable(index, sample, members, pixels, sha256)
