"""DFN-style filtering: a small CLIP that learned from few clean pairs scores the web's pairs, and the best are kept.

Paper: MobileCLIP2 (arXiv 2508.20691) trains on DFN's data, with DFN's teachers and captioners (+1.5 % ImageNet for the
data alone); the filter itself is Data Filtering Networks (arXiv 2309.17425): the cosine of image and text of a CLIP
trained on high-quality pairs decides. Reads a folder of pair shards, captioned or not; writes the same shards with only
the kept pairs, every member's bytes as they were, `scores.jsonl` and a manifest. Differs from DFN: a share of this very
folder is kept, to the pair, with ties broken by uid, and the result depends neither on the batch size nor on
interruptions. `filter_report` shows what was removed. Taught by notebooks/20_captioner_finetuning.ipynb.
"""

from __future__ import annotations

import functools
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mobileclip2_lite.filtering.scoring import DIGITS, SCORES, Scored, ShardScorer, describe
from mobileclip2_lite.models.embedded import Travelling, load
from mobileclip2_lite.shards.tars import read_tar, write_tar
from mobileclip2_lite.work.crew import Spread
from mobileclip2_lite.work.files import canonical, sha256_bytes, written_beside
from mobileclip2_lite.work.folder import Work, read_manifest
from mobileclip2_lite.work.json_lines import read_lines, to_lines
from mobileclip2_lite.work.place import Place, place_of
from mobileclip2_lite.work.shardwise import each_shard, find_or_make

if TYPE_CHECKING:
    from mobileclip2_lite.models.loaded import LoadedModel
    from mobileclip2_lite.recipes import Filter

VERSION = 1
"""Raise it when this stage changes what it writes."""
_CARRIED = ("sample_schema", "teachers", "captioners")
"""What the source's manifest says about its samples, and what stays true of the kept ones."""


def filter_pairs(
    settings: Filter,
    pairs: str | os.PathLike,
    out: str | os.PathLike,
    loaded: LoadedModel | None = None,
    precision: str = "fp32",
    device: str | None = None,
    spread: Spread | None = None,
) -> dict:
    """Keep the best pairs of a folder; finished work is found, and a killed run goes on shard by shard.

    Two passes: every pair is scored, then the share is chosen over the whole folder and the shards are written.

    Args:
        settings: scorer, share or threshold (`recipes.Filter`).
        pairs: folder with shards and a manifest.
        out: folder to write; stages that take `pairs` take it.
        loaded: the scorer, already loaded (`zoo.create_model`); None loads `settings.scorer`.
        spread: over which workers (`crew.Spread`); None for this process.
        precision: `fp32`, or `bf16` for autocast; part of the work's identity, since it changes scores.
        device: where each worker puts the scorer (`embedded.pick_device`); None leaves a given one where it is, and
            takes a CUDA GPU, if there is one, for a named one.

    Returns:
        The manifest: `source`, `scorer` (name, sha256 over its tensors, preprocess), `samples` (kept), `removed`,
        `scored` (their sum), `threshold` (least score that was kept), `mean` (score of the kept, of the removed),
        `dropped` (pairs without a score, by reason) and `shards`. `scores.jsonl` in `out` holds one line a scored pair,
        in the folder's order: uid, score, kept.

    Raises:
        ValueError: a setting is out of range, no pair reaches the threshold, the folder holds no pair that can be
            scored, or the scorer gives scores that are not finite.
        FileNotFoundError: `pairs` is unfinished, or the embedded scorer is not there.
        StageMismatch: `out` holds other work. FolderLocked: another process writes `out`.
    """
    _check(settings, precision)
    device = device or ("auto" if loaded is None else None)
    loaded = loaded if loaded is not None else load(settings.scorer, "scorer", "cpu")
    pairs, out = place_of(pairs), place_of(out)
    scorer = describe(loaded, settings.scorer)
    chosen = {"keep": float(settings.keep)} if settings.keep else {"threshold": float(settings.threshold)}
    exact = {} if precision == "fp32" else {"precision": precision}
    work = Work(out, "filter", VERSION, {**chosen, **exact}, {"pairs": pairs, "scorer": scorer})
    source = read_manifest(pairs)
    names = [shard["name"] for shard in source["shards"]]

    def make() -> dict:
        # known by scorer and pairs alone: another share or threshold takes the same scores
        key = sha256_bytes(canonical([VERSION, source["key"], scorer, *exact.values()]))
        expected = {shard["name"]: shard.get("samples") for shard in source["shards"]}
        sent = Travelling(loaded, device)
        make_scorer = functools.partial(ShardScorer, sent, pairs, expected, settings.batch_size, precision)
        scored = each_shard(out, key, names, make_scorer, spread, suffix=SCORES)
        records = [Scored.of(record) for record in scored]
        kept = choose(settings, records)
        make_keeper = functools.partial(ShardKeeper, pairs, out, dict(zip(names, kept, strict=True)))
        written = list(each_shard(out, work.key, names, make_keeper, spread))
        _write_scores(out / "scores.jsonl", records, kept)
        return _summary(source, scorer, records, kept, written)

    return find_or_make(work, make, functools.partial(_left_over, out), spread)


def read_scores(folder: str | os.PathLike) -> Iterator[dict]:
    """The lines of a filtered folder's `scores.jsonl`: uid, score, kept."""
    return read_lines(place_of(folder) / "scores.jsonl")


def choose(settings: Filter, records: Sequence[Scored]) -> list[np.ndarray]:
    """Which pairs of each shard are kept, as booleans: exactly the share, or all that reach the threshold.

    Raises:
        ValueError: no pair was scored, or none reaches the threshold.
    """
    scores = np.concatenate([record.scores for record in records]) if records else np.zeros(0)
    if not len(scores):
        reasons = sum((Counter(record.dropped) for record in records), Counter())
        counted = ", ".join(f"{n} {why}" for why, n in sorted(reasons.items())) or "it is empty"
        raise ValueError(f"the folder holds no pair that can be scored ({counted}): look at it with `inspect`")
    if not settings.keep:
        if scores.max() < settings.threshold:
            raise ValueError(
                f"Filter.threshold = {settings.threshold} keeps nothing: the best of {len(scores)} pairs scores "
                f"{scores.max()}; lower it, or set keep"
            )
        return [record.scores >= settings.threshold for record in records]
    count = max(1, round(settings.keep * len(scores)))
    border = np.partition(scores, len(scores) - count)[len(scores) - count]
    kept = [record.scores > border for record in records]
    tied = [
        (record.uids[index], number, index)
        for number, record in enumerate(records)
        for index in np.flatnonzero(record.scores == border).tolist()
    ]
    for _, number, index in sorted(tied)[: count - int(sum(map(np.sum, kept)))]:
        kept[number][index] = True
    return kept


def _check(settings: Filter, precision: str) -> None:
    if precision not in ("fp32", "bf16"):
        raise ValueError(f"precision {precision!r} is not fp32 or bf16")
    if not 0 <= settings.keep <= 1:
        raise ValueError(f"Filter.keep = {settings.keep} is no share: 0 (by threshold) to 1")
    if not -1 <= settings.threshold <= 1:
        raise ValueError(f"Filter.threshold = {settings.threshold} is no cosine: -1 to 1")
    if settings.batch_size < 1:
        raise ValueError(f"Filter.batch_size = {settings.batch_size} must be 1 or more")


class ShardKeeper:
    """Copies the kept pairs of one shard after another; a shard of which nothing is kept is left out."""

    def __init__(self, pairs: Place, out: Place, kept: Mapping[str, np.ndarray]) -> None:
        self.pairs, self.out, self.kept = pairs, out, kept

    def __call__(self, target: Path) -> dict:
        """Write one shard; the content of its record, without `sha256` if there is no shard."""
        kept = self.kept[target.name]
        if not kept.any():
            return {}
        scores = (self.out / target.name).with_suffix(SCORES)
        scored = Scored.of(json.loads(scores.read_text("utf-8")))
        uids = {place: uid for place, uid, keep in zip(scored.places, scored.uids, kept, strict=True) if keep}
        parts = enumerate(read_tar(self.pairs / target.name, Counter()))
        return write_tar(target, ((uids[place], members) for place, (_, members) in parts if place in uids))._asdict()


def _write_scores(path: Path, records: Sequence[Scored], kept: Sequence[np.ndarray]) -> None:
    with written_beside(path) as file:
        for record, keep in zip(records, kept, strict=True):
            for row in zip(record.uids, record.scores.tolist(), keep.tolist(), strict=True):
                file.write(to_lines([dict(zip(("uid", "score", "kept"), row, strict=True))]))


def _summary(source: dict, scorer: dict, records: Sequence[Scored], kept: Sequence, written: Sequence) -> dict:
    """The manifest's content."""
    scores, keep = np.concatenate([record.scores for record in records]), np.concatenate(kept)
    reasons = sum((Counter(record.dropped) for record in records), Counter())
    means = {"kept": scores[keep], "removed": scores[~keep]}
    return {
        "source": source.get("source", source.get("stage")),
        **{key: source[key] for key in _CARRIED if key in source},
        "scorer": scorer,
        "scored": len(scores),
        "samples": int(keep.sum()),
        "removed": int((~keep).sum()),
        "threshold": float(scores[keep].min()),
        "mean": {name: round(float(part.mean()), DIGITS) if len(part) else None for name, part in means.items()},
        "dropped": dict(sorted(reasons.items())),
        "shards": [
            {key: info[key] for key in ("name", "sha256", "samples", "bytes")}
            | {"removed": int((~keep).sum()), "dropped": record.dropped}
            for record, keep, info in zip(records, kept, written, strict=True)
            if "sha256" in info
        ],
    }


def _left_over(out: Path) -> list[Path]:
    """The records of single shards, which a finished folder does not need; those of the scores go last."""
    scored = sorted(out.glob(f"*{SCORES}"))
    of_shards = [path.with_name(path.name.removesuffix(SCORES) + ".json") for path in scored]
    of_shards += [path.with_suffix(".json") for path in out.glob("*.tar")]
    return [*(path for path in of_shards if path.is_file()), *scored]
