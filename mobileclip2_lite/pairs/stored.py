"""Tars and parquet files in stores as sources of pairs: listed, one split of them taken, read one after the other.

The paper's pairs lay in such stores. A web server lists nothing, so its files are named. Reads only.
Taught by notebooks/70_scaling.ipynb.
"""

from __future__ import annotations

from mobileclip2_lite.pairs import hf_datasets as hub
from mobileclip2_lite.pairs import splits
from mobileclip2_lite.pairs import webdataset as tars
from mobileclip2_lite.pairs.records import Source
from mobileclip2_lite.recipes import Pairs
from mobileclip2_lite.shards.samples import shard_names
from mobileclip2_lite.work.files import scan
from mobileclip2_lite.work.place import StorePath, place_of


def stored_source(name: str, settings: Pairs, seed: int) -> Source | None:
    """Tars or parquet files by name, braces or wildcards, or those that lie below a folder; None where there are none.

    Args:
        name: address, with `?split=NAME` or without; `?text=` is for images, which tars and parquet files are not.
    """
    whole, (name, _, asked) = name, name.partition("?split=")
    named = name.lower().endswith((*tars.SUFFIXES, ".parquet"))
    found = tars.expand(name) if named else _below(place_of(name.partition("?")[0]))
    if not found or "?text=" in whole:
        return None
    names, notes = tars.names_of(found), {}
    if asked or not named or "*" in name:
        chosen, notes = splits.choose(
            [splits.split_of(one) for one in names], asked or None, name, ["file"] * len(names)
        )
        found, names = [found[k] for k in chosen], [names[k] for k in chosen]
    if names[0].lower().endswith(".parquet"):
        folder = place_of(str(found[0])[: -len(names[0]) - 1])
        source = hub.parquet_source(folder, names, settings, seed)
    else:
        source = tars.tar_source(found, settings.image_key, settings.text_key)
    source.notes |= notes
    return source


def _below(folder: StorePath) -> list[StorePath]:
    """The tars below a store's folder, those of its manifest if it has one; where there are none, its parquet files."""
    names = shard_names(folder) if (folder / "manifest.json").is_file() else scan(folder)
    for ends in (tars.SUFFIXES, ".parquet"):
        if found := [folder / name for name in names if name.lower().endswith(ends)]:
            return found
    return []
