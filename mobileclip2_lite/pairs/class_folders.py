"""Folders of classes as a source of pairs, `FOLDER?text=folder`: the text of `dog/rex.jpg` is "a photo of a dog".

The form of ImageNet and of most people's sorted photographs. Reads the names of files and folders and writes nothing.
Gives up: captions; images of one class have one text. Taught by notebooks/80_your_own_data.ipynb.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from mobileclip2_lite.pairs import splits
from mobileclip2_lite.pairs.records import Record, Source, drawn_order
from mobileclip2_lite.views.decoding import SUFFIXES
from mobileclip2_lite.work.files import canonical, sha256_bytes

TEXT = "a photo of a {}"
"""The text of an image of a class, as CLIP is asked for names."""


def class_of(name: str) -> str:
    """The class of an image by its path below the source: its first folder that names no split; "" for none."""
    folders = (part for part in PurePosixPath(name).parent.parts if not splits.split_of(f"{part}/x"))
    return next(folders, "").replace("_", " ").strip()


def class_source(folder: Path, names: Sequence[str], settings: Any, seed: int) -> Source:
    """The images of `names`, each with its folder's name as its text; one that lies in no folder has none.

    Raises:
        ValueError: no image lies in a folder.
    """
    images = [name for name in names if name.lower().endswith(SUFFIXES)]
    classes = {name: class_of(name) for name in images}
    if not any(classes.values()):
        raise ValueError(f"{folder} has no image in a folder: ?text=folder wants a folder of images for each class")
    order = drawn_order(len(images), settings.count, seed)

    def records(start: list[int]) -> Iterator[Record]:
        for k in range(start[0] if start else 0, len(images)):
            name = images[order[k]]
            record = Record(key=name, position=[k + 1], image=folder / name, name=name)
            if classes[name]:
                record.text, record.meta = TEXT.format(classes[name]), {"class": classes[name]}
            else:
                record.problem, record.detail = "no_text", "it lies in no class's folder"
            yield record

    known = [[name, _size(folder / name)] for name in images]
    identity = {"kind": "class folders", "files": len(images), "digest": sha256_bytes(canonical(known))}
    return Source(identity, records, len(images))


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:  # a broken link: counted when it is read
        return None
