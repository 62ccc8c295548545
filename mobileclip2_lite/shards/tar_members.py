"""What stands where in a tar, and which members make one sample: also in tars that `cat`, macOS or links have made odd.

The form is WebDataset's: a sample is the files that share a name up to the first dot. Differs from the `webdataset`
package: the members of a sample need not stand together, and nothing is lost without a word. Reads headers only.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import posixpath
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from mobileclip2_lite.views.decoding import SUFFIXES
from mobileclip2_lite.work.bad_sample import BadSample

IMAGES = tuple(suffix[1:] for suffix in SUFFIXES)
"""Extensions of members that hold an image."""
AGAIN = "copy or make this shard again"
"""The remedy for a damaged tar."""
_TEXTS = ("txt", "caption", "text")
_SOMETHING = re.compile(rb"[^\0]")
_LINKS = 16
"""Links that are followed from one to the next."""
_TWINS = 8
"""Samples of one key among which a member finds its own."""


class ShardError(BadSample):
    """A shard, or a member of one of its samples, is not what its schema says; names shard, key and member."""


class Member(NamedTuple):
    """One thing in a tar."""

    name: str
    offset: int
    """First byte of its content."""
    size: int
    """Bytes; -1 for a link."""
    target: str = ""
    """The member that a link means."""


@dataclass
class Listing:
    """The samples of a tar."""

    samples: list[tuple[str, dict[str, tuple[int, int]]]] = field(default_factory=list)
    """(key, {extension: (offset, size)}), in the order of their first members."""
    last: int = -1
    """The sample of the last member: where the tar is damaged, what follows may have belonged to it."""
    damage: ShardError | None = None
    """Why the tar could not be read to its end."""


def list_samples(data: mmap.mmap, label: str) -> Listing:
    """Walk a tar's headers and sort its members into samples.

    A key that comes again with a member that its sample has makes another sample; one whose members lie apart does not.
    Where the first dot does not end the key (`IMG.1.jpg`, `IMG.1.txt`), the last does (`_parts_of`).

    Args:
        data: the whole tar.
        label: its name, for messages.
    """
    listing, of_key = Listing(), {}
    try:
        for name, offset, size in walk(data, label):
            key, extension = split_name(name)
            if not extension:
                continue
            numbers = of_key.setdefault(key, [])
            free = (k for k in reversed(numbers[-_TWINS:]) if extension not in listing.samples[k][1])
            number = next(free, None)
            if number is None:
                number = len(listing.samples)
                numbers.append(number)
                listing.samples.append((key, {}))
            listing.samples[number][1][extension] = offset, size
            listing.last = number
    except ShardError as error:
        listing.damage = error
    if any(_parts_of(tuple(members)) for _, members in listing.samples):
        _divide(listing)
    return listing


def split_name(name: str) -> tuple[str, str]:
    """WebDataset's key and extension of a member's name: folders belong to the key, the first dot ends it."""
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return folder + slash + stem, extension.lower()


def _divide(listing: Listing) -> None:
    """Give the members of dotted keys to samples of their own."""
    divided, last = [], -1
    for number, (key, members) in enumerate(listing.samples):
        samples: dict[str, dict[str, tuple[int, int]]] = {}
        places = _parts_of(tuple(members)) or {}
        for extension, span in members.items():
            part, kept = places.get(extension, ("", extension))
            samples.setdefault(part, {})[kept] = span
        divided += [(f"{key}.{part}" if part else key, own) for part, own in samples.items()]
        if number == listing.last:
            last = len(divided) - 1
    listing.samples, listing.last = divided, last


@functools.lru_cache(maxsize=64)
def _parts_of(extensions: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    """{extension: (rest of the key, true extension)} where the first dot does not end the key; {} where it does.

    It does not if `x.jpg` and `x.txt` are there, or `x.jpg` and no image `jpg`. A lone image and a lone text of one key
    (`image.jpg`, `caption.txt`) stay together.
    """
    dotted = {name: tuple(name.rsplit(".", 1)) for name in extensions if "." in name}
    images = [name for name, (_, end) in dotted.items() if end in IMAGES]
    if not images:
        return {}
    texts = {part for part, end in dotted.values() if end in _TEXTS}
    whole = any(name in IMAGES for name in extensions)
    own = {dotted[name][0] for name in images if dotted[name][0] in texts}
    if not own and not whole:
        if len(images) == 1:
            named = [name for name, (_, end) in dotted.items() if end in (*_TEXTS, "json")]
            alone = named if len(named) == 1 and not any(name in (*_TEXTS, "json") for name in extensions) else []
            return {name: ("", dotted[name][1]) for name in images + alone}
        own = {dotted[name][0] for name in images}
    return {name: (part, end) for name, (part, end) in dotted.items() if part in own}


def walk(data: mmap.mmap, label: str) -> Iterator[tuple[str, int, int]]:
    """(name, offset, size) of the files of a tar; links to other members are those members under another name.

    Members whose name, or folder, begins with a dot are no part of a sample (macOS puts `._NAME` beside each file).
    After an end mark reading goes on: `cat` puts tars together.

    Raises:
        ShardError: the tar is cut short, or what stands where a header should be is none; names the byte.
    """
    targets: dict[str, Member] | None = None
    for member in _members(data, label):
        if (member.name.startswith(".") or "/." in member.name) and _hidden(member.name):
            continue
        if member.size >= 0:
            yield member.name, member.offset, member.size
            continue
        targets = _by_name(data, label) if targets is None else targets
        found = member
        for _ in range(_LINKS):
            found = targets.get(posixpath.normpath(found.target))
            if found is None or found.size >= 0:
                break
        if found is not None and found.size >= 0:
            yield member.name, found.offset, found.size


def _hidden(name: str) -> bool:
    return any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))


def _by_name(data: mmap.mmap, label: str) -> dict[str, Member]:
    """The members that a link can mean, up to where the tar is damaged: `walk` speaks of that."""
    found: dict[str, Member] = {}
    with contextlib.suppress(ShardError):
        for member in _members(data, label):
            found[posixpath.normpath(member.name)] = member
    return found


def _members(data: mmap.mmap, label: str, at: int = 0) -> Iterator[Member]:
    """The files and links of a tar from byte `at` on; plain headers are read here, others by tarfile."""
    end = len(data)
    while True:
        head = data[at : at + 512]
        if len(head) < 512:
            raise ShardError("damaged_tar", f"cut short at byte {end}; {AGAIN}", label)
        if head[0] == 0 and not any(head):
            if (at := _after_end(data, at)) is None:
                return
            continue
        try:
            if head[156:157] not in b"0\0" or head[345] or head[124] & 128:
                yield from _any_members(data, label, at)
                return
            size = int(head[124:136].strip(b" \0") or b"0", 8)
            if 8 * 32 + sum(head) - sum(head[148:156]) != int(head[148:156].strip(b" \0") or b"0", 8):
                raise ValueError("checksum")
            name = head[:100].split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
        except ValueError as error:
            if isinstance(error, ShardError):
                raise
            raise ShardError("damaged_tar", f"no tar header at byte {at}; {AGAIN}", label) from error
        if at + 512 + size > end:
            raise ShardError("damaged_tar", f"{name} is cut short at byte {end}; {AGAIN}", label)
        yield Member(name, at + 512, size)
        at += 512 + (size + 511) // 512 * 512


def _after_end(data: mmap.mmap, at: int) -> int | None:
    """Where a tar begins behind the end mark at byte `at`; None if only zeros follow."""
    found = _SOMETHING.search(data, at)
    return None if found is None else found.start() - (found.start() - at) % 512


def _any_members(data: mmap.mmap, label: str, start: int) -> Iterator[Member]:
    """The rest of a tar from byte `start`, with long names, links and folders."""
    try:
        data.seek(start)
        with tarfile.open(fileobj=data, mode="r:") as tar:
            for entry in tar:
                if entry.isreg() and not entry.issparse():
                    if entry.offset_data + entry.size > len(data):
                        raise tarfile.ReadError(f"{entry.name} is cut short at byte {len(data)}")
                    yield Member(entry.name, entry.offset_data, entry.size)
                elif entry.islnk():
                    yield Member(entry.name, 0, -1, entry.linkname)
                elif entry.issym():
                    target = posixpath.join(posixpath.dirname(entry.name), entry.linkname)
                    yield Member(entry.name, 0, -1, target)
            stop = tar.offset
        mark = data[stop : stop + 512]
        if any(mark) or len(mark) < 512:  # tarfile takes both for the end
            raise tarfile.ReadError(f"no tar header at byte {stop}" if any(mark) else f"cut short at byte {len(data)}")
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise ShardError("damaged_tar", f"damaged ({error}); {AGAIN}", label) from error
    if (more := _after_end(data, stop)) is not None:
        yield from _members(data, label, more)
