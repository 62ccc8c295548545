"""Opens any test set by where it lies, public or your own, measures models on several, and writes the result as JSON.

MobileCLIP2 (arXiv 2508.20691), section 4. The form is told by what is there: a `wds_*` layout, a folder of pairs, a
caption file, or plain class folders. The JSON says set, split, templates, preprocess and the SHA-256 of the weights, so
that a number can be traced. Writes that file alone. Taught by notebooks/40_reinforced_training.ipynb.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobileclip2_lite.evaluation.caption_files import JSON_LINES, open_captions
from mobileclip2_lite.evaluation.datacomp import SETS
from mobileclip2_lite.evaluation.measures import Template
from mobileclip2_lite.evaluation.own_images import folder_rows, has_images
from mobileclip2_lite.evaluation.parts import evaluate_in_parts
from mobileclip2_lite.evaluation.sets import Example, TestSet, evaluate_set
from mobileclip2_lite.evaluation.wds_sets import is_wds, open_wds
from mobileclip2_lite.models.card import digest
from mobileclip2_lite.shards.samples import read_samples, shard_names
from mobileclip2_lite.work.crew import Spread
from mobileclip2_lite.work.files import pretty, write_note
from mobileclip2_lite.work.place import StorePath, file_here, here, place_of

if TYPE_CHECKING:
    from mobileclip2_lite.models.zoo import LoadedModel

SCHEMA = 1
"""Version of the JSON's form."""
TABLES = (".csv", ".tsv", ".parquet")
"""Ends of files that hold images and texts for `pairs`."""
DATACOMP = "datacomp"
"""Stands for all of DataComp's sets that are measured."""


def open_set(
    source: str | os.PathLike,
    split: str = "test",
    images: str | os.PathLike | None = None,
    captions: int = 5,
) -> TestSet:
    """The test set at `source`, whatever its form.

    Args:
        source: folder or address of a `wds_*` set, `hf:OWNER/NAME`, a folder of pairs (`pairs`, `hold-out`), a caption
            file, a folder of DCI or Urban1k, or a folder with one folder of images a class. Sets in a store are read
            tar by tar; one of loose images is copied to this machine's cache first.
        split: split to read, in its publisher's words.
        images: folder of the images of a caption file, if they do not lie beside it.
        captions: at most so many captions an image of Karpathy's splits; 0 for all.

    Raises:
        FileNotFoundError, ValueError: as the readers do.
    """
    if is_wds(source, split):
        return open_wds(source, split)
    place = place_of(source)
    if (place / "manifest.json").is_file() and shard_names(place):
        return _from_pairs(place)
    path = file_here(place) if images is None else here(place)  # without that folder its images lie beside it
    images = None if images is None else here(images)
    folders = _class_folders(path) if path.is_dir() else []
    own = len(folders) < 2 or has_images(path)  # images beside folders are of no class: the table is about them all
    if own and (table := _table(path)):
        raise ValueError(
            f"{table} is a table of images and texts: make pairs of it, `mobileclip2-lite pairs OUT --source {path} "
            "--count 0`, and name the folder OUT"
        )
    if folders:
        return _from_class_folders(path)
    return open_captions(path, images, split, captions)


def _table(path: Path) -> Path | None:
    """The table that a source is, or that lies beside its images where nothing else says what those show."""
    beside = sorted(one for one in path.iterdir() if one.is_file()) if path.is_dir() else []
    if any(one.suffix.lower() in (".json", *JSON_LINES) for one in beside):
        return None
    return next((one for one in (path, *beside) if one.suffix.lower() in TABLES), None)


def _from_pairs(path: Path | StorePath) -> TestSet:
    """A folder of pairs: every real text of an image is a right answer for it and a question of its own."""

    def examples() -> Iterator[Example]:
        for name in shard_names(path):
            for sample in read_samples(path / name):
                yield Example(sample.image, texts=tuple(sample.texts))

    return TestSet(path.name, "retrieval", "all", str(path), examples)


def _class_folders(path: Path) -> list[Path]:
    """The folders of a plain image folder, none if it is of another form."""
    known = {"caption", "image", "annotations", "complete", "photos"}
    folders = sorted(one for one in path.iterdir() if one.is_dir() and not one.name.startswith("."))
    here = any(one.suffix.lower() in (".json", ".jsonl", ".jsonlines") for one in path.iterdir())
    return [] if here or known & {one.name for one in folders} else folders


def _from_class_folders(path: Path) -> TestSet:
    _, names = folder_rows(path)
    if len(names) < 2:
        raise ValueError(f"{path} has one folder of images, {names[0]!r}: a folder a class is expected, two or more")

    def examples() -> Iterator[Example]:
        for file, label in folder_rows(path)[0]:
            yield Example(file, label=label)

    return TestSet(path.name, "classification", "all", str(path), examples, tuple(names))


def datacomp_sources() -> list[str]:
    """Where DataComp's measured sets lie on the hub."""
    return [one.hub for one in SETS if one.measured]


def evaluate_sets(
    loaded: LoadedModel,
    sources: Sequence[str | os.PathLike | TestSet],
    out: str | os.PathLike | None = None,
    *,
    name: str = "",
    split: str = "test",
    images: str | os.PathLike | None = None,
    templates: Sequence[Template] = (),
    batch_size: int = 256,
    dimensions: Sequence[int] = (),
    parts: str | os.PathLike | None = None,
    spread: Spread | None = None,
) -> dict[str, Any]:
    """Measure a model on several sets; `out` is written anew after each, so that a stopped run keeps what it has.

    Args:
        loaded: model, preprocess and tokenizer together.
        sources: as `open_set` takes them, or opened sets; `datacomp` stands for all of DataComp's that are measured.
        out: JSON file to write.
        name: what the result calls the model.
        split, images, templates, batch_size, dimensions: as `open_set` and `evaluate_set` take them.
        parts: folder to keep each tar's features in, so that a stopped run goes on, and workers can share it; None
            keeps them in memory.
        spread: over which workers; more than this process need `parts`.

    Raises:
        ValueError: `spread` without `parts`, or a set that does not lie in tars with either.

    Returns:
        `schema`, `model` (`name`, `sha256` of its weights, `preprocess`) and `results`, one of `evaluate_set` a set.
    """
    if spread is not None and spread != Spread() and parts is None:
        raise ValueError("several workers need a folder that all of them see, for the features of each tar: --parts")
    every = [one for source in sources for one in (datacomp_sources() if source == DATACOMP else [source])]
    model = {"name": name, "sha256": digest(loaded.model), "preprocess": loaded.preprocess.to_config()}
    result: dict[str, Any] = {"schema": SCHEMA, "model": model, "results": []}
    for source in every:
        test_set = source if isinstance(source, TestSet) else open_set(source, split, images)
        if parts is None:
            result["results"].append(evaluate_set(loaded, test_set, templates, batch_size, dimensions))
        else:
            found = evaluate_in_parts(loaded, test_set, parts, templates, batch_size, dimensions, spread)
            result["results"].append(found)
        if out is not None:
            write_note(out, pretty(result))
    return result


def result_lines(result: dict[str, Any]) -> Iterator[str]:
    """The result for people, a line a measure."""
    for row in result["results"]:
        size = f"{row['images']} images" + "".join(f", {n} {reason}" for reason, n in row["dropped"].items())
        yield f"{row['set']} ({row['split']}): {size}"
        for measure, value in row["measures"].items():
            around = row.get("interval", {}).get(measure)
            shown = "" if around is None else f"{around[0]:.4f} to {around[1]:.4f}"
            yield f"  {measure:28} {value:.4f}   {shown:16}   chance {row['chance'].get(measure, float('nan')):.4f}"
        for size, measures in row.get("by_dimensions", {}).items():
            shown = ", ".join(f"{name} {value:.4f}" for name, value in measures.items())
            yield f"  the first {size} dimensions: {shown}"
