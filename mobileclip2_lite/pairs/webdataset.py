"""WebDataset tars as a source of pairs: one key, one record; a damaged tar is a record too.

Reads tars (also gzipped ones) member by member and writes nothing; unlike the `webdataset` package it never unpickles a
member, and it tells a tar that was cut short from one that ended. Taught by notebooks/00_start_here.ipynb.
"""

from __future__ import annotations

import glob
import json
import os
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from mobileclip2_lite.pairs.files import IMAGE_SUFFIXES, quick_digest
from mobileclip2_lite.pairs.records import TEXT_COLUMNS, Record, Source, user_meta

SUFFIXES = (".tar", ".tar.gz", ".tgz")
"""Ends of file names that are read as WebDataset tars."""
_IMAGES = tuple(suffix[1:] for suffix in IMAGE_SUFFIXES)
_Group = dict[str, bytes]


def expand(pattern: str) -> list[Path]:
    """The files of `path/{000..003}.tar`, `path/*.tar` or a plain path, in order.

    Raises:
        FileNotFoundError: one of them does not exist, or nothing matches.
        ValueError: the braces do not match.
    """
    if Path(pattern).is_file():
        return [Path(pattern)]
    from braceexpand import UnbalancedBracesError, braceexpand

    try:
        names = list(braceexpand(pattern, escape=False)) if "{" in pattern else [pattern]
    except UnbalancedBracesError as error:
        raise ValueError(f"{pattern}: {error}; write it as path/{{000..003}}.tar") from error
    paths = [Path(p) for name in names for p in (sorted(glob.glob(name)) if "*" in name or "?" in name else [name])]
    missing = [str(path) for path in paths if not path.is_file()]
    if missing or not paths:
        what = (
            f"{len(missing)} of {len(paths)} files do not exist, the first is {missing[0]}"
            if paths
            else "no such files"
        )
        raise FileNotFoundError(f"{pattern}: {what}")
    return paths


def tar_source(paths: Sequence[Path], image_key: str | None, text_key: str | None) -> Source:
    """The samples of `paths`, tar by tar.

    Args:
        image_key: the member that holds the image (`jpg`); None takes the first with an image's extension.
        text_key: the member (`txt`) or the key in the `json` member that holds the text; None finds it.
    """
    folder = Path(os.path.commonpath([path.absolute().parent for path in paths]))
    names = [path.absolute().relative_to(folder).as_posix() for path in paths]
    identity = {"kind": "tars", "files": [[name, quick_digest(path)] for name, path in zip(names, paths, strict=True)]}

    def records(start: list[int]) -> Iterator[Record]:
        first, skip = start or (0, 0)
        for t in range(first, len(paths)):
            done = skip if t == first else 0
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
        except ValueError as error:  # UnicodeDecodeError is one too
            record.problem, record.detail = "bad_json", f"member json: {error}"
            return record
        if not isinstance(meta, dict):
            record.problem, record.detail = "bad_json", f"member json is a {type(meta).__name__}, not an object"
            return record
    image = image_key or next((name for name in group if name in _IMAGES), None)
    record.image = group.get(image)
    column = text_key or next((name for name in ("txt", *TEXT_COLUMNS) if name in group or name in meta), None)
    record.text = group.get(column, meta.get(column))
    if record.image is None or record.text is None:
        record.detail = f"members: {', '.join(group) or 'none that counts'}"
        record.detail += f"; json: {', '.join(meta)}" if meta else ""
    if isinstance(uid := meta.get("uid"), (str, int)):
        record.uid = str(uid)
    record.name = f"{tar}/{key}"
    record.meta = user_meta(meta, without=("uid", "schema") if column in group else ("uid", "schema", column))
    return record


def _groups(path: Path, image_key: str | None, text_key: str | None) -> Iterator[tuple[str, _Group | str]]:
    """(key, members) in the order of the tar; at last (key, what is wrong) if it is damaged."""
    key, group = "", None
    try:
        with tarfile.open(path, "r:*") as tar:
            while (entry := tar.next()) is not None:
                if not entry.isreg():
                    continue
                folder, _, name = entry.name.rpartition("/")
                stem, _, extension = name.partition(".")
                this, extension = f"{folder}/{stem}" if folder else stem, extension.lower()
                if group is None or this != key or extension in group:  # a repeated member begins another sample
                    if group is not None:
                        yield key, group
                    key, group = this, {}
                if extension in ("txt", "json", image_key, text_key, *_IMAGES, *TEXT_COLUMNS):
                    group[extension] = tar.extractfile(entry).read()
            tar.fileobj.seek(tar.offset)
            mark = tar.fileobj.read(tarfile.BLOCKSIZE)
            if mark.strip(b"\0") or not mark:  # tarfile takes both for the end
                what = "header is corrupt: what follows is lost" if mark else "end mark is missing: it was cut short"
                damage = f"byte {tar.offset}: the {what}"
            else:
                damage = None
    except FileNotFoundError:
        raise
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        yield key, f"{error or type(error).__name__} after key {key!r}: this sample and what follows it are lost"
        return
    if group is not None:
        yield key, group
    if damage:
        yield "", damage
