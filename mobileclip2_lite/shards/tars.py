"""Tars that hold samples: written the same byte for byte each time, read through, or sample by sample at random.

The form is WebDataset's (a sample is the files that share a name up to the first dot), as the paper's published data
sets have it. Random access is for training on stored views (MobileCLIP, arXiv 2311.17049, section 4), which needs one
embedding row of thirty. Reads and writes tars. Taught by notebooks/00_start_here.ipynb.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import mmap
import os
import re
import shutil
import tarfile
import tempfile
import zlib
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple
from urllib.parse import quote

from mobileclip2_lite.shards.tar_members import AGAIN, Listing, ShardError, list_samples
from mobileclip2_lite.work.files import written_beside
from mobileclip2_lite.work.kinds import HEAD, kind_in_truth
from mobileclip2_lite.work.place import place_of

_PACKED = {rb"\x1f\x8b": gzip.open, rb"BZh[1-9]1AY&SY": bz2.open, rb"\xfd7zXZ\0": lzma.open}
"""How a compressed tar is opened, by how it begins: a plain one begins with a name, which may be `BZ1.jpg`."""


class ShardInfo(NamedTuple):
    """What was written: hash of the tar, number of samples, size in bytes."""

    sha256: str
    samples: int
    bytes: int


def key_of(uid: str) -> str:
    """The sample's key in the tar: the uid, with all but letters, digits, `_` and `-` escaped, at most 80 characters.

    WebDataset ends a key at its first dot and takes slashes for folders; the uid itself is in the `json` member.
    """
    key = quote(uid, safe="", errors="surrogatepass").replace(".", "%2E").replace("~", "%7E")
    return (
        key if 0 < len(key) <= 80 else f"{key[:40]}%{hashlib.sha256(uid.encode('utf-8', 'replace')).hexdigest()[:32]}"
    )


def write_tar(path: str | os.PathLike, samples: Iterable[tuple[str, dict[str, bytes]]]) -> ShardInfo:
    """Write (uid, members by extension) as one deterministic tar: no times, no owners; atomic as `write_shard`."""
    path, seen = place_of(path), set()
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_beside(path) as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for uid, parts in samples:
                if uid in seen:
                    raise ValueError(f"{path}: two samples have the uid {uid!r}")
                seen.add(uid)
                for extension, data in parts.items():
                    entry = tarfile.TarInfo(f"{key_of(uid)}.{extension}")
                    entry.size, entry.mode = len(data), 0o644
                    tar.addfile(entry, io.BytesIO(data))
        size = file.tell()
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256")
    return ShardInfo(digest.hexdigest(), len(seen), size)


def read_tar(path: str | os.PathLike, dropped: Counter | None = None) -> Iterator[tuple[str, dict[str, bytes]]]:
    """The samples of any WebDataset tar as (key, members by extension), in the order of the tar.

    Args:
        dropped: counts `damaged_tar` where the tar is cut short or corrupt, and the samples up to there are given;
            without it that is an error.

    Raises:
        ShardError: the tar cannot be read to its end and `dropped` is None; names the file and the byte.
        FileNotFoundError: there is no such file.
    """
    try:
        data = mapped(path)
    except ShardError:
        if dropped is None:
            raise
        dropped["damaged_tar"] += 1
        return
    with data:
        listing = list_samples(data, str(path))
        if listing.damage is not None:
            if dropped is None:
                raise listing.damage
            dropped["damaged_tar"] += 1
            del listing.samples[listing.last : listing.last + 1]  # it may be incomplete: it goes with the rest
        for key, members in listing.samples:
            yield key, {name: data[offset : offset + size] for name, (offset, size) in members.items()}


def count_lost(dropped: Counter, expected: int | None, used: int) -> None:
    """Make `damaged_tar`, which `read_tar` counts once a tar, the number of its samples that are lost.

    Args:
        dropped: samples by reason.
        expected: samples that the shard should hold; None if that is not known.
        used: samples that were used.
    """
    if dropped["damaged_tar"] and expected is not None:
        dropped["damaged_tar"] = expected - used - sum(n for why, n in dropped.items() if why != "damaged_tar")


def mapped(path: str | os.PathLike) -> mmap.mmap:
    """A tar as bytes that are read when they are touched.

    Raises:
        ShardError: it is too small for a tar, or something else; says what, where that is known.
        FileNotFoundError: there is no such file.
    """
    place = place_of(path)
    if isinstance(place, Path) and not place.exists():
        raise FileNotFoundError(f"{path} does not exist; where a manifest beside it names it, {AGAIN}")
    with open(place, "rb") as file:
        return _mapped(file, str(path))


def _mapped(file: BinaryIO, label: str) -> mmap.mmap:
    _no_other_kind(file, label)
    if os.fstat(file.fileno()).st_size < 1024:
        raise ShardError("damaged_tar", f"not a tar or empty; {AGAIN}", label)
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def unpacked(source: str | os.PathLike | BinaryIO, label: str = "") -> tuple[mmap.mmap, str]:
    """A foreign tar's bytes, and what is wrong with its compression: "" for nothing.

    A file is mapped; one that is compressed, and a stream from the web, go into a nameless temporary file first.

    Args:
        source: a path, or an open binary file.
        label: its name in messages; a path has its own.

    Raises:
        ShardError: there are too few bytes for a tar, or they are something else.
        FileNotFoundError: there is no such file.
    """
    if isinstance(source, (str, os.PathLike)):
        with open(place_of(source), "rb") as file:
            return _unpacked(file, label or os.path.basename(source))
    if source.seekable():
        return _unpacked(source, label)
    with tempfile.TemporaryFile() as file:
        shutil.copyfileobj(source, file)
        file.seek(0)
        return _unpacked(file, label)


def _unpacked(file: BinaryIO, label: str) -> tuple[mmap.mmap, str]:
    head = file.read(HEAD)
    file.seek(0)
    opener = next((opener for start, opener in _PACKED.items() if re.match(start, head)), None)
    if opener is None:
        return _mapped(file, label), ""
    cut = ""
    with tempfile.TemporaryFile() as plain:
        with opener(file) as packed:
            while True:
                try:
                    block = packed.read1(1 << 16)
                except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
                    cut = str(error)
                    break
                if not block:
                    break
                plain.write(block)
        plain.flush()
        if plain.tell() < 1024:
            raise ShardError("damaged_tar", f"not a tar or empty, once unpacked{': ' * bool(cut)}{cut}", label)
        plain.seek(0)
        _no_other_kind(plain, label)
        return mmap.mmap(plain.fileno(), 0, access=mmap.ACCESS_READ), cut


def _no_other_kind(file: BinaryIO, label: str) -> None:
    """Refuse a file that begins as something else does; it is at its beginning, and again afterwards."""
    other = kind_in_truth(file.read(HEAD))
    file.seek(0)
    if other:
        raise ShardError("damaged_tar", f"no tar but {other}", label)


class TarIndex:
    """The members of one tar, by sample. `keys[i]` is the key of sample i; `member(i, "txt")` its bytes."""

    def __init__(self, path: str | os.PathLike) -> None:
        """Walk the tar's headers.

        Raises:
            ShardError: the file is no tar or is cut short; names the file and the byte.
            FileNotFoundError: there is no such file.
        """
        self.path = str(path)
        self._map = mapped(path)
        self.keys: list[str] = []
        self._members: list[tuple[tuple[str, ...], int]] = []
        self._places = array("Q")
        listing = list_samples(self._map, self.path)
        if listing.damage is not None:
            raise listing.damage
        self._build(listing)
        self.verified = bytearray(len(self))
        """1 for each sample whose picture has been found to be the one that its views were drawn for."""

    def _build(self, listing: Listing) -> None:
        """Samples with the same members share one tuple of names."""
        shared: dict[tuple[str, ...], tuple[str, ...]] = {}
        for key, members in listing.samples:
            names = tuple(members)
            self.keys.append(key)
            self._members.append((shared.setdefault(names, names), len(self._places) // 2))
            for span in members.values():
                self._places.extend(span)

    def __len__(self) -> int:
        return len(self.keys)

    def extensions(self, sample: int) -> tuple[str, ...]:
        """The members of a sample."""
        return self._members[sample][0]

    def span(self, sample: int, extension: str) -> tuple[int, int] | None:
        """(first byte in the tar, size) of a member, None if the sample lacks it."""
        names, start = self._members[sample]
        if extension not in names:
            return None
        at = 2 * (start + names.index(extension))
        return self._places[at], self._places[at + 1]

    def member(self, sample: int, extension: str) -> memoryview | None:
        """A member's bytes, unread until they are touched; None if the sample lacks it."""
        span = self.span(sample, extension)
        return None if span is None else memoryview(self._map)[span[0] : span[0] + span[1]]
