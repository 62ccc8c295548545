"""The record of one shard, which stands beside it: whether the shard is finished, made once, and summed up with others.

A record is written after its shard and names its hash, so a shard without one, or of another hash, is made again. The
key in it says of which work it is. Taught by notebooks/70_scaling.ipynb.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mobileclip2_lite.work.files import pretty, sha256_file, write_atomic
from mobileclip2_lite.work.place import Place, StorePath, made_here

Worker = Callable[[Path], dict[str, Any]]
"""Makes one shard: writes the file it is given and returns its record's content, `sha256` of the file among it; a
record without `sha256` stands for itself, and no file is looked for."""


def once(shard: Place, key: str, make: Worker, suffix: str = ".json") -> dict[str, Any]:
    """The record of one shard of a folder, which stands beside it: of the shard that is there, or of the one it makes.

    Args:
        shard: the tar.
        key: of the work; a shard of other work, or one that is damaged, is made again.
        make: writes the tar to the path that it is given, of the same name, and returns the content of its record.

    Raises:
        store.Clash: a store has another tar of this name.
    """
    record = shard.with_suffix(suffix)
    if found := finished(shard, record, key):
        return found
    with made_here(shard) as target:
        content = {"key": key, "name": shard.name, **make(target)}
    write_atomic(record, pretty(content))
    return content


def finished(shard: Place, record: Place, key: str) -> dict[str, Any] | None:
    """The record of a shard that this work has finished, None if it must be made; a damaged tar is made again."""
    try:
        found = json.loads(record.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    if not isinstance(found, dict) or found.get("key") != key:
        return None
    if not found.get("sha256"):
        return found
    if not shard.is_file():
        return None
    if isinstance(shard, StorePath) and "bytes" in found:  # a store does not change what it has taken whole
        return found if shard.stat().st_size == found["bytes"] else None
    return found if found["sha256"] == sha256_file(shard) else None


def name_shard(error: Exception, shard: Path) -> None:
    """Put the shard's name before an error's message, unless it is there."""
    if shard.name in str(error):
        return
    if isinstance(error, OSError) and error.errno is not None:
        error.filename = error.filename or str(shard)
    elif error.args and isinstance(error.args[0], str):
        error.args = (f"{shard}: {error.args[0]}", *error.args[1:])
    else:
        error.add_note(f"while {shard} was made")


def listed(records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What a manifest says of each shard, from the shards' records."""
    return [{key: record[key] for key in ("name", "sha256", "samples", "bytes", "dropped")} for record in records]


def totals(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a manifest says of all shards together, `dropped` by reason, and of each (`shards`)."""
    dropped: Counter = Counter()
    for record in records:
        dropped.update(record["dropped"])
    return {
        "samples": sum(record["samples"] for record in records),
        "bytes": sum(record["bytes"] for record in records),
        "dropped": dict(sorted(dropped.items())),
        "shards": listed(records),
    }
