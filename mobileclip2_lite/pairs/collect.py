"""Pairs from anywhere into shards of one form: the first stage of the way.

Paper: MobileCLIP2 (arXiv 2508.20691), section 3, starts from the pairs of DFN-2B; here they come from any of `sources`.
Reads a source and never changes it; writes `shard-000000.tar` ..., `dropped.jsonl` (one line a record that did not
become a pair: key, reason, detail) and `manifest.json`. JPEG, PNG and WebP bytes stay untouched; any other format that
PIL reads becomes PNG with the same RGB (an animation gives its first frame). The text loses the white space around it.
Rows of one image become one sample that holds the image once and all its texts (`Pairs.group`).
Taught by notebooks/00_start_here.ipynb.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mobileclip2_lite.pairs.sources import Record, Source, open_source, options_asked
from mobileclip2_lite.recipes import Pairs, World
from mobileclip2_lite.recipes.data_settings import LATER
from mobileclip2_lite.shards.samples import Pair, write_shard
from mobileclip2_lite.views.decoding import BadImage, orientation_of
from mobileclip2_lite.views.images import image_bytes, storable
from mobileclip2_lite.work.bad_sample import BadSample
from mobileclip2_lite.work.files import sha256_bytes, to_json, write_atomic
from mobileclip2_lite.work.folder import Work
from mobileclip2_lite.work.json_lines import read_lines, to_lines
from mobileclip2_lite.work.place import place_of
from mobileclip2_lite.work.randomness import stable_uid
from mobileclip2_lite.work.shardwise import each_shard, find_or_make
from mobileclip2_lite.work.texts import NoText, texts_of

VERSION = 1
"""Raise it when this stage, or what the embedded world draws, changes what is written."""
_OURS = ("uid", "schema", "source", "width", "height", "sha256")


class Dropped(BadSample):
    """A record that cannot become a pair."""


def make_pairs(
    settings: Pairs, out: str | os.PathLike, world: World | None = None, seed: int = 0, dataset: Any = None
) -> dict:
    """Collect pairs into shards; finds finished work, and goes on where a killed run was.

    Args:
        settings: source, count, shard size, columns.
        out: folder to write, outside the source.
        world: the embedded world, where that is the source; default `World()`.
        seed: which records are taken, where a source that can be indexed has more than `count`. Tars and streams are
            read in their order.
        dataset: a `datasets.Dataset` or `IterableDataset` to take instead of `settings.source`.

    Returns:
        The manifest, with `samples`, `texts` where there are more, `turned` (images whose EXIF turns them: their pixels
        are taken as they lie, or turned with `settings.upright`), `dropped` (by reason) and `shards` (name, sha256,
        samples, bytes, dropped).

    Raises:
        ValueError: the source is of no known kind, lacks a column or gives not one pair; or `out` lies in the source.
        FileNotFoundError, OSError, TypeError: the source is missing or cannot be opened; see `sources.open_source`.
        StageMismatch: `out` holds other work, or the source has changed since.
        FolderLocked: another process writes `out`.
    """
    out = place_of(out)
    if settings.samples_per_shard < 1 or settings.count < 0:
        raise ValueError(f"samples_per_shard must be 1 or more and count 0 or more, not {settings}")
    if dataset is None and isinstance(out, Path) and (path := options_asked(settings.source)[0]).is_dir():
        inside = path.resolve()
        if inside == out.resolve() or inside in out.resolve().parents:
            raise ValueError(f"{out} lies in the source {settings.source}, which stays as it is: name another folder")
    source = open_source(settings, world, seed, dataset)
    usual = {"group": True, **LATER}  # folders made before there was a choice stay found
    known = ("source", *(name for name, value in usual.items() if getattr(settings, name) == value))
    chosen = {name: value for name, value in to_json(settings).items() if name not in known}
    work = Work(out, "pairs", VERSION, {**chosen, "seed": seed}, {"source": source.identity})

    def make() -> dict:
        records = Collector(settings, source).collect(work)
        label = source.identity["kind"] if dataset is not None else settings.source
        return _content(records, out, {"source": label, **source.notes})

    return find_or_make(work, make, functools.partial(_left_over, out))


def read_dropped(out: str | os.PathLike) -> Iterator[dict]:
    """The lines of a folder's `dropped.jsonl`: key, reason, detail."""
    return read_lines(place_of(out) / "dropped.jsonl")


class Collector:
    """Takes the source's records, a shard's worth at a time; the records of finished shards say where to go on."""

    def __init__(self, settings: Pairs, source: Source) -> None:
        self.settings, self.source = settings, source
        self.limit = settings.count or float("inf")
        self.seen: set[str] = set()
        self.kept, self.number, self.ended = 0, 0, False
        self.position: list = []
        """Of the last record in finished shards."""
        self.read_to: list = []
        """Of the last record that was read; `records` goes on behind it."""
        self.records: _Ahead | None = None
        self.bar: Any = None

    def names(self) -> Iterator[str]:
        """The shards to come; whether there is another shows only when `take` has had the one before."""
        while not self.ended and self.kept < self.limit:
            yield f"shard-{self.number:06d}.tar"

    def take(self, record: dict) -> None:
        """Go on behind a finished shard."""
        self.seen.update(record["uids"])
        self.kept += record["samples"]
        self.position, self.ended = record["position"], record["ended"]
        self.number += 1
        self.bar.n = self.kept
        self.bar.refresh()

    def collect(self, work: Work) -> list[dict]:
        """The shards' records."""
        from tqdm import tqdm

        known = self.source.total
        total = min(known, self.limit) if known is not None else (self.settings.count or None)
        records = []
        with tqdm(total=total, desc="pairs", unit=" pairs", disable=None) as self.bar:
            for record in each_shard(work.folder, work.key, self.names(), lambda: self.write):
                self.take(record)
                records.append(record)
        return records

    def write(self, target: Path) -> dict:
        """Write one shard; the content of its record."""
        if self.records is None or self.read_to != self.position:  # at the start, and behind shards that were found
            self.records, self.read_to = _Ahead(self.source.records(self.position)), self.position
        wanted = int(min(self.settings.samples_per_shard, self.limit - self.kept))
        pairs, dropped, ended = self._gather(wanted)
        info = write_shard(target, pairs)._asdict() if pairs else {"sha256": "", "samples": 0, "bytes": 0}
        info["texts"] = sum(len(pair.texts) for pair in pairs)
        if self.settings.upright:
            info["turned"] = sum("turned" in pair.meta for pair in pairs)
        else:
            info["turned"] = sum(1 < orientation_of(pair.image) < 9 for pair in pairs)
        uids = [pair.uid for pair in pairs]
        return {**info, "position": self.read_to, "ended": ended, "uids": uids, "dropped": dropped}

    def _gather(self, wanted: int) -> tuple[list[Pair], list[dict], bool]:
        """The samples of one shard, the records that became none, whether the source ended.

        Rows of a sample that is there join it.
        """
        records = self.records
        dropped: list[dict] = []
        rows: dict[str, list[Pair]] = {}  # by the image's hash, or by uid where every row is a sample
        decoded: dict[str, tuple] = {}
        while len(rows) < wanted or self.settings.group:
            full = len(rows) >= wanted  # now only rows of an image that is there
            record = next(records, None)
            if record is None:
                break
            try:
                pair = check(record, decoded, self.settings.upright)
                same = pair.meta["sha256"] if self.settings.group else pair.uid
                if (same not in rows or not self.settings.group) and pair.uid in self.seen:
                    raise Dropped("duplicate_uid", f"uid {pair.uid}")
            except Dropped as error:
                if full:
                    records.back(record)
                    break
                self.read_to = record.position
                dropped.append({"key": record.key, "reason": error.reason, "detail": error.detail})
                continue
            if full and same not in rows:
                records.back(record)
                break
            self.read_to = record.position
            if same not in rows:
                self.seen.add(pair.uid)
                self.bar.update()
            rows.setdefault(same, []).append(pair)
        return [_one(some) for some in rows.values()], dropped, record is None


class _Ahead:
    """Records of which the last can be put back."""

    def __init__(self, records: Iterator[Record]) -> None:
        self.records, self.waiting = records, []

    def __next__(self) -> Record:
        return self.waiting.pop() if self.waiting else next(self.records)

    def __iter__(self) -> _Ahead:
        return self

    def back(self, record: Record) -> None:
        """Put `record` back: it comes next."""
        self.waiting.append(record)


def _one(rows: list[Pair]) -> Pair:
    """One sample of all rows of an image: its texts without repetitions; a column that differs becomes a list."""
    first = rows[0]
    if len(rows) == 1:
        return first
    meta = dict(first.meta)
    for name in dict.fromkeys(name for row in rows for name in row.meta if name not in (*_OURS, "texts")):
        values = [row.meta.get(name) for row in rows]
        meta[name] = values[0] if all(value == values[0] for value in values) else values
    texts = list(dict.fromkeys(text for row in rows for text in row.texts))
    return dataclasses.replace(first, meta={**meta, "texts": texts} if len(texts) > 1 else meta)


def check(record: Record, decoded: dict[str, tuple] | None = None, upright: bool = False) -> Pair:
    """The pair that a record makes.

    Args:
        decoded: keeps what is known of the last image, so that the next row of the same image need not decode it.
        upright: an image that its EXIF turns is turned.

    Raises:
        Dropped: it makes none; `reason` is one of the source's own (`no_text`, `no_image`, `bad_row`, `bad_json`,
            `damaged_tar`, `image_is_url`, `unreadable_file`), or `empty_text`, `text_not_string`, `text_not_utf8`,
            or one of `views.images.image_bytes` and `views.decoding.pixels`.
    """
    if record.problem:
        raise Dropped(record.problem, record.detail)
    text = _text(record)
    decoded = {} if decoded is None else decoded
    try:
        given = image_bytes(record.image)
        if (key := sha256_bytes(given)) not in decoded:
            decoded.clear()
            decoded[key] = storable(given, upright)
    except BadImage as error:
        detail = record.detail if record.image is None and record.detail else error.detail
        raise Dropped(error.reason, detail) from error
    data, ext, size, changed = decoded[key]
    digest = sha256_bytes(data)
    uid = record.uid or stable_uid(record.name if record.name is not None else f"{digest}\n{text}")
    ours = (*_OURS, "turned") if upright else _OURS
    user = {f"user_{name}" if name in ours else name: value for name, value in record.meta.items()}
    meta = {"source": record.key, "width": size[0], "height": size[1], "sha256": digest, **changed, **user}
    return Pair(uid=uid, image=data, ext=ext, text=text, meta=meta)


def _text(record: Record) -> str:
    """The text without the white space around it; of a list the first that is not empty, and all of them in `meta`."""
    try:
        texts = texts_of(record.text)
    except NoText as error:
        detail = record.detail if error.reason == "no_text" and record.detail else error.detail
        raise Dropped(error.reason, detail) from error
    if len(texts) > 1:
        record.meta["texts"] = texts
    return texts[0]


def _left_over(out: Path) -> list[Path]:
    """The records of single shards, which a finished folder does not need (`progress-` of earlier versions)."""
    return [*out.glob("shard-*.json"), *out.glob("progress-*.json")]


def _content(records: Sequence[dict], out: Path, notes: dict) -> dict:
    """The manifest's content; writes `dropped.jsonl`, too."""
    shards, lines, texts = [], [], 0
    if turned := sum(record.get("turned", 0) for record in records):
        notes = {**notes, "turned": turned}
    for record in records:
        texts += record["texts"]
        reasons = Counter(item["reason"] for item in record["dropped"])
        lines += record["dropped"]
        if record["samples"]:
            shards.append({key: record[key] for key in ("name", "sha256", "samples", "bytes")} | {"dropped": reasons})
        elif shards:  # what was dropped after the last full shard
            shards[-1]["dropped"] += reasons
        else:
            _give_up(out, notes["source"], reasons, record["dropped"])
    for shard in shards:
        shard["dropped"] = dict(sorted(shard["dropped"].items()))
    total = sum((Counter(shard["dropped"]) for shard in shards), Counter())
    samples = sum(shard["samples"] for shard in shards)
    if texts > samples:
        notes = {**notes, "texts": texts}
    write_atomic(out / "dropped.jsonl", to_lines(lines))
    return {
        **notes,
        "samples": samples,
        "dropped": dict(sorted(total.items())),
        "shards": shards,
    }


def _give_up(out: Path, source: str, reasons: Counter, dropped: list[dict]) -> None:
    """Not one pair: say why, and leave only the record of it, so that the next try begins anew."""
    write_atomic(out / "dropped.jsonl", to_lines(dropped))
    for path in _left_over(out) if isinstance(out, Path) else ():
        path.unlink(missing_ok=True)
    counted = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items())) or "it is empty"
    first = f"; the first is {dropped[0]['key']}: {dropped[0]['detail']}" if dropped else ""
    raise ValueError(f"{source} gives no pair ({counted}){first}. See {out / 'dropped.jsonl'}")
