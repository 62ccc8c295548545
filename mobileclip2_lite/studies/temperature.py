"""Find each teacher's logit scale: short trainings of the student, early pruning, several seeds; and cheap predictors.

Paper: MobileCLIP2, on CLIP teachers: the best scale differs from teacher to teacher and from the scale that the teacher
ended its own training with, and is tuned for each teacher alone. Reads a reinforced folder; writes one folder a teacher
with every training and `temperature.json`, the measured curve; `use` makes the results the data's and the cards' own.
Differs from the paper, which does not publish its sweep: ours prunes after a short round, refines around the best, and
judges two predictors that need no training. Taught by notebooks/30_distillation_temperature.ipynb.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mobileclip2_lite.models.folders import data_folder
from mobileclip2_lite.recipes import Temperature, Train
from mobileclip2_lite.training.row_losses import ensemble_target
from mobileclip2_lite.training.teachers import TUNED, stored_cards, teacher_cards
from mobileclip2_lite.work.files import pretty, read_object, write_atomic, write_note
from mobileclip2_lite.work.place import on_disk, place_of

GRID = tuple(2 ** (i / 4) for i in range(33))
"""Logit scales 1 to 256 at which the predictors look."""


def search(
    settings: Temperature,
    student: Train,
    data: str | os.PathLike,
    out: str | os.PathLike,
    evaluate: Callable[[Any], dict],
    device: str | None = None,
    progress: bool = True,
) -> dict[str, dict[str, Any]]:
    """Search the scale of each of the student's teachers; finished trainings are found, interrupted ones taken up.

    Args:
        settings: scales, seeds, lengths and metric.
        student: the training to shorten; its teachers (all of the data's for `()`), model, batch size.
        data: a reinforced folder.
        out: where the trainings go.
        evaluate: measures a student; its numbers must hold `settings.metric`.

    Returns:
        Teacher -> result, as `temperature.json` holds it: `best` (the scale with the highest mean of the full
        trainings), `own` (the teacher's before any search), `curve` (a dict a scale and length: scale,
        samples, values a seed, mean, deviation), `predicted` (scale by predictor) and `judged` (each predictor's
        distance and loss in metric).

    Raises:
        ValueError: no scale or seed is given, a scale is not positive, or the metric is not measured.
    """
    if not settings.scales or not settings.seeds or min(settings.scales) <= 0:
        raise ValueError("a search needs at least one seed and positive logit scales")
    data, out = (
        place_of(data),
        on_disk(out, "a search keeps many short trainings side by side: name a folder of a disk"),
    )
    results = {}
    for name in teacher_cards(data, student):
        runs = _Runs(
            settings, student, data, out / re.sub(r'[/\\:*?"<>|]', "_", name), name, evaluate, device, progress
        )
        scales = runs.pruned()
        for scale in scales:
            runs.full(scale)
        for _ in range(settings.refine):
            for scale in between(runs.best(), [row["scale"] for row in runs.curve if row["samples"] == runs.samples]):
                runs.full(scale)
        predicted = predict(data, name, settings.pairs, student.batch_size)
        result = {
            "teacher": name,
            "metric": settings.metric,
            "best": runs.best(),
            "own": own_scale(data, name),
            "curve": sorted(runs.curve, key=lambda row: (row["samples"], row["scale"])),
            "predicted": {key: predicted[key] for key in ("calibration", "entropy")},
        }
        result["judged"] = judge(result)
        write_atomic(runs.out / "temperature.json", pretty(result))
        results[name] = result
    return results


def own_scale(data: Path, name: str) -> float:
    """A teacher's logit scale before any search: that which a search has left in its card, else the manifest's.

    Raises:
        ValueError: neither says one.
    """
    stored = stored_cards(data)[name]
    card = (Path(stored.source) if stored.source else data_folder() / "teachers" / name) / "card.json"
    known = read_object(card) if card.is_file() else {}
    scale = known.get("logit_scale_before") or stored.logit_scale
    if scale is None:
        raise ValueError(f"{data / 'manifest.json'} does not say the logit scale of {name}: join or reinforce with one")
    return float(scale)


class _Runs:
    """The trainings of one teacher's search."""

    def __init__(self, settings, student, data, out, name, evaluate, device, progress) -> None:
        self.settings, self.student, self.data, self.out, self.name = settings, student, data, out, name
        self.evaluate, self.device, self.progress = evaluate, device, progress
        self.samples = max(settings.samples, student.batch_size)
        self.curve: list[dict[str, Any]] = []

    def pruned(self) -> list[float]:
        """The scales worth a full training, after one short training each."""
        scales = sorted(set(self.settings.scales))
        short = int(self.samples * self.settings.first)
        if not self.student.batch_size <= short < self.samples or len(scales) < 2:
            return scales
        rows = [self.row(scale, short, self.settings.seeds[:1]) for scale in scales]
        best = sorted(rows, key=lambda row: -row["mean"])[: max(1, math.ceil(len(rows) * self.settings.keep))]
        return sorted(row["scale"] for row in best)

    def full(self, scale: float) -> None:
        """Train at full length with every seed, unless that was done."""
        if not any(row["scale"] == scale and row["samples"] == self.samples for row in self.curve):
            self.row(scale, self.samples, self.settings.seeds)

    def best(self) -> float:
        """The scale with the highest mean of the full trainings."""
        return max((row for row in self.curve if row["samples"] == self.samples), key=lambda row: row["mean"])["scale"]

    def row(self, scale: float, samples: int, seeds: Sequence[int]) -> dict[str, Any]:
        """One point of the curve."""
        values = [self.train(scale, samples, seed) for seed in seeds]
        spread = statistics.stdev(values) if len(values) > 1 else None
        row = {"scale": scale, "samples": samples, "values": values, "mean": statistics.mean(values), "std": spread}
        self.curve.append(row)
        return row

    def train(self, scale: float, samples: int, seed: int) -> float:
        """The metric of one training."""
        from mobileclip2_lite.training.log import read
        from mobileclip2_lite.training.loop import train

        chosen = dataclasses.replace(
            self.student, teachers=(self.name,), logit_scales=((self.name, scale),), samples=samples, evaluate_every=0
        )
        out = self.out / f"scale-{scale:g}-samples-{samples}-seed-{seed}"
        train(chosen, self.data, out, seed, self.evaluate, self.device, self.progress)
        measured = [line["evaluation"] for line in read(out / "log.jsonl") if "evaluation" in line][-1]
        if self.settings.metric not in measured:
            raise ValueError(f"the evaluation has no {self.settings.metric!r}, only {', '.join(sorted(measured))}")
        return float(measured[self.settings.metric])


def between(best: float, scales: Sequence[float]) -> list[float]:
    """Geometric means of `best` and its neighbours, to three digits."""
    ordered = sorted(scales)
    place = ordered.index(best)
    neighbours = ordered[max(0, place - 1) : place] + ordered[place + 1 : place + 2]
    return [float(f"{math.sqrt(best * other):.3g}") for other in neighbours]


def predict(data: str | os.PathLike, teacher: str, pairs: int = 2_048, batch_size: int = 256) -> dict[str, Any]:
    """Two scales that cost seconds, from the teacher's similarities on stored pairs.

    `calibration`: where the teacher's probability of the true partner in a batch fits best (least cross-entropy), the
    scale at which its confidence is honest on these pairs, wrong captions included. `entropy`: where a target's mean
    entropy is half the logarithm of the batch size, the middle between a one-hot label and no information at all.

    Args:
        pairs: taken from the front of the data.
        batch_size: rows that are contrasted, as in training.

    Returns:
        `calibration`, `entropy`, and `curve`: (scale, cross-entropy, mean entropy) of `GRID`, in nats.

    Raises:
        ValueError: the data holds fewer pairs of this teacher than a batch.
    """
    images, texts = stored_pairs(data, teacher, pairs)
    batch_size = min(batch_size, pairs)
    if len(images) < batch_size:
        raise ValueError(f"{data} holds {len(images)} pairs of {teacher}, fewer than one batch of {batch_size}")
    curve = []
    for scale in GRID:
        cross = entropy = 0.0
        batches = [(i, i + batch_size) for i in range(0, len(images) - batch_size + 1, batch_size)]
        for low, high in batches:
            logits = scale * images[low:high] @ texts[low:high].T
            for matrix in (logits, logits.T):
                cross += -matrix.log_softmax(1).diagonal().mean().item() / (2 * len(batches))
                entropy += -ensemble_target([matrix])[1].mean().item() / (2 * len(batches))
        curve.append((scale, cross, entropy))
    calibration = min(curve, key=lambda point: point[1])[0]
    entropy_scale = min(curve, key=lambda point: abs(point[2] - math.log(batch_size) / 2))[0]
    return {"calibration": round(calibration, 2), "entropy": round(entropy_scale, 2), "curve": curve}


def stored_pairs(data: str | os.PathLike, teacher: str, pairs: int) -> tuple[Tensor, Tensor]:
    """The first `pairs` samples' embeddings: first view (N, D) and real caption (N, D); no further shard is opened.

    Raises:
        ValueError: there is none of this teacher.
    """
    from mobileclip2_lite.shards.keys import IMAGE, TEXT, embedding_key
    from mobileclip2_lite.shards.samples import read_samples, shard_names

    keys = embedding_key(IMAGE, teacher), embedding_key(TEXT, teacher)
    samples = (sample for name in shard_names(data) for sample in read_samples(place_of(data) / name))
    held = (sample.embeddings for sample in samples if all(key in sample.embeddings for key in keys))
    rows = [[embeddings[key][0] for key in keys] for embeddings in itertools.islice(held, pairs)]
    if not rows:
        raise ValueError(f"{data} holds no pair of {teacher}: reinforce with it first")
    images, texts = zip(*rows, strict=True)
    return torch.stack(images).float(), torch.stack(texts).float()


def judge(result: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """How well each predictor, and the teacher's own scale, would have served.

    Returns:
        Name -> `factor` (its scale / the best) and `regret` (best mean minus the metric at its scale, read from the
        measured curve by linear interpolation over log scale; beyond the curve, from the curve's end).
    """
    full = max(row["samples"] for row in result["curve"])
    points = sorted((math.log(row["scale"]), row["mean"]) for row in result["curve"] if row["samples"] == full)
    top = max(value for _, value in points)
    out = {}
    for name, scale in {**result["predicted"], "own": result["own"]}.items():
        value = _interpolated(points, math.log(scale))
        out[name] = {"factor": round(scale / result["best"], 3), "regret": round(top - value, 5)}
    return out


def _interpolated(points: Sequence[tuple[float, float]], x: float) -> float:
    if x <= points[0][0]:
        return points[0][1]
    for (left, low), (right, high) in itertools.pairwise(points):
        if x <= right:
            return low + (high - low) * (x - left) / (right - left)
    return points[-1][1]


def use(results: Mapping[str, Mapping[str, Any]], data: str | os.PathLike | None, cards: Sequence[Path] = ()) -> None:
    """Make the found scales the default.

    Args:
        results: as `search` returns them.
        data: the reinforced folder whose trainings should use them (a file beside its manifest), or None.
        cards: teachers' `card.json` files to update; the old scale is kept as `logit_scale_before`.

    Raises:
        ValueError: a card's teacher was not searched.
    """
    if data is not None:
        path = place_of(data) / TUNED
        known = read_object(path) if path.is_file() else {}
        write_note(path, pretty({**known, **{name: result["best"] for name, result in results.items()}}))
    for path in cards:
        card = read_object(path)
        if card.get("name") not in results:
            raise ValueError(f"{path} is the card of {card.get('name')}, which was not searched: {sorted(results)}")
        result = results[card["name"]]
        card.setdefault("logit_scale_before", card.get("logit_scale"))
        card["logit_scale"] = result["best"]
        rows = ("scale", "samples", "mean", "std")
        curve = [{key: row[key] for key in rows} for row in result["curve"]]
        card["temperature"] = {"metric": result["metric"], "curve": curve, "judged": result["judged"]}
        write_atomic(path, pretty(card))
