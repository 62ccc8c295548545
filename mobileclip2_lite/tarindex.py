"""Random access to the samples of a shard: where each member lies in the tar, and its bytes without copying the rest.

Serves the paper's training on stored views (MobileCLIP, arXiv 2311.17049, section 4), which needs one view's embedding
of thirty. Reads tars through a memory map; writes nothing. Taught by notebooks/20_reinforce.ipynb.
"""

from __future__ import annotations

import mmap
import os
import tarfile
from array import array

from .shards import ShardError


class TarIndex:
    """The members of one tar, by sample. `keys[i]` is the key of sample i; `member(i, "txt")` its bytes."""

    def __init__(self, path: str | os.PathLike) -> None:
        """Walk the tar's headers.

        Raises:
            ShardError: the file is no tar or is cut short; names the file and the byte.
            FileNotFoundError: there is no such file.
        """
        self.path = str(path)
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size < 1024:
                raise ShardError(f"{path}: not a tar or empty; copy or make this shard again")
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.keys: list[str] = []
        self._members: list[tuple[tuple[str, ...], int]] = []
        self._places = array("Q")
        self._build(_walk(self._map, self.path))

    def _build(self, entries) -> None:
        """Group (name, offset, size) by key; samples with the same members share one tuple of names."""
        shared: dict[tuple[str, ...], tuple[str, ...]] = {}
        key, names, start = None, [], 0

        def close() -> None:
            if names:
                group = tuple(names)
                self.keys.append(key)
                self._members.append((shared.setdefault(group, group), start))

        for name, offset, size in entries:
            folder, slash, base = name.rpartition("/")
            stem, dot, extension = base.partition(".")
            if folder + slash + stem != key:
                close()
                key, names, start = folder + slash + stem, [], len(self._places) // 2
            if dot:
                names.append(extension.lower())
                self._places.extend((offset, size))
        close()

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


def _walk(data: mmap.mmap, path: str):
    """(name, offset, size) of the regular files of a tar; plain headers are read here, others by tarfile."""
    at, end = 0, len(data)
    while True:
        head = data[at : at + 512]
        if len(head) < 512:
            raise ShardError(f"{path}: cut short at byte {end}; copy or make this shard again")
        if head[0] == 0 and not any(head):
            return
        kind = head[156:157]
        try:
            if kind not in b"0\0" or head[345] or head[124] & 128:
                yield from _walk_any(path, at)
                return
            size = int(head[124:136].strip(b" \0") or b"0", 8)
            if 8 * 32 + sum(head) - sum(head[148:156]) != int(head[148:156].strip(b" \0") or b"0", 8):
                raise ValueError("checksum")
            name = head[:100].split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
        except ValueError as error:
            raise ShardError(f"{path}: no tar header at byte {at}; copy or make this shard again") from error
        if at + 512 + size > end:
            raise ShardError(f"{path}: {name} is cut short at byte {end}; copy or make this shard again")
        yield name, at + 512, size
        at += 512 + (size + 511) // 512 * 512


def _walk_any(path: str, start: int):
    """The rest of a tar from byte `start`, with long names and folders."""
    try:
        with open(path, "rb") as file:
            file.seek(start)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for entry in tar:
                    if entry.isreg():
                        yield entry.name, entry.offset_data, entry.size
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ShardError(f"{path}: damaged ({error}); copy or make this shard again") from error
