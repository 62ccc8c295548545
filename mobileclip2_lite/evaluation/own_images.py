"""Zero-shot naming and retrieval over a user's own images: a folder of class-named folders, or a `datasets.Dataset`.

MobileCLIP2 (arXiv 2508.20691), section 4, measures the same way on public sets. Reads images and labels or texts;
writes nothing. An image that cannot be read is counted by reason in the result, never silently skipped. Gives up: only
what `evaluation` measures, in one process. Taught by notebooks/00_start_here.ipynb.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mobileclip2_lite.evaluation.measures import (
    TEMPLATES,
    Template,
    retrieval,
    zero_shot_accuracy,
    zero_shot_classifier,
)
from mobileclip2_lite.evaluation.suite import flatten_captions
from mobileclip2_lite.models.loaded import encode_images, encode_texts

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
        image_key, label_key: columns of the dataset; None finds the image column and the `ClassLabel` column.

    Returns:
        `top1`, `top5`, `chance` (top-1 of guessing), `images` and `dropped`, unreadable images by reason.

    Raises:
        ValueError: no class names, no image or no label column, with the columns that exist.
    """
    if isinstance(data, (str, Path)):
        rows, found = _folder_rows(Path(data))
    else:
        rows, found = _dataset_rows(data, image_key, label_key)
    classnames = classnames or found
    if not classnames:
        raise ValueError("the data names no classes: pass classnames=[...] in the order of the labels")
    labels: list[int] = []
    dropped: Counter[str] = Counter()
    features = encode_images(loaded, _readable(rows, labels, dropped), batch_size)
    accuracy = zero_shot_accuracy(features, zero_shot_classifier(loaded, classnames, templates, batch_size), labels)
    return {**accuracy, "chance": 1 / len(classnames), "images": len(labels), "dropped": dict(dropped)}


def evaluate_retrieval(
    loaded: LoadedModel, data: Iterable[dict], image_key: str = "image", text_key: str = "text", batch_size: int = 256
) -> dict[str, Any]:
    """Retrieval over a user's own pairs: rows with an image and its text, or its list of texts.

    Args:
        data: a `datasets.Dataset`, or any iterable of rows like it.

    Returns:
        recalls as `retrieval` gives them, `images`, `texts` and `dropped`: rows lost, by reason.

    Raises:
        ValueError: a row lacks one of the two columns, with the columns that it has.
    """
    captions: list[list[str]] = []
    dropped: Counter[str] = Counter()

    def rows() -> Iterator[tuple[Any, list[str]]]:
        for row in _undecoded(data, image_key):
            for key in (image_key, text_key):
                if key not in row:
                    raise ValueError(f"a row has no column {key!r}; it has {sorted(row)}: pass image_key and text_key")
            texts = [row[text_key]] if isinstance(row[text_key], str) else row[text_key] or []
            if texts := [text for text in texts if text and text.strip()]:
                yield row[image_key], texts
            else:
                dropped["no text"] += 1

    image_features = encode_images(loaded, _readable(rows(), captions, dropped), batch_size)
    texts, owner = flatten_captions(captions)
    recalls = retrieval(image_features, encode_texts(loaded, texts, batch_size), owner)
    return {**recalls, "images": len(captions), "texts": len(texts), "dropped": dict(dropped)}


def _folder_rows(folder: Path) -> tuple[Iterator[tuple[Path, int]], list[str]]:
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise ValueError(f"{folder} has no folders: one folder of images a class is expected")
    files = ((file, label) for label, one in enumerate(folders) for file in sorted(one.iterdir()) if file.is_file())
    return files, [path.name.replace("_", " ") for path in folders]


def _dataset_rows(data: Any, image_key: str | None, label_key: str | None) -> tuple[Iterator, list[str] | None]:
    kinds = {key: type(feature).__name__ for key, feature in (getattr(data, "features", None) or {}).items()}
    image_key = image_key or next((key for key, kind in kinds.items() if kind == "Image"), "image")
    label_key = label_key or next((key for key, kind in kinds.items() if kind == "ClassLabel"), "label")
    if kinds and not {image_key, label_key} <= set(kinds):
        raise ValueError(f"no column {image_key!r} or {label_key!r} in {sorted(kinds)}: pass image_key and label_key")
    names = data.features[label_key].names if kinds.get(label_key) == "ClassLabel" else None
    return ((row[image_key], row[label_key]) for row in _undecoded(data, image_key)), names


def _undecoded(data: Any, image_key: str) -> Any:
    """The rows with encoded images, so that one broken image can be counted instead of ending the iteration."""
    if type((getattr(data, "features", None) or {}).get(image_key)).__name__ != "Image":
        return data
    import datasets

    return data.cast_column(image_key, datasets.Image(decode=False))


def _readable(rows: Iterable[tuple[Any, Any]], kept: list, dropped: Counter[str]) -> Iterator[Any]:
    """RGB images of `rows`; what belongs to each is appended to `kept`, and each that cannot be read is counted."""
    import io

    from PIL import Image, UnidentifiedImageError

    for image, belonging in rows:
        try:
            if isinstance(image, dict):  # datasets' encoded form
                image = io.BytesIO(image["bytes"]) if image.get("bytes") else image["path"]
            elif isinstance(image, bytes):
                image = io.BytesIO(image)
            elif isinstance(image, np.ndarray):
                image = Image.fromarray(image)
            picture = (image if isinstance(image, Image.Image) else Image.open(image)).convert("RGB")
        except (OSError, ValueError, TypeError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            dropped[type(error).__name__] += 1
            continue
        kept.append(belonging)
        yield picture
