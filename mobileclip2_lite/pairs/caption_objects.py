"""Caption files that are one JSON object, as the rows of a table: Karpathy's splits and COCO's annotations.

| form | published as |
|---|---|
| Karpathy's splits of COCO, Flickr8k, Flickr30k | `dataset_coco.json`, … : `images` with `sentences` and `split` |
| COCO's annotations | `captions_train2017.json`: `images` with `id`, `annotations` with `image_id` and `caption` |

An image becomes one row with all its captions. Opens no file. Sources: arXiv 1412.2306, 1504.00325.
Taught by notebooks/80_your_own_data.ipynb.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Rows = list[dict | str]
"""Rows of a table, or what is wrong with one."""


def rows_of(value: Mapping[str, Any]) -> Rows | None:
    """Rows with `file_name`, `captions` and what else an image has; None where the object is of another form."""
    images = value.get("images")
    if not isinstance(images, list):
        return None
    if isinstance(value.get("annotations"), list):
        return _coco(images, value["annotations"])
    return [_karpathy(image) for image in images] if any(map(_has_sentences, images)) else None


def _has_sentences(image: object) -> bool:
    return isinstance(image, dict) and isinstance(image.get("sentences"), list)


def _karpathy(image: object) -> dict | str:
    """`filepath` is the folder, `raw` the sentence as it was written; tokens and numbers of sentences are left."""
    if not _has_sentences(image):
        return "an image without a list `sentences`"
    name = "/".join(str(part) for part in (image.get("filepath"), image.get("filename")) if part)
    captions = [one.get("raw") for one in image["sentences"] if isinstance(one, dict)]
    rest = {key: item for key, item in image.items() if key not in ("filepath", "filename", "sentences", "sentids")}
    return {"file_name": name, "captions": captions, **rest}


def _coco(images: list, annotations: list) -> Rows:
    """An image that no annotation names has no captions, and an annotation of no image is a bad row."""
    rows: dict[object, dict] = {}
    bad: Rows = []
    for image in images:
        if isinstance(image, dict) and isinstance(image.get("id"), (int, str)):
            rows[image["id"]] = {"file_name": image.get("file_name"), "captions": [], "id": image["id"]}
        else:
            bad.append("an image without an `id`")
    for one in annotations:
        row = rows.get(one.get("image_id")) if isinstance(one, dict) else None
        if row is None:
            bad.append("an annotation of no image: `image_id` names none of `images`")
        elif "caption" in one:  # others hold boxes
            row["captions"].append(one["caption"])
    return [*rows.values(), *bad]
