"""WebDataset tars as a source of pairs: one key, one record; a damaged tar is a record too.

Reads tars and writes nothing (a compressed one is unpacked into a nameless temporary file); unlike the `webdataset`
package it never unpickles a member, and it tells a tar that was cut short from one that ended. How members become
samples: `shards.tar_members`. Taught by notebooks/00_start_here.ipynb.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path

from mobileclip2_lite.pairs.files import quick_digest
from mobileclip2_lite.pairs.records import TEXT_COLUMNS, Record, Source, uid_of, user_meta
from mobileclip2_lite.shards.tar_members import IMAGES, ShardError, list_samples
from mobileclip2_lite.shards.tars import unpacked
from mobileclip2_lite.work.place import StorePath, fetch_ahead, place_of

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
"""Ends of file names that are read as WebDataset tars."""
_Group = dict[str, bytes]


def expand(pattern: str) -> list[Path | StorePath]:
    """The files of `path/{000..003}.tar`, `path/*.tar` or a plain path, in order; `path` may be a store's address.

    Raises:
        FileNotFoundError: one of them does not exist, or nothing matches.
        ValueError: the braces do not match.
    """
    if (whole := place_of(pattern)).is_file():
        return [whole]
    from braceexpand import UnbalancedBracesError, braceexpand

    try:
        names = list(braceexpand(pattern, escape=False)) if "{" in pattern else [pattern]
    except UnbalancedBracesError as error:
        raise ValueError(f"{pattern}: {error}; write it as path/{{000..003}}.tar") from error
    paths = [path for name in names for path in _matches(name)]
    missing = [str(path) for path in paths if not path.is_file()]
    if missing or not paths:
        what = (
            f"{len(missing)} of {len(paths)} files do not exist, the first is {missing[0]}"
            if paths
            else "no such files"
        )
        raise FileNotFoundError(f"{pattern}: {what}")
    return paths


def _matches(name: str) -> list[Path | StorePath]:
    where = place_of(name)
    if "*" not in name and "?" not in name:
        return [where]
    return sorted(where.parent.glob(where.name) if isinstance(where, StorePath) else map(Path, glob.glob(name)))


def names_of(paths: Sequence[Path | StorePath]) -> list[str]:
    """The paths relative to the folder that all of them lie in."""
    whole = [path.absolute().as_posix().split("/") for path in paths]
    columns = zip(*(parts[:-1] for parts in whole), strict=False)  # os.path.commonpath takes a slash from s3://
    shared = len(list(takewhile(lambda column: len(set(column)) == 1, columns)))
    return ["/".join(parts[shared:]) for parts in whole]


def tar_source(paths: Sequence[Path | StorePath], image_key: str | None, text_key: str | None) -> Source:
    """The samples of `paths`, tar by tar.

    Args:
        image_key: the member that holds the image (`jpg`); None takes the first with an image's extension.
        text_key: the member (`txt`) or the key in the `json` member that holds the text; None finds it.
    """
    names = names_of(paths)
    identity = {"kind": "tars", "files": [[name, quick_digest(path)] for name, path in zip(names, paths, strict=True)]}

    def records(start: list[int]) -> Iterator[Record]:
        first, skip = start or (0, 0)
        for t in range(first, len(paths)):
            done = skip if t == first else 0
            for soon in paths[t + 1 : t + 3]:
                fetch_ahead(soon)
            for number, (key, group) in enumerate(_groups(paths[t], image_key, text_key), 1):
                if number > done:
                    yield _record(names[t], key, group, [t, number], image_key, text_key)

    return Source(identity, records)


def _record(tar: str, key: str, group: _Group | str, position: list[int], image_key: str | None, text_key: str | None):
    record = Record(key=f"{tar}/{key}" if key else tar, position=position)
    if isinstance(group, str):
        record.problem, record.detail = "damaged_tar", group
        return record
    meta = {}
    if "json" in group:
        try:
            meta = json.loads(group["json"])
        except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
            record.problem, record.detail = "bad_json", f"member json: {error}"
            return record
        if not isinstance(meta, dict):
            record.problem, record.detail = "bad_json", f"member json is a {type(meta).__name__}, not an object"
            return record
    image = image_key or next((name for name in group if name in IMAGES), None)
    record.image = group.get(image)
    column = text_key or next((name for name in ("txt", *TEXT_COLUMNS) if name in group or name in meta), None)
    record.text = group.get(column, meta.get(column))
    if record.image is None or record.text is None:
        record.detail = f"members: {', '.join(group) or 'none that counts'}"
        record.detail += f"; json: {', '.join(meta)}" if meta else ""
    record.uid = uid_of(meta.get("uid"))
    record.name = f"{tar}/{key}"
    record.meta = user_meta(meta, without=("uid", "schema") if column in group else ("uid", "schema", column))
    return record


def _groups(path: Path, image_key: str | None, text_key: str | None) -> Iterator[tuple[str, _Group | str]]:
    """(key, members) in the order of the tar; at last (key, what is wrong) if it is damaged."""
    read = {"txt", "json", image_key, text_key, *IMAGES, *TEXT_COLUMNS}
    try:
        data, cut = unpacked(path)
    except ShardError as error:
        yield "", _words(error, path)
        return
    with data:
        listing = list_samples(data, path.name)
        damage = _words(cut or listing.damage, path) if cut or listing.damage else ""
        half = ""
        for number, (key, members) in enumerate(listing.samples):
            group = {name: data[at : at + size] for name, (at, size) in members.items() if name in read}
            if damage and number == listing.last and not _complete(group):
                half = key  # what it lacks is lost in the damage
                continue
            yield key, group
    if damage:
        yield half, damage


def _complete(group: _Group) -> bool:
    return any(name in IMAGES for name in group) and any(name in ("json", *TEXT_COLUMNS) for name in group)


def _words(error: Exception | str, path: Path) -> str:
    """What is wrong, without the folder, which is another in another run."""
    words = str(error).removeprefix(f"{path}: ").removeprefix(f"{path.name}: ")
    return f"{words}: what follows is lost"
