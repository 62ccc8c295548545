"""Finds the images below a folder and reads them as people see them, counting what cannot be read.

The paper has no such program. Links to folders are followed, each real folder once; names that begin with a dot are not
looked at. EXIF rotation is applied: unlike a training pair, an image that is searched for has no crop boxes that must
keep their meaning. A store's images are listed, and each is read when its turn comes, without a copy. Reads only.
Taught by notebooks/60_deploy.ipynb.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mobileclip2_lite.views.decoding import SUFFIXES, BadImage
from mobileclip2_lite.views.images import read_image
from mobileclip2_lite.work.place import StorePath, place_of


class Entry(NamedTuple):
    """What tells whether a file is still the one that was read before."""

    name: str
    """Path below the searched folder, with forward slashes."""
    size: int
    """Bytes."""
    changed: int
    """Modification time, nanoseconds; of a store's object a number that follows from its tag."""


class Unread(Counter[str]):
    """Files that could not be read, counted by reason; `files` has (name, reason) of each."""

    def __init__(self) -> None:
        super().__init__()
        self.files: list[tuple[str, str]] = []

    def note(self, name: str, reason: str) -> None:
        """Count one file."""
        self[reason] += 1
        self.files.append((name, reason))

    def take(self, other: Unread) -> None:
        """Count the files of another count, too."""
        self.update(other)
        self.files += other.files


def find_images(folder: str | os.PathLike, dropped: Unread) -> list[Entry]:
    """The image files below a folder, sorted by name; links without a target and closed folders are counted."""
    place = place_of(folder)
    if isinstance(place, StorePath):
        return _listed(place)
    found: list[Entry] = []
    seen: set[tuple[int, int]] = set()
    waiting = [("", os.fspath(folder))]
    while waiting:
        below, here = waiting.pop()
        try:
            status = os.stat(here)
            if (status.st_dev, status.st_ino) in seen and status.st_ino:  # a link that leads to where we were
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(here) as entries:
                for entry in entries:
                    _take(entry, below, found, waiting, dropped)
        except PermissionError:
            dropped.note(below.rstrip("/") or ".", "closed_folder")
    return sorted(found)


def _listed(place: StorePath) -> list[Entry]:
    """The images that a store lists below a folder."""
    images = {
        name: facts
        for name, facts in place.store.listed().items()
        if name.lower().endswith(SUFFIXES) and not any(part.startswith(".") for part in name.split("/"))
    }
    tags = {name: hashlib.sha256(facts.tag.encode()).digest()[:6] for name, facts in images.items()}
    return [Entry(name, facts.size, int.from_bytes(tags[name])) for name, facts in images.items()]


def _take(entry: os.DirEntry, below: str, found: list, waiting: list, dropped: Unread) -> None:
    """Sort one thing of a folder: an image, a folder to look into, or nothing."""
    if entry.name.startswith("."):
        return
    name, is_image = f"{below}{entry.name}", entry.name.lower().endswith(SUFFIXES)
    try:
        if entry.is_dir():
            waiting.append((f"{name}/", entry.path))
        elif is_image:
            status = entry.stat()
            found.append(Entry(name, status.st_size, status.st_mtime_ns))
    except OSError:  # a link to nothing, or one that leads to itself
        if is_image:
            dropped.note(name, "broken_link")


def images_folder(folder: str | os.PathLike) -> Path | StorePath:
    """The folder or store's folder that a user means.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    place = place_of(folder)
    if not place.is_dir():
        raise FileNotFoundError(f"{place} is not a folder: name the folder that holds the images")
    return place


def open_image(path: str | os.PathLike) -> Any:
    """A file as an upright RGB PIL image.

    Raises:
        BadImage: it does not decode, or cannot be read at all (`unreadable_file`, `no_image`).
    """
    return read_image(place_of(path), upright=True)


def images_of(folder: Path | StorePath, entries: list[Entry], dropped: Unread) -> Iterator[tuple[Entry, Any]]:
    """(entry, image) of those that can be read; the others are counted by reason."""
    for entry in entries:
        try:
            yield entry, open_image(folder / entry.name)
        except BadImage as error:
            dropped.note(entry.name, error.reason)


def some_images(folder: str | os.PathLike, count: int) -> list[Any]:
    """The images of a folder, or `count` of them from all over it, upright.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: none can be read.
    """
    folder = images_folder(folder)
    dropped = Unread()
    entries = find_images(folder, dropped)
    found = [image for _, image in images_of(folder, entries[:: -(-len(entries) // count) or 1], dropped)]
    if not found:
        raise ValueError(f"{folder} holds no image that can be read ({dict(dropped) or 'no images'})")
    return found
