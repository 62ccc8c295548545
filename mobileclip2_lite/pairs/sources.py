"""Where pairs come from: whatever a user has, opened as one stream of records.

`open_source` looks at what it is given and hands it to `files` (folders, CSV, JSON Lines), `tars` (WebDataset) or `hub`
(`datasets`, parquet, the embedded world). Nothing at the source is ever written. Every source says by what its content
is recognised, so that finished work is found again, and can go on from any record.
Taught by notebooks/00_start_here.ipynb.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mobileclip2_lite.pairs import files
from mobileclip2_lite.pairs import hf_datasets as hub
from mobileclip2_lite.pairs import webdataset as tars
from mobileclip2_lite.pairs.records import Record, Source
from mobileclip2_lite.recipes import Pairs, World
from mobileclip2_lite.work.files import to_json

__all__ = ["Record", "Source", "open_source"]

ACCEPTED = (
    "emoji_world, a folder, a .csv, .tsv, .jsonl or .parquet file, WebDataset tars (path/{000..003}.tar), or hf:NAME"
)


def open_source(settings: Pairs, world: World | None = None, seed: int = 0, dataset: Any = None) -> Source:
    """The source that `settings.source` names, or `dataset`.

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
    if name.startswith("hf:"):
        return hub.hub_source(name, settings, seed)
    path = Path(name)
    if path.is_dir():
        return _folder_source(path, settings, seed)
    if name.lower().endswith(tars.SUFFIXES):
        return tars.tar_source(tars.expand(name), settings.image_key, settings.text_key)
    if not path.is_file():
        raise FileNotFoundError(f"the source {name!r} does not exist; a source is {ACCEPTED}")
    if path.suffix.lower() in files.TABLE_SUFFIXES:
        return files.table_source(path.parent, [path.name], None, settings, seed)
    if path.suffix.lower() == ".parquet":
        return hub.parquet_source(path.parent, [path.name], settings, seed)
    raise ValueError(f"the source {name!r} is of no known kind; a source is {ACCEPTED}")


def _world_source(settings: Pairs, world: World, seed: int) -> Source:
    if settings.count < 1:
        raise ValueError("the embedded world is endless: say how many pairs to take (count)")

    def load() -> Any:
        from mobileclip2_lite.emoji_world import pairs_dataset

        return pairs_dataset(world, settings.count, streaming=True)

    source = hub.rows_source(load, {"kind": "emoji_world", "world": to_json(world)}, settings, seed)
    source.total = settings.count
    return source


def _folder_source(folder: Path, settings: Pairs, seed: int) -> Source:
    """What kind of folder it is, by what lies in it; what is named on purpose (`metadata.*`) goes first."""
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        return hub.saved_source(folder, settings, seed)
    names = files.scan(folder)
    tables = [name for name in names if Path(name).suffix.lower() in files.TABLE_SUFFIXES]
    if named := [name for name in tables if Path(name).stem == "metadata"]:
        return files.table_source(folder, named, names, settings, seed)
    images = {name.rpartition(".")[0] for name in names if Path(name).suffix.lower() in files.IMAGE_SUFFIXES}
    if any(name[:-4] in images for name in names if name.lower().endswith(".txt")):
        return files.beside_source(folder, names, settings.count, seed)
    found = [name for name in names if name.lower().endswith(tars.SUFFIXES)]
    if found and not images:  # a table or parquet beside tars says how they were made
        return tars.tar_source([folder / name for name in found], settings.image_key, settings.text_key)
    if top := [name for name in tables if "/" not in name]:
        if len(top) > 1:
            raise ValueError(f"{folder} holds several tables, {top}: name one of them as the source")
        return files.table_source(folder, top, names, settings, seed)
    if parquet := [name for name in names if name.lower().endswith(".parquet") and not images]:
        return hub.parquet_source(folder, parquet, settings, seed)
    if images:
        raise ValueError(
            f"{folder} holds {len(images)} images and no texts: put NAME.txt beside each image, or add a metadata.csv "
            f"with the columns file_name and text"
        )
    raise ValueError(f"{folder} holds nothing to read; a source is {ACCEPTED}")
