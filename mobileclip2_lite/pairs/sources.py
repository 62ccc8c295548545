"""Where pairs come from: whatever a user has, opened as one stream of records.

`open_source` looks at what it is given and hands it to `files` (folders, CSV, JSON Lines), `tars` (WebDataset) or `hub`
(`datasets`, parquet, the embedded world). Nothing at the source is ever written. Every source says by what its content
is recognised, so that finished work is found again, and can go on from any record.
Taught by notebooks/00_start_here.ipynb.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from mobileclip2_lite.pairs import files, splits
from mobileclip2_lite.pairs import hf_datasets as hub
from mobileclip2_lite.pairs import webdataset as tars
from mobileclip2_lite.pairs.class_folders import class_of, class_source
from mobileclip2_lite.pairs.records import Record, Source
from mobileclip2_lite.pairs.stored import stored_source
from mobileclip2_lite.pairs.tables import TABLE_SUFFIXES, is_table, read_rows
from mobileclip2_lite.recipes import Pairs, World
from mobileclip2_lite.views.decoding import SUFFIXES
from mobileclip2_lite.views.images import local_path
from mobileclip2_lite.work.files import scan, to_json
from mobileclip2_lite.work.place import file_here, place_of
from mobileclip2_lite.work.store import refuse_unknown, url_of

__all__ = ["Record", "Source", "open_source"]

ACCEPTED = (
    "emoji_world, a folder, a .csv, .tsv, .jsonl, .json or .parquet file, WebDataset tars (path/{000..003}.tar, also "
    "s3:// and other URLs), or hf:NAME"
)
FOLDER_TEXT = "folder"
"""What `?text=` may ask for: the name of an image's folder."""
_FOREIGN = {
    ".tfrecord": "TFRecord: write img2dataset's output with output_format=webdataset",
    ".arrow": "an Arrow cache without its state.json: write it with save_to_disk, or pass the data set itself",
    ".zip": "a zip file: unpack it",
    ".7z": "an archive: unpack it",
    ".rar": "an archive: unpack it",
    ".zst": "compressed with zstd: unpack it",
    ".gz": "compressed with gzip: unpack it",
    ".bz2": "compressed with bzip2: unpack it",
    ".xz": "compressed with xz: unpack it",
    ".xlsx": "a spreadsheet: save it as CSV",
    ".xls": "a spreadsheet: save it as CSV",
    ".feather": "Feather: write its rows as parquet",
    ".pkl": "a pickle, which is not opened: write its rows as parquet",
    ".sqlite": "an SQLite database: write its rows as CSV",
    ".db": "a database: write its rows as CSV",
    ".h5": "HDF5: write its rows as parquet",
    ".hdf5": "HDF5: write its rows as parquet",
    ".mdb": "LMDB: write its rows as WebDataset tars",
    ".npy": "arrays: write them as images, or as a data set",
    ".npz": "arrays: write them as images, or as a data set",
    ".beton": "FFCV: give the data set that it was made of",
    ".rec": "RecordIO: write its rows as WebDataset tars",
}
"""What else people have, and what to do with it."""


def open_source(settings: Pairs, world: World | None = None, seed: int = 0, dataset: Any = None) -> Source:
    """The source that `settings.source` names, or `dataset`.

    Of a source with several splits `train` is taken, or the one asked for as in `FOLDER?split=test` (see `splits`).
    `FOLDER?text=folder` makes the names of a folder's folders the texts (see `class_folders`).

    Raises:
        FileNotFoundError: a file or folder does not exist.
        ValueError: it is of no known kind, ambiguous, empty, or lacks the columns asked for; says which and what helps.
        TypeError: `dataset` is not a data set.
    """
    name = settings.source
    if dataset is not None:
        return hub.given_source(dataset, settings, seed)
    if name == "emoji_world":
        return _world_source(settings, world or World(), seed)
    if url_of(name.partition("?")[0]):
        return stored_source(name, settings, seed) or _copied_source(name, settings, seed)
    if name.startswith("hf:"):
        return hub.hub_source(name, settings, seed)
    refuse_unknown(name)
    path, asked, text = options_asked(name)
    if text and not (path.is_dir() and text == FOLDER_TEXT):
        raise ValueError(f"{name}: ?text={FOLDER_TEXT} is for a folder with a folder of images for each class")
    if path.is_dir():
        return _folder_source(path, settings, seed, asked, text)
    if str(path).lower().endswith(tars.SUFFIXES):
        return _tars_source(path, settings, asked)
    if not path.is_file():
        raise FileNotFoundError(f"the source {name!r} does not exist; a source is {ACCEPTED}")
    if path.suffix.lower() in (*TABLE_SUFFIXES, ".json") or (path.suffix.lower() == ".txt" and is_table(path)):
        return files.table_source(path.parent, [path.name], None, settings, seed, asked)
    if path.suffix.lower() == ".parquet":
        splits.choose([splits.split_of(path.name)], asked, str(path))
        return hub.parquet_source(path.parent, [path.name], settings, seed)
    raise ValueError(f"the source {name!r} is of no known kind{_foreign([name])}; a source is {ACCEPTED}")


def options_asked(name: str) -> tuple[Path, str | None, str | None]:
    """The path of a source, and the split and the text asked for behind it; `~` and `file://` are understood.

    `PATH?split=NAME`, `PATH?text=folder`, or both with `&` between them.
    """
    path, mark, query = name.rpartition("?")
    options = dict(part.partition("=")[::2] for part in query.split("&"))
    if not mark or not set(options) <= {"split", "text"} or Path(name).exists():
        return local_path(name), None, None
    return local_path(path), options.get("split"), options.get("text")


def _world_source(settings: Pairs, world: World, seed: int) -> Source:
    if settings.count < 1:
        raise ValueError("the embedded world is endless: say how many pairs to take (count)")

    def load() -> Any:
        from mobileclip2_lite.emoji_world import pairs_dataset

        return pairs_dataset(world, settings.count, streaming=True)

    source = hub.rows_source(load, {"kind": "emoji_world", "world": to_json(world)}, settings, seed)
    source.total = settings.count
    return source


def _copied_source(name: str, settings: Pairs, seed: int) -> Source:
    """Loose images and tables of a store, copied to this disk: to ask for each would be a request an image."""
    place, mark, query = name.partition("?")
    place = place_of(place)
    copy = file_here(place)
    try:
        return open_source(dataclasses.replace(settings, source=f"{copy}{mark}{query}"), seed=seed)
    except ValueError as error:
        raise ValueError(f"{place}, of which a copy was read: {error}") from error


def _tars_source(pattern: Path, settings: Pairs, asked: str | None) -> Source:
    """Tars by name, braces or wildcards; of those that a wildcard finds, one split."""
    found = tars.expand(str(pattern))
    if not asked and "*" not in str(pattern) and "?" not in str(pattern):
        return tars.tar_source(found, settings.image_key, settings.text_key)
    of = [splits.split_of(name) for name in tars.names_of(found)]
    chosen, notes = splits.choose(of, asked, str(pattern), ["tar"] * len(of))
    source = tars.tar_source([found[k] for k in chosen], settings.image_key, settings.text_key)
    source.notes |= notes
    return source


def _folder_source(folder: Path, settings: Pairs, seed: int, asked: str | None, text: str | None = None) -> Source:
    """A folder's split that is wanted, read as the kind that it is, or as folders of classes.

    Where files lie in splits and the tables do not, the tables' rows are sorted by the images that they name.
    """
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        return hub.saved_source(folder, settings, seed, asked)
    names = scan(folder)
    of = dict(zip(names, map(splits.split_of, names), strict=True))
    tables = [
        name for name in names if Path(name).suffix.lower() in TABLE_SUFFIXES or name.endswith("metadata.parquet")
    ]
    by_rows = bool(tables) and not any(of[name] for name in tables) and not text
    data = (*SUFFIXES, *splits.CONTAINERS, *files.BESIDE, ".json")
    told = [name for name in names if name.lower().endswith(data) and not (by_rows and name in tables)]
    if by_rows and not any(of.values()):
        return _kind_source(folder, names, settings, seed, asked)
    chosen, notes = splits.choose([of[name] for name in told], asked, str(folder), _kinds(told))
    taken = {told[k] for k in chosen} | (set(names) - set(told))  # the rest is read by no split, or by the rows
    names = [name for name in names if name in taken]
    if text:
        source = class_source(folder, names, settings, seed)
    else:
        source = _kind_source(folder, names, settings, seed, asked if by_rows else "all")
    source.notes = {**notes, **source.notes}
    return source


def _kinds(names: list[str]) -> list[str]:
    """What kind of thing each file is: two of one kind may be splits of one set, a README's picture is of none."""
    told = {os.path.splitext(name)[0] for name in names if name.lower().endswith((*files.BESIDE, ".json"))}
    ends = [Path(name).suffix.lower() for name in names]
    return [
        end if end in splits.CONTAINERS else "pair" if end in SUFFIXES and os.path.splitext(name)[0] in told else name
        for name, end in zip(names, ends, strict=True)
    ]


def _kind_source(folder: Path, names: list[str], settings: Pairs, seed: int, asked: str | None) -> Source:
    """What kind of folder it is, by what lies in it; what is named on purpose (`metadata.*`) goes first.

    Images beside tars, parquet or a table that names none of them (a README's banner) do not make it another kind.

    Args:
        asked: the split to take of a table's rows.
    """
    tables = [name for name in names if Path(name).suffix.lower() in TABLE_SUFFIXES]
    parquet = [name for name in names if name.lower().endswith(".parquet")]
    if named := [name for name in (*tables, *parquet) if Path(name).stem == "metadata"]:
        return files.table_source(folder, named, names, settings, seed, asked)
    if asked not in (None, "all") and not tables:
        splits.choose([], asked, str(folder))  # nothing here is of any split
    if files.has_texts(folder, names, settings.text_key):
        return files.beside_source(folder, names, settings, seed)
    images = {name for name in names if Path(name).suffix.lower() in SUFFIXES}
    tables += [name for name in names if "/" not in name and name.endswith(".txt") and is_table(folder / name)]
    top = _top(tables)
    found = [name for name in names if name.lower().endswith(tars.SUFFIXES)]
    about_images = bool(images) and _names_one(folder, top, images)
    if found and not about_images:  # a table beside tars says how they were made
        source = tars.tar_source([folder / name for name in found], settings.image_key, settings.text_key)
        source.notes |= files.ignored(names, {*found, *images})
    elif top and (about_images or not parquet):
        if len({re.sub(r"\d+", "0", name) for name in top}) > 1:  # parts of one table are numbered
            raise ValueError(f"{folder} holds several tables, {top}: name one of them as the source")
        return files.table_source(folder, top, names, settings, seed, asked)
    elif parquet:
        source = hub.parquet_source(folder, parquet, settings, seed)
        source.notes |= files.ignored(names, {*parquet, *images})
    elif images and len(tables) != 1:
        raise ValueError(
            f"{folder} holds {len(images)} images and no texts: put NAME.txt beside each image, or add a metadata.csv "
            f"with the columns file_name and text{_annotations(folder, names)}{_classes(folder, images)}"
        )
    elif len(tables) == 1:
        return files.table_source(folder, tables, names, settings, seed, asked)
    else:
        raise ValueError(f"{folder} holds nothing to read{_foreign(names)}; a source is {ACCEPTED}")
    if images:
        source.notes |= {"ignored_images": len(images)}
    return source


def _top(tables: list[str]) -> list[str]:
    """The tables that lie in the folder itself, or in that of its split."""
    return [name for name in tables if "/" not in name or (name.count("/") == 1 and splits.split_of(name))]


def _names_one(folder: Path, tables: list[str], images: set[str]) -> bool:
    """Whether a table is about the images that lie beside it; one that cannot be read is about nothing."""
    known = images | {Path(name).name for name in images}
    for table in tables:
        with contextlib.suppress(ValueError):
            rows = islice((row for _, row in read_rows(folder / table) if isinstance(row, dict)), 100)
            values = {Path(value).name for row in rows for value in row.values() if isinstance(value, str)}
            if values & known:
                return True
    return False


def _annotations(folder: Path, names: Iterable[str]) -> str:
    """What to do with Karpathy's or COCO's captions, if they are there."""
    like = re.compile(r"(caption|annotation|dataset_)[^/]*\.json$", re.IGNORECASE)
    found = next(filter(like.search, names), None)
    return f"; {found} looks like captions: name {folder / found} as the source" if found else ""


def _classes(folder: Path, images: Iterable[str]) -> str:
    """What to do with images that are sorted into folders."""
    found = sorted({name for name in map(class_of, images) if name})
    shown = ", ".join(found[:3]) + (", …" if len(found) > 3 else "")
    return f". If its folders are classes ({shown}): {folder}?text={FOLDER_TEXT}" if len(found) > 1 else ""


def _foreign(names: Iterable[str]) -> str:
    """What a file of a kind that is not read is, and what to do."""
    words = next((_FOREIGN[end] for name in names if (end := Path(name).suffix.lower()) in _FOREIGN), "")
    return f" ({words})" if words else ""
