"""Reads the published caption files of retrieval and of hard negatives, whose images lie in a folder of their own.

| form | published as | kind |
|---|---|---|
| Karpathy's splits of COCO, Flickr30k | `dataset_coco.json`, `dataset_flickr30k.json` | five captions an image |
| SugarCrepe | `swap_att.json` …: `filename`, `caption`, `negative_caption` | hard negatives |
| SugarCrepe++ | the same with `caption2` | hard negatives, two right captions |
| DOCCI | `docci_descriptions.jsonlines` | a long caption an image |
| DCI | folder of JSON files with `short_caption`, `extra_caption` | a long caption an image |
| Urban1k | folder with `caption/NAME.txt` and `image/NAME.jpg` | a long caption an image |

The files are told apart by their content. Reads only; writes nothing. Sources: arXiv 1412.2306, 2306.14610, 2406.11171,
2404.19753, 2312.08578, 2403.15378. Taught by notebooks/40_reinforced_training.ipynb.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mobileclip2_lite.evaluation.sets import Example, TestSet

CAPTIONS = 5
"""Captions an image that COCO's and Flickr30k's protocol takes; some images of COCO have six or seven."""
JSON_LINES = (".jsonl", ".jsonlines")


def open_captions(
    source: str | os.PathLike,
    images: str | os.PathLike | None = None,
    split: str = "test",
    captions: int = CAPTIONS,
) -> TestSet:
    """The set of a caption file, of a folder of SugarCrepe's files' one member, or of a folder of DCI or Urban1k.

    Args:
        source: a file or folder of one of the forms above.
        images: folder with the images; None looks beside the captions (in `images`, `image`, `photos`, `val2017` too).
        split: of Karpathy's, DOCCI's and DCI's splits; the other forms have one.
        captions: at most so many captions an image; 0 for all.

    Raises:
        FileNotFoundError: the captions or the folder of images are missing.
        ValueError: the file is of no known form, or has no row of that split.
    """
    source = Path(source)
    if not source.exists():
        raise FileNotFoundError(f"{source} does not exist")
    try:
        found = _folder_rows(source, split) if source.is_dir() else _file_rows(source, split, captions)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{source}: a row is not of the form of the others ({error!r}): fetch it again") from error
    rows, name, kind = found
    if not rows:
        raise ValueError(f"{source} has no row of the split {split!r}")
    places = [Path(images)] if images is not None else _beside(source)
    if images is not None and not places[0].is_dir():
        raise FileNotFoundError(f"{images} is not a folder: name the folder of {name}'s images")

    def examples() -> Iterator[Example]:
        for file, right, wrong in rows:
            yield Example(_find(file, places), texts=tuple(right), negatives=tuple(wrong))

    label = f"karpathy {split}" if kind == "karpathy" else split if kind in ("docci", "dci") else "all"
    hard = kind in ("sugarcrepe", "sugarcrepe++")
    return TestSet(name, "hard_negatives" if hard else "retrieval", label, str(source), examples)


Row = tuple[str, Sequence[str], Sequence[str]]
"""Image file, right captions, wrong captions."""


def _beside(source: Path) -> list[Path]:
    """Where images usually lie when nobody says."""
    home = source if source.is_dir() else source.parent
    return [home, *(home / name for name in ("images", "image", "photos", "val2017", "val2014", "flickr30k-images"))]


def _find(file: str, places: Sequence[Path]) -> Path:
    """The image in the first place that has it; a path that exists nowhere is counted by who reads it."""
    return next((place / file for place in places if (place / file).is_file()), places[0] / file)


def _file_rows(source: Path, split: str, captions: int) -> tuple[list[Row], str, str]:
    """Rows, name and form of a file."""
    try:
        text = source.read_text("utf-8-sig")
        lines = source.suffix in JSON_LINES
        data = [json.loads(line) for line in text.splitlines() if line.strip()] if lines else json.loads(text)
    except ValueError as error:
        raise ValueError(f"{source} is not valid JSON: {error}") from error
    if isinstance(data, dict) and isinstance(data.get("images"), list):
        return _karpathy(data, split, captions), str(data.get("dataset") or source.stem), "karpathy"
    rows = list(data.values()) if isinstance(data, dict) else data
    first = rows[0] if isinstance(rows, list) and rows else None
    if isinstance(first, dict) and {"filename", "caption", "negative_caption"} <= set(first):
        twice = "caption2" in first
        right = ("caption", "caption2") if twice else ("caption",)
        found = [
            (row["filename"], [row[key] for key in right], [row["negative_caption"]]) for row in _with(rows, source)
        ]
        return found, source.stem, "sugarcrepe++" if twice else "sugarcrepe"
    if isinstance(first, dict) and {"image_file", "description"} <= set(first):
        found = [(row["image_file"], [row["description"]], []) for row in rows if row.get("split") == split]
        return found, "docci", "docci"
    raise ValueError(
        f"{source} is of no known form. Known are Karpathy's splits (`images` with `sentences`), SugarCrepe "
        "(`filename`, `caption`, `negative_caption`), SugarCrepe++ (with `caption2`) and DOCCI (`image_file`, "
        f"`description`); its first row has {sorted(first) if isinstance(first, dict) else type(first).__name__}"
    )


def _with(rows: Sequence[dict[str, Any]], source: Path) -> Iterator[dict[str, Any]]:
    """The rows, each with the keys of the first: a set of hard negatives has one form."""
    keys = {"filename", "caption", "negative_caption"} | ({"caption2"} & set(rows[0]))
    for number, row in enumerate(rows):
        if missing := sorted(key for key in keys if not row.get(key)):
            raise ValueError(f"{source}: row {number} has no {', '.join(missing)}")
        yield row


def _karpathy(data: dict[str, Any], split: str, captions: int) -> list[Row]:
    """`train` takes `restval` in, as the split's users do."""
    wanted = {"train", "restval"} if split == "train" else {split}
    return [
        (
            "/".join(part for part in (row.get("filepath"), row["filename"]) if part),
            [sentence["raw"].strip() for sentence in row["sentences"][: captions or None]],
            [],
        )
        for row in data["images"]
        if row["split"] in wanted
    ]


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8-sig"))
    except ValueError as error:  # UnicodeDecodeError is one
        raise ValueError(f"{path} is not valid JSON: {error}") from error


def _folder_rows(source: Path, split: str) -> tuple[list[Row], str, str]:
    if (source / "caption").is_dir() and (source / "image").is_dir():
        images = {path.stem: path.name for path in (source / "image").iterdir() if not path.name.startswith(".")}
        texts = sorted((source / "caption").glob("*.txt"))
        rows = [(f"image/{images.get(p.stem, p.stem)}", [p.read_text("utf-8").strip()], []) for p in texts]
        return rows, source.name, "urban1k"
    notes = next((source / name for name in ("annotations", "complete") if (source / name).is_dir()), source)
    splits = source / "splits.json"
    chosen = None
    if splits.is_file():
        named = _json(splits)
        if split not in named:
            raise ValueError(f"{splits} has no split {split!r}; it has {sorted(named)}")
        chosen = set(named[split])
    rows = []
    for path in sorted(notes.glob("*.json")):
        if path == splits or (chosen is not None and path.name not in chosen):
            continue
        row = _json(path)
        if not isinstance(row, dict) or "image" not in row or "short_caption" not in row:
            raise ValueError(f"{path} is not one of DCI's: it needs `image` and `short_caption`")
        text = f"{row['short_caption'].strip()} {str(row.get('extra_caption') or '').strip()}".strip()
        rows.append((row["image"], [text], []))
    if not rows and chosen is None:
        raise ValueError(
            f"{source} is of no known form: neither a `wds_*` set (test/nshards.txt), nor DCI (JSON files with "
            "`short_caption`), nor Urban1k (`caption/` and `image/`)"
        )
    return rows, "dci", "dci"
