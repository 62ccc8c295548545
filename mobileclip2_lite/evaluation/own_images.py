"""Zero-shot naming and retrieval over a user's own images: a folder of class-named folders, or a `datasets.Dataset`.

MobileCLIP2 (arXiv 2508.20691), section 4, measures the same way on public sets. Reads images and labels or texts;
writes nothing. An image that cannot be read is counted by reason in the result, never silently skipped. Gives up: only
what `evaluation` measures, in one process. Taught by notebooks/00_start_here.ipynb.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobileclip2_lite.evaluation.measures import (
    TEMPLATES,
    Template,
    retrieval,
    zero_shot_accuracy,
    zero_shot_classifier,
)
from mobileclip2_lite.evaluation.suite import flatten_captions
from mobileclip2_lite.models.loaded import encode_images, encode_texts
from mobileclip2_lite.views.decoding import SUFFIXES, BadImage
from mobileclip2_lite.views.images import read_image
from mobileclip2_lite.work.files import scan
from mobileclip2_lite.work.place import StorePath, here
from mobileclip2_lite.work.texts import NoText, texts_of

if TYPE_CHECKING:
    from mobileclip2_lite.models.loaded import LoadedModel


def evaluate_zero_shot(
    loaded: LoadedModel,
    data: Any,
    classnames: Sequence[str] | None = None,
    templates: Sequence[Template] = TEMPLATES,
    image_key: str | None = None,
    label_key: str | None = None,
    batch_size: int = 256,
) -> dict[str, Any]:
    """Zero-shot naming of a user's own images.

    Args:
        data: a folder with one folder of images a class, or a `datasets.Dataset` with an image and a class label.
        classnames: names in the order of the labels; None takes the folders' names (`_` read as a space) or the
            dataset's own.
        image_key, label_key: columns of the dataset; None finds the image column and the `ClassLabel` column. A label
            is a number from 0, or a class's name; -1 or a missing one is an image without a label.

    Returns:
        `top1`, `top5`, `chance` (top-1 of guessing), `images` and `dropped`: images without a label (`unlabelled`) and
        unreadable ones, by reason.

    Raises:
        ValueError: no class names, or one string instead of a list; no image or no label column, with the columns that
            exist; a label outside the classes, before any work where the labels can be read alone; no image is left.
        FileNotFoundError: there is no such folder.
    """
    if isinstance(data, (str, Path, StorePath)):
        rows, found = folder_rows(here(data))
    else:
        rows, found = _dataset_rows(data, image_key, label_key)
    for what, given in (("classnames", classnames), ("templates", templates)):
        if isinstance(given, str):
            raise ValueError(f"{what} must be a list, and {given!r} is one string: write [{given!r}]")
    classnames = list(classnames or found or ())
    if not classnames:
        raise ValueError("the data names no classes: pass classnames=[...] in the order of the labels")
    for row, value in enumerate(_labels_alone(data, label_key or _label_column(data))):
        _label(value, classnames, row)  # before hours of work, not after
    labels: list[int] = []
    dropped: Counter[str] = Counter()
    features = encode_images(
        loaded, _some(_readable(_labelled(rows, classnames, dropped), labels, dropped), dropped), batch_size
    )
    accuracy = zero_shot_accuracy(features, zero_shot_classifier(loaded, classnames, templates, batch_size), labels)
    return {**accuracy, "chance": 1 / len(classnames), "images": len(labels), "dropped": dict(dropped)}


def evaluate_retrieval(
    loaded: LoadedModel, data: Iterable[dict], image_key: str = "image", text_key: str = "text", batch_size: int = 256
) -> dict[str, Any]:
    """Retrieval over a user's own pairs: rows with an image and its text, or its texts.

    Args:
        data: a `datasets.Dataset`, or any iterable of rows like it. Texts are a list, a string that is one, or rows
            that hold each text under `raw`, `text` or `caption` (`work.texts`).

    Returns:
        recalls as `retrieval` gives them, `images`, `texts` and `dropped`: rows lost, by reason.

    Raises:
        ValueError: a row lacks one of the two columns, with the columns that it has; or no row can be used.
    """
    captions: list[list[str]] = []
    dropped: Counter[str] = Counter()

    def rows() -> Iterator[tuple[Any, list[str]]]:
        for row in _undecoded(data, image_key):
            for key in (image_key, text_key):
                if key not in row:
                    raise ValueError(f"a row has no column {key!r}; it has {sorted(row)}: pass image_key and text_key")
            try:
                texts = texts_of(row[text_key])
            except NoText as error:
                dropped[error.reason] += 1
                continue
            yield row[image_key], texts

    image_features = encode_images(loaded, _some(_readable(rows(), captions, dropped), dropped), batch_size)
    texts, owner = flatten_captions(captions)
    recalls = retrieval(image_features, encode_texts(loaded, texts, batch_size), owner)
    return {**recalls, "images": len(captions), "texts": len(texts), "dropped": dict(dropped)}


def folder_rows(folder: Path) -> tuple[Iterator[tuple[Path, int]], list[str]]:
    """(image, label) of a folder of class folders, and the classes' names; images may lie deeper in a class's folder.

    Raises:
        ValueError: there are no class folders, or the folders of classes lie one level deeper, as in `val/cat`.
        FileNotFoundError: there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder: name one with a folder of images for each class")
    folders = _folders(folder)
    if not folders:
        raise ValueError(f"{folder} has no folders: one folder of images a class is expected")
    deeper = {path: _folders(path) for path in folders if not has_images(path)}
    if len(deeper) == len(folders) and any(len(below) > 1 for below in deeper.values()):
        if len(folders) == 1:
            return folder_rows(folders[0])
        names = [path.name for path in folders]
        raise ValueError(f"{folder} holds folders of classes, {names[:8]}: name one, {folders[-1]} for example")
    rows = ((one / name, label) for label, one in enumerate(folders) for name in scan(one))
    return rows, [path.name.replace("_", " ") for path in folders]


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def has_images(folder: Path) -> bool:
    """Whether images lie in the folder itself."""
    return any(path.name.lower().endswith(SUFFIXES) and not path.is_dir() for path in folder.iterdir())


def _label_column(data: Any) -> str:
    kinds = {key: type(feature).__name__ for key, feature in (getattr(data, "features", None) or {}).items()}
    return next((key for key, kind in kinds.items() if kind == "ClassLabel"), "label")


def _dataset_rows(data: Any, image_key: str | None, label_key: str | None) -> tuple[Iterator, list[str] | None]:
    kinds = {key: type(feature).__name__ for key, feature in (getattr(data, "features", None) or {}).items()}
    image_key = image_key or next((key for key, kind in kinds.items() if kind == "Image"), "image")
    label_key = label_key or _label_column(data)
    if kinds and not {image_key, label_key} <= set(kinds):
        raise ValueError(f"no column {image_key!r} or {label_key!r} in {sorted(kinds)}: pass image_key and label_key")
    names = data.features[label_key].names if kinds.get(label_key) == "ClassLabel" else None
    return ((row[image_key], row[label_key]) for row in _undecoded(data, image_key)), names


def _labels_alone(data: Any, key: str) -> Iterable[Any]:
    """The labels, where they can be had without reading images."""
    if isinstance(data, (list, tuple)):
        return [row[key] for row in data if key in row]
    return data[key] if hasattr(data, "cast_column") and hasattr(data, "__len__") else ()


def _label(value: Any, classnames: Sequence[str], row: int) -> int | None:
    """A row's class; None if it has none.

    Raises:
        ValueError: it is none of the classes; names the row and what is expected.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        names = {name: label for label, name in enumerate(classnames)}
        found = names.get(value, names.get(value.replace("_", " ")))
        if found is None:
            raise ValueError(f"row {row}: the label {value!r} is no class; they are {list(classnames)[:5]} ...")
        return found
    number = value.item() if hasattr(value, "item") else value
    if not isinstance(number, (int, float)) or number != int(number):
        raise ValueError(f"row {row}: the label {value!r} is neither a whole number nor a class's name")
    if number == -1:  # what unlabelled splits have
        return None
    if not 0 <= number < len(classnames):
        raise ValueError(
            f"row {row}: the label {number} is outside the {len(classnames)} classes: they count from 0, -1 is none"
        )
    return int(number)


def _labelled(rows: Iterable[tuple], classnames: Sequence[str], dropped: Counter[str]) -> Iterator[tuple[Any, int]]:
    """The rows that have a label; the others are counted."""
    for row, (image, value) in enumerate(rows):
        label = _label(value, classnames, row)
        if label is None:
            dropped["unlabelled"] += 1
        else:
            yield image, label


def _undecoded(data: Any, image_key: str) -> Any:
    """The rows with encoded images, so that one broken image can be counted instead of ending the iteration."""
    if type((getattr(data, "features", None) or {}).get(image_key)).__name__ != "Image":
        return data
    import datasets

    return data.cast_column(image_key, datasets.Image(decode=False))


def _readable(rows: Iterable[tuple[Any, Any]], kept: list, dropped: Counter[str]) -> Iterator[Any]:
    """RGB images of `rows`; what belongs to each is appended to `kept`, and each that cannot be read is counted."""
    for image, belonging in rows:
        try:
            picture = read_image(image)
        except BadImage as error:
            dropped[error.reason] += 1
            continue
        kept.append(belonging)
        yield picture


def _some(images: Iterator[Any], dropped: Counter[str]) -> Iterator[Any]:
    """`images`, of which there must be one.

    Raises:
        ValueError: there is none; says why.
    """
    first = next(images, None)
    if first is None:
        counted = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items())) or "there are no rows"
        raise ValueError(f"no image can be used ({counted})")
    yield first
    yield from images
