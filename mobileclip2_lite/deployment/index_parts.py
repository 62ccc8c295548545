"""The search index on disk: parts that count once they are renamed into place, read without being copied.

`<index>/<model key>/part-000000.safetensors` holds the unit features (float32, (images, D)) of some images, and in its
metadata their names, sizes and times. A killed run loses the part it was filling. Parts are joined when that is cheap
beside what was added. Features of different models never meet: each has its own folder.
Taught by notebooks/60_deploy.ipynb.
"""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobileclip2_lite.deployment.image_files import Entry
from mobileclip2_lite.work.files import written_beside

NEEDS_DISK = "an index grows, mapped into memory: name a folder of a disk (a store's images have theirs in the cache)"
"""Why no index lies in a store."""
MAX_PARTS = 16
"""Parts above which they are joined, whatever that costs."""


@dataclass
class Stored:
    """What an index holds: entries and, row for row, their features."""

    entries: list[Entry]
    features: np.ndarray
    """float32 (images, D), mapped from the file where it is one part in order."""
    parts: list[Path]
    """The files."""
    rows: int
    """Rows on disk, with those of vanished and changed images."""


def read_parts(folder: Path) -> Stored:
    """All finished parts; a later row of the same image wins. A broken part is removed, as if it had never been."""
    found: list[tuple[list[Entry], np.ndarray]] = []
    paths = []
    for path in sorted(folder.glob("part-*.safetensors")):
        try:
            found.append(_read(path))
            paths.append(path)
        except (KeyError, TypeError, ValueError, struct.error):
            path.unlink()
    rows = sum(len(entries) for entries, _ in found)
    if len(found) == 1:
        return Stored(*found[0], paths, rows)
    entries = [entry for some, _ in found for entry in some]
    features = np.concatenate([some for _, some in found]) if found else np.zeros((0, 0), np.float32)
    return Stored(entries, features, paths, rows)


def _read(path: Path) -> tuple[list[Entry], np.ndarray]:
    """One part: entries, and its features mapped.

    Raises:
        ValueError, KeyError, TypeError, struct.error: the file is not one of ours, or cut short.
    """
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length) if length < path.stat().st_size else b"")
    tensor = header["features"]
    entries = [Entry(*row) for row in json.loads(header["__metadata__"]["entries"])]
    shape, (start, end) = tuple(tensor["shape"]), tensor["data_offsets"]
    if (
        tensor["dtype"] != "F32"
        or len(shape) != 2
        or len(entries) != shape[0]
        or end - start != 4 * shape[0] * shape[1]
    ):
        raise ValueError(f"{path} is not a part of a search index")
    if path.stat().st_size != 8 + length + end:
        raise ValueError(f"{path} is cut short")
    return entries, np.memmap(path, np.float32, "r", 8 + length + start, shape)


def write_part(folder: Path, entries: Sequence[Entry], features: np.ndarray) -> Path:
    """Write a part under the next free number."""
    from safetensors.numpy import save

    taken = [int(path.stem.split("-")[1]) for path in folder.glob("part-*.safetensors")]
    path = folder / f"part-{max(taken, default=-1) + 1:06d}.safetensors"
    data = save(
        {"features": np.ascontiguousarray(features, np.float32)},
        metadata={"entries": json.dumps([list(entry) for entry in entries])},
    )
    with written_beside(path) as file:
        file.write(data)
    return path


def tidy(folder: Path, stored: Stored, kept: Sequence[Entry], features: np.ndarray) -> None:
    """One part instead of many, if that is worth it; the new one is written before the old ones go."""
    spent = stored.rows - len(kept)
    small = 10 * (spent + len(stored.parts)) < len(kept)
    if (len(stored.parts) <= 1 and not spent) or (small and len(stored.parts) <= MAX_PARTS):
        return
    if kept:
        write_part(folder, kept, features)
    remove(stored.parts)


def remove(paths: Iterable[Path]) -> None:
    """Take files away that something newer stands for; on Windows one that is still mapped goes the next time."""
    for path in paths:
        with contextlib.suppress(PermissionError):
            path.unlink(missing_ok=True)
