"""Make photograph teachers and measure them on what they were not fitted on; `mobileclip2-lite photo-teachers`.

Reads the packages of the extra `photos`, a folder of pairs to fit `photo-teacher-captions` on and another to measure
on; writes a model folder each, whose card says what came out. Ours; the idea is that of `models/photo_teachers.py`.
Taught by notebooks/10_teacher_ensemble.ipynb.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Container, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image

from mobileclip2_lite.deployment.image_files import Unread, find_images, images_of
from mobileclip2_lite.evaluation.measures import retrieval, zero_shot_classifier
from mobileclip2_lite.models import photo_teachers
from mobileclip2_lite.models.loaded import LoadedModel, encode_images, encode_texts
from mobileclip2_lite.shards.samples import read_samples, shard_names
from mobileclip2_lite.views.decoding import SUFFIXES, decode
from mobileclip2_lite.work.folder import read_manifest
from mobileclip2_lite.work.place import StorePath, place_of

WITHOUT_CAPTIONS = tuple(name for name, kind in photo_teachers.KINDS.items() if kind.map != "captions")
"""Teachers that the packages alone make."""


class Named(NamedTuple):
    """A photograph whose file name says what it shows."""

    path: Path
    synset: str
    """ImageNet's number of what it shows, as its name begins: `n01440764`."""
    name: str
    """What follows in the name, with spaces: `tench`."""


def named_photographs(folders: Sequence[str | os.PathLike], synsets: Container[str] | None = None) -> list[Named]:
    """The photographs of some folders whose file names are a synset and a name: `n01440764_great_white_shark.JPEG`.

    Args:
        folders: looked at in this order, each by its files' names; subfolders are not.
        synsets: take those of these alone; None takes any.

    Raises:
        ValueError: there are none.
    """
    found = []
    for path in (path for folder in folders for path in sorted(Path(folder).iterdir())):
        known = re.fullmatch(r"(n\d+)_(.+)", path.stem)
        if known and path.suffix.lower() in SUFFIXES and (synsets is None or known[1] in synsets):
            found.append(Named(path, known[1], known[2].replace("_", " ")))
    if not found:
        raise ValueError(f"no photographs named like n01440764_tench.JPEG in {', '.join(map(str, folders))}")
    return found


def images_with_texts(folder: str | os.PathLike) -> Iterator[tuple[Image.Image, list[str]]]:
    """(PIL image, its real texts) of a folder of pairs."""
    for name in shard_names(folder):
        for sample in read_samples(place_of(folder) / name):
            yield decode(sample.image), sample.texts


def recalls(loaded: LoadedModel, folder: str | os.PathLike, ks: Sequence[int] = (1, 5, 10)) -> dict[str, Any]:
    """Retrieval both ways over a folder of pairs; each real text of an image is a query of its own."""
    counts: list[int] = []
    texts: list[str] = []

    def images() -> Iterator[Image.Image]:
        for image, some in images_with_texts(folder):
            counts.append(len(some))
            texts.extend(some)
            yield image

    features = encode_images(loaded, images(), 32)
    owner = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return {"images": len(counts), "texts": len(texts), **retrieval(features, encode_texts(loaded, texts), owner, ks)}


def write_names(
    folder: str | os.PathLike, table: str | os.PathLike, loaded: LoadedModel, names: Sequence[str] = ()
) -> dict[str, int]:
    """Name the images of a folder that has no texts: a table of `file_name` and "a photo of a NAME", for `pairs`.

    Weak texts: a model's best name of a list, right or wrong. The folder is only read.

    Args:
        folder: images, in subfolders too.
        table: CSV file to write, anywhere.
        loaded: a CLIP model that knows such images, a photograph teacher for example.
        names: to choose from; () takes ImageNet's thousand.

    Returns:
        Files that could not be read, by reason.

    Raises:
        ValueError: no image could be read.
    """
    dropped = Unread()
    folder, read, names = Path(folder).resolve(), [], list(names) or photo_teachers.imagenet_names()

    def images() -> Iterator[Image.Image]:
        for entry, image in images_of(folder, find_images(folder, dropped), dropped):
            read.append(entry.name)
            yield image

    some = images()
    first = next(some, None)
    if first is None:
        raise ValueError(f"{folder} holds no image that can be read ({dict(dropped) or 'no images'})")
    features = encode_images(loaded, chain([first], some), 32)
    best = (features @ zero_shot_classifier(loaded, names).T).argmax(dim=1).tolist()
    rows = [(str(folder / name), f"a photo of a {names[k]}") for name, k in zip(read, best, strict=True)]
    with open(table, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file_name", "text"), *rows])
    return dict(dropped)


def make_teachers(
    names: Sequence[str] = (), captions: Path | None = None, held_out: Path | None = None, place: Path | None = None
) -> Iterator[tuple[Path | StorePath, dict[str, Any]]]:
    """Make photograph teachers one by one; (folder, card) of each.

    Args:
        names: of `photo_teachers.KINDS`; () for all that can be made.
        captions: folder of pairs for `photo-teacher-captions`.
        held_out: folder of pairs to measure on, none of which is in `captions`.
        place: where the folders go; None takes the place in which they are found by name.

    Raises:
        ValueError: an unknown name, `photo-teacher-captions` without `captions`, or `held_out` is `captions`.
        ModuleNotFoundError: a package of the extra `photos` is missing.
    """
    names = tuple(names) or (*WITHOUT_CAPTIONS, *(("photo-teacher-captions",) if captions else ()))
    if unknown := sorted(set(names) - set(photo_teachers.KINDS)):
        raise ValueError(f"no photograph teacher {', '.join(unknown)}: {', '.join(photo_teachers.KINDS)}")
    if "photo-teacher-captions" in names and captions is None:
        raise ValueError("photo-teacher-captions is fitted on your images and captions: --captions FOLDER_OF_PAIRS")
    if captions and held_out and read_manifest(captions)["key"] == read_manifest(held_out)["key"]:
        raise ValueError(f"{held_out} is what the teacher is fitted on: measure on pairs that it has not seen")
    for name in names:
        fitted = captions if photo_teachers.KINDS[name].map == "captions" else None
        loaded = photo_teachers.make(name, images_with_texts(fitted) if fitted else ())
        card: dict[str, Any] = {"fitted_on": {"names": len(photo_teachers.imagenet_names())}}
        if fitted:
            manifest = read_manifest(fitted)
            card["fitted_on"] |= {"images": manifest["samples"], "texts": manifest.get("texts", manifest["samples"])}
        if photo_teachers.KINDS[name].map != "names":
            card["unseen_names"] = photo_teachers.unseen_names(name)
        if held_out:
            card["held_out"] = recalls(loaded, held_out)
        folder = photo_teachers.save(name, loaded, card, None if place is None else place_of(place) / name)
        yield folder, card
