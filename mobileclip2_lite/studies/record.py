"""Train the rows of a study that are not recorded yet, and append a JSON line of each as it ends.

    mobileclip2-lite study baselines --recipe study --record

A line holds everything that a claim needs: row, seed, settings, metrics on the test split with every item's hit, the
learning curve on the validation split, seconds, machine, versions, the command, and a generation: the hash of the
recipe's data and of every teacher's and captioner's weights. Lines of another generation are never compared. What is
recorded is not trained again; an interrupted program goes on where it was. Each training has one thread.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import hashlib
import multiprocessing
import os
import platform
import shlex
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from mobileclip2_lite import recipes
from mobileclip2_lite.recipes.data_settings import LATER
from mobileclip2_lite.studies import data, intervals, recorded
from mobileclip2_lite.studies.questions import STUDIES
from mobileclip2_lite.studies.rows import ROWS
from mobileclip2_lite.work.files import canonical, to_json
from mobileclip2_lite.work.json_lines import read_lines
from mobileclip2_lite.work.processes import end_with_parent

PACKAGES = ("torch", "timm", "open_clip_torch", "numpy")
PARTS = ("zero_shot", "retrieval", "binding", "relations")
"""What a row is measured on."""
ITEMS = ("zero_shot", "retrieval_i2t_r1", "retrieval_t2i_r1", "binding", "relations")
"""Measures whose single hits are kept, for intervals."""


class Job(NamedTuple):
    """One training to do."""

    row: str
    seed: int
    settings: recipes.Train
    recipe: recipes.Recipe
    out: Path
    line: dict[str, Any]
    """What is known of it before it has run: what makes it the same work."""


def plan(
    studies: Sequence[str], recipe: recipes.Recipe, out: Path, results: Path, seeds: int = 0, rows: Sequence[str] = ()
) -> list[Job]:
    """The trainings of some studies that are not recorded yet, study by study, each row with all its seeds.

    Args:
        studies: of `questions.STUDIES`.
        out: where data and trainings go.
        results: folder of recorded lines.
        seeds: at most so many seeds a row; 0 for the study's number.
        rows: only these rows; all for ().

    Raises:
        ValueError: there is no such study or row.
    """
    if unknown := sorted(set(studies) - set(STUDIES)):
        raise ValueError(f"no study is called {', '.join(unknown)}: one of {', '.join(STUDIES)}")
    if unknown := sorted(set(rows) - set(ROWS)):
        raise ValueError(f"no row is called {', '.join(unknown)}: one of {'; '.join(ROWS)}")
    known = {identity(line) for line in recorded.all_lines(results)}
    jobs: dict[bytes, Job] = {}
    for name in studies:
        study = STUDIES[name]
        for row in study.rows.values():
            for seed in range(min(seeds or study.seeds, study.seeds)) if not rows or row in rows else ():
                job = _job(name, row, seed, recipe, out)
                if identity(job.line) not in known:
                    jobs.setdefault(identity(job.line), job)
    return list(jobs.values())


def train_settings(row: str, recipe: recipes.Recipe) -> recipes.Train:
    """The settings of a row."""
    chosen = ROWS[row]
    base = getattr(recipe, chosen.base)
    samples = chosen.samples or base.samples
    every = max(1, samples // base.batch_size // 6)  # six points of the learning curve
    plain = {"tracker": "none", "workers": 0, "threads": 1}  # another number of threads sums in another order
    return dataclasses.replace(base, **plain, samples=samples, evaluate_every=every, **chosen.changes)


def generation(recipe: recipes.Recipe) -> str:
    """12 hex characters that stand for the data's settings and all weights that made it."""
    from mobileclip2_lite.models.embedded import data_folder

    parts = {name: getattr(recipe, name) for name in ("world", "pairs", "filter", "caption", "reinforce", "evaluate")}
    parts["pairs"] = {name: value for name, value in to_json(recipe.pairs).items() if LATER.get(name, ...) != value}
    names = {"teachers": recipe.reinforce.teachers, "captioners": data.seeded(recipe, 0).caption.captioners}
    weights = {
        name: hashlib.sha256((data_folder() / kind / name / "model.safetensors").read_bytes()).hexdigest()
        for kind, found in names.items()
        for name in found
    }
    return hashlib.sha256(canonical(to_json({**parts, "weights": weights}))).hexdigest()[:12]


def identity(line: dict[str, Any]) -> bytes:
    """What makes two lines the same work."""
    return canonical([line.get(key) for key in ("row", "seed", "recipe", "generation", "settings")])


def _job(study: str, row: str, seed: int, recipe: recipes.Recipe, out: Path) -> Job:
    settings = train_settings(row, recipe)
    line = {
        "row": row,
        "seed": seed,
        "recipe": recipe.name,
        "generation": _generation(recipe),
        "data": ROWS[row].data,
        "samples": settings.samples,
        "settings": told(settings),
        "command": shlex.join(["mobileclip2-lite", "study", study, "--recipe", recipe.name, "--record", "--rows", row]),
    }
    return Job(row, seed, settings, recipe, out, line)


@functools.cache
def _generation(recipe: recipes.Recipe) -> str:
    return generation(recipe)


def told(settings: recipes.Train) -> dict[str, Any]:
    """The settings that differ from a training's defaults and count for its result."""
    from mobileclip2_lite.training.identity import NO_RESULT

    new, plain = to_json(settings), to_json(recipes.Train())
    return {name: value for name, value in new.items() if value != plain[name] and name not in NO_RESULT}


def run(jobs: Sequence[Job], workers: int, results: Path) -> int:
    """Do the trainings, append a line of each as it ends; how many failed."""
    failed = 0
    for number, (job, outcome) in enumerate(_outcomes(jobs, workers), 1):
        where = f"[{number}/{len(jobs)}] {job.row}, seed {job.seed}"
        if isinstance(outcome, Exception):
            failed += 1
            print(f"{where}: {type(outcome).__name__}: {outcome}", file=sys.stderr, flush=True)
            continue
        recorded.append_rows(results, [outcome])
        right = 100 * outcome["metrics"]["zero_shot"]
        print(f"{where}: zero-shot {right:.1f} %, {outcome['seconds']:.0f} s", file=sys.stderr, flush=True)
    return failed


def _outcomes(jobs: Sequence[Job], workers: int) -> Iterator[tuple[Job, dict[str, Any] | Exception]]:
    """Each job with its line or what went wrong, as they end."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    with ProcessPoolExecutor(max(1, workers), multiprocessing.get_context("spawn"), end_with_parent) as pool:
        futures = {pool.submit(one, job): job for job in jobs}
        try:
            for future in as_completed(futures):
                error = future.exception()
                yield futures[future], error if isinstance(error, Exception) else future.result()
        finally:  # interrupted: what has not begun shall not begin
            pool.shutdown(wait=False, cancel_futures=True)


def one(job: Job) -> dict[str, Any]:
    """Train one row with one seed and measure it; finished work is found, interrupted work taken up."""
    from mobileclip2_lite.evaluation.suite import evaluate, hits
    from mobileclip2_lite.models.loaded import FirstDimensions
    from mobileclip2_lite.models.zoo import create_model
    from mobileclip2_lite.training.loop import train
    from mobileclip2_lite.work.folder import read_manifest

    folder = data.prepare(job.recipe, job.seed, ROWS[job.row].data, job.out)
    measure = {"world": job.recipe.world, "settings": job.recipe.evaluate}
    watch = functools.partial(evaluate, **measure, only=("zero_shot", "retrieval"), split="val")
    row = ROWS[job.row]
    trained = {**job.line, "row": row.of or job.row}
    model = job.out / f"{slug(trained['row'])}-seed{job.seed}-{hashlib.sha256(identity(trained)).hexdigest()[:8]}"
    train(job.settings, folder, model, seed=data.FIRST + job.seed, evaluate=watch, progress=False)
    loaded = create_model(model)
    if row.dimensions:
        loaded = loaded._replace(model=FirstDimensions(loaded.model, row.dimensions))
    found = hits(loaded, **measure, only=PARTS, split="test")
    return {
        **job.line,
        "metrics": {name: round(float(values.mean()), 5) for name, values in found.items()},
        "hits": {name: intervals.pack(found[name]) for name in ITEMS},
        "items": {name: len(found[name]) for name in ITEMS},
        "curve": curve(model / "log.jsonl", job.settings.batch_size),
        "seconds": read_manifest(model)["seconds"],
        **where(),
    }


def where() -> dict[str, Any]:
    """Date, machine and versions of what is recorded now."""
    import torch

    from mobileclip2_lite.models.loaded import usable_precision

    versions = {name: metadata.version(name) for name in PACKAGES}
    precision = usable_precision("bf16", torch.device("cpu"))  # what a CPU makes of a recipe's bf16
    machine = f"{platform.machine()}, {platform.system()}, one thread, {precision}"
    return {"date": datetime.date.today().isoformat(), "machine": machine, "versions": versions}


def curve(log: Path, batch_size: int) -> dict[str, list[float]]:
    """The evaluations of a training's log as columns: seen samples, and each measure on the validation split."""
    lines = read_lines(log)
    points = {line["step"] * batch_size: line["evaluation"] for line in lines if "evaluation" in line}
    columns = {k: [round(point[k], 5) for point in points.values()] for k in next(iter(points.values()), {})}
    return {"samples": list(points), **columns}


def slug(name: str) -> str:
    """A row's name as a folder's."""
    words = "".join(c if c.isalnum() or c == "." else " " for c in name.replace("+", "plus")).split()
    return "-".join(words)
