"""Shards that were given up: `failed.jsonl`, which lists them with their reasons until they are tried again.

A shard that ends its workers three times is no reason to stop the others; the run ends with `ShardsFailed`, without a
manifest, and the next one leaves such shards alone unless it is asked to try them (`--retry-failed`).
Taught by notebooks/70_scaling.ipynb.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mobileclip2_lite.work.crew import Failed
from mobileclip2_lite.work.files import write_note
from mobileclip2_lite.work.json_lines import read_lines, to_lines
from mobileclip2_lite.work.place import Place

FAILED = "failed.jsonl"


class ShardsFailed(RuntimeError):
    """All shards are made but a few, which `failed.jsonl` lists with their reasons; the folder is not finished."""


def read_failed(folder: Place) -> dict[str, dict[str, Any]]:
    """Shard -> line of `failed.jsonl`: name, reason, tries.

    Raises:
        ValueError: it is not a list of shards; names the file.
    """
    path = folder / FAILED
    if not path.is_file():
        return {}
    try:
        return {line["name"]: {**line, "reason": line["reason"]} for line in read_lines(path)}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is no list of shards that failed ({type(error).__name__}: {error}): remove the file, and the "
            "shards that it stood for are tried again"
        ) from error


def settle(folder: Place, before: dict, left_out: dict, failed: Sequence[Failed]) -> None:
    """Write `failed.jsonl` anew, and raise if anything stands in it."""
    now = {one.item: {"name": one.item, "reason": one.reason, "tries": one.tries} for one in failed}
    lines = {**left_out, **now}
    if lines != before:
        write_note(folder / FAILED, to_lines(lines[name] for name in sorted(lines)))
    if not lines:
        if before and isinstance(folder, Path):
            (folder / FAILED).unlink(missing_ok=True)
        return
    first = lines[min(lines)]
    count = f"{len(lines)} {'shard' if len(lines) == 1 else 'shards'}"
    raise ShardsFailed(
        f"{count} failed, {first['name']} with {first['reason']}; all are listed in {folder / FAILED}, all others are "
        "made. Mend the cause and run again with retry_failed (--retry-failed)"
    )
