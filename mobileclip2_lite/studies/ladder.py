"""The recorded longer runs: what each part of reinforced training adds, every row beside its control, several seeds.

    python benchmarks/ladder.py                                    # prints what is recorded
    python benchmarks/ladder.py --data runs/ladder-data/reinforced --rows all --samples 60000 --jobs 2
    python benchmarks/ladder.py --data runs/lite/reinforced --rows control "+ ensemble" --seeds 0 --samples 20000

MobileCLIP's ablations (arXiv 2311.17049) and MobileCLIP2's ladder (arXiv 2508.20691), at recipe lite. A row is the
recipe's control or student with the changes that `ROWS` names. Each is trained on one folder of reinforced shards (two
teachers, five views, captions of several captioners), measured on the embedded world's test sets, and appended to
results/ladder.jsonl; what stands there for the same row, seed, settings and data is not trained again (--results FILE
records elsewhere). An interrupted program goes on where it was. Each training has one thread. Looked at in
notebooks/20_captioner_finetuning.ipynb, 30_distillation_temperature.ipynb and 40_reinforced_training.ipynb.

Not every row can be trained on what `make run` makes, which has no captions of the pretrained captioner. Add them with

    mobileclip2-lite caption runs/lite/captioned runs/ladder-data/captioned --captioners lite-captioner-web
    mobileclip2-lite reinforce runs/ladder-data/captioned runs/ladder-data/reinforced

results/ladder_augmented.jsonl (`--results` prints it) holds all rows of an earlier recipe lite, which stored one
RandAugment operation with each view: the second command with `--augment.operations 1`.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import functools
import json
import math
import multiprocessing
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: spinning threads collapse beside other work
os.environ.setdefault("OMP_NUM_THREADS", "1")  # another number of threads sums in another order: other results

from mobileclip2_lite import recipes
from mobileclip2_lite.models.embedded import data_folder
from mobileclip2_lite.models.zoo import create_model
from mobileclip2_lite.reports.page import Table, to_markdown
from mobileclip2_lite.shards import samples as shards
from mobileclip2_lite.studies.recorded import Study, append_lines, read_ladder, read_lines, results_folder, study_table
from mobileclip2_lite.training import log as tracking
from mobileclip2_lite.training.teachers import teacher_cards
from mobileclip2_lite.work.files import canonical, to_json
from mobileclip2_lite.work.folder import read_manifest

RESULTS = results_folder() / "ladder.jsonl"
CONV, SE = "lite-teacher-conv", "lite-teacher-se"
WEB, SHORT, RELATIONAL, DETAILED = (f"lite-captioner-{kind}" for kind in ("web", "short", "relational", "detailed"))
REAL = {"captioners": ()}
FINETUNED = {"captioners": (SHORT, RELATIONAL, DETAILED)}


class Row(NamedTuple):
    """One named training."""

    base: str
    """`control` or `student` of the recipe."""
    changes: dict[str, Any]
    """Fields of `recipes.Train`; `logit_scales` may be `shared` or `before`."""


ROWS = {
    "control": Row("control", REAL),
    "control, stored views": Row("control", {**REAL, "views": "stored"}),
    "+ captions": Row("control", FINETUNED),
    "+ captions, stored views": Row("control", {**FINETUNED, "views": "stored"}),
    # light views have no stored embeddings: the teacher runs during the training
    "+ distillation": Row("control", {**FINETUNED, "distill": 1.0, "online": True, "teachers": (CONV,)}),
    "+ stored views": Row("student", {**FINETUNED, "teachers": (CONV,)}),
    "+ ensemble": Row("student", FINETUNED),
    "lambda 0.5": Row("student", {**FINETUNED, "distill": 0.5}),
    "lambda 0.75": Row("student", {**FINETUNED, "distill": 0.75}),
    "no captions": Row("student", REAL),
    "captions: pretrained": Row("student", {"captioners": (WEB,)}),
    "captions: short": Row("student", {"captioners": (SHORT,)}),
    "captions: relational": Row("student", {"captioners": (RELATIONAL,)}),
    "captions: detailed": Row("student", {"captioners": (DETAILED,)}),
    "views 1": Row("student", {**FINETUNED, "max_views": 1}),
    "views 2": Row("student", {**FINETUNED, "max_views": 2}),
    "captions 1": Row("student", {"captioners": (SHORT,), "max_captions": 1}),
    "captions 2": Row("student", {"captioners": (SHORT,), "max_captions": 2}),
    "teacher se only": Row("student", {**FINETUNED, "teachers": (SE,)}),
    "shared scale": Row("student", {**FINETUNED, "logit_scales": "shared"}),
    "cards before tuning": Row("student", {**FINETUNED, "logit_scales": "before"}),
}
"""Row -> what is trained; `+ ensemble` is the full student, from which the rows below it differ in one thing."""
ALIASES = {
    "captions: several": "+ ensemble",
    "lambda 1": "+ ensemble",
    "all views": "+ ensemble",
    "all captions": "captions: short",
    "teacher conv only": "+ stored views",
    "separate": "+ ensemble",
}
"""Other names of rows, so that none is trained twice."""


class Job(NamedTuple):
    """One training to do."""

    row: str
    seed: int
    settings: recipes.Train
    recipe: recipes.Recipe
    data: Path
    out: Path
    line: dict[str, Any]
    """What is known of it before it has run: what makes it the same work."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is asked for and print the table; the exit status is 1 if a training failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("runs/lite/reinforced"), help="folder of reinforced shards")
    parser.add_argument("--out", type=Path, default=Path("runs/ladder"), help="where the trainings go")
    parser.add_argument("--rows", nargs="*", default=[], metavar="ROW", help=f"all, or of: {'; '.join(ROWS)}")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--samples", type=int, default=0, help="seen samples a training; 0 for the recipe's")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time, of 1.5 GB and one core each")
    parser.add_argument("--recipe", choices=sorted(recipes.RECIPES), default="lite")
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON lines to read and append to")
    args = parser.parse_args(arguments)
    try:
        jobs, problems = plan(args) if args.rows else ([], [])
    except (ValueError, OSError) as error:
        parser.error(str(error))
    failed = run(jobs, args.jobs, args.results)
    print("".join(f"left out: {problem}\n" for problem in problems), end="", file=sys.stderr)
    print(markdown(args.results))
    return 1 if failed or problems else 0


def plan(args: argparse.Namespace) -> tuple[list[Job], list[str]]:
    """The trainings that are not recorded yet, first seed first, and the rows that cannot be trained, each with why."""
    names = list(ROWS) if args.rows == ["all"] else list(dict.fromkeys(ALIASES.get(row, row) for row in args.rows))
    if unknown := [name for name in names if name not in ROWS]:
        raise ValueError(f"no row is called {', '.join(map(repr, unknown))}: one of {'; '.join([*ROWS, *ALIASES])}")
    recipe, manifest = recipes.named(args.recipe), read_manifest(args.data)
    known = {identity(line) for line in read_lines(args.results)}
    settings, problems, jobs = {}, [], []
    for name in names:
        try:
            settings[name] = train_settings(name, recipe, args.data, args.samples)
        except ValueError as error:
            problems.append(f"{name}: {error}")
    for seed in args.seeds:
        for name, chosen in settings.items():
            line = {
                "row": name,
                "seed": seed,
                "recipe": args.recipe,
                "samples": chosen.samples,
                "data": manifest["key"][:12],
                "settings": changed(chosen, getattr(recipe, ROWS[name].base), ROWS[name].base),
                "stored": stored(args.data),
                "logit_scales": {k: v["logit_scale"] for k, v in teacher_cards(args.data, chosen).items()},
                "command": command(args, name, seed),
            }
            if identity(line) not in known:
                out = args.out / f"{slug(name)}-samples-{chosen.samples}-seed-{seed}"
                jobs.append(Job(name, seed, chosen, recipe, args.data, out, line))
    return jobs, problems


def train_settings(name: str, recipe: recipes.Recipe, data: Path, samples: int = 0) -> recipes.Train:
    """The settings of a row on this data.

    Raises:
        ValueError: the data lacks the row's captioners, teachers, scales, or more views or captions than its limit.
    """
    row, base = ROWS[name], getattr(recipe, ROWS[name].base)
    changes = dict(row.changes)
    there = stored(data)
    if missing := sorted(set(changes.get("captioners", ())) - set(there["captions"])):
        raise ValueError(f"{data} has no captions of {', '.join(missing)}, only of {list(there['captions'])}")
    limits = {
        "max_views": [there["views"]],
        "max_captions": [there["captions"][c] for c in changes.get("captioners", ())],
    }
    for limit, counts in limits.items():
        if changes.get(limit, 0) >= max(counts, default=0) > 0:
            raise ValueError(f"{data} holds no more than {max(counts)}: {limit}={changes[limit]} changes nothing")
    wanted = changes.pop("logit_scales", "")
    if samples and samples != base.samples:
        points = base.samples // base.batch_size // base.evaluate_every if base.evaluate_every else 0
        every = max(1, samples // base.batch_size // points) if points else 0
        changes |= {"samples": samples, "evaluate_every": every}  # as many points of the curve
    settings = dataclasses.replace(base, tracker="none", **changes)
    tuned = {name: card["logit_scale"] for name, card in teacher_cards(data, settings).items()}
    if not wanted:
        return settings
    return dataclasses.replace(settings, logit_scales=tuple(other_scales(wanted, tuned, data).items()))


@functools.cache
def stored(data: Path) -> dict[str, Any]:
    """How many views and how many captions of each captioner the first sample of a folder has."""
    sample = next(iter(shards.read_samples(data / shards.shard_names(data)[0])))
    return {"views": len(sample.views), "captions": {name: len(texts) for name, texts in sample.syn_texts.items()}}


def other_scales(kind: str, tuned: dict[str, float], data: Path) -> dict[str, float]:
    """`shared`: the geometric mean of the tuned scales for every teacher. `before`: those that teachers ended at."""
    if kind == "shared":
        common = math.exp(sum(map(math.log, tuned.values())) / len(tuned))
        return {name: float(f"{common:.4g}") for name in tuned}
    manifest = {card["name"]: card["logit_scale"] for card in read_manifest(data)["teachers"]}
    scales = {}
    for name in tuned:
        path = data_folder() / "teachers" / name / "card.json"
        card = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        scales[name] = card.get("logit_scale_before", manifest[name])
    if scales == tuned:
        raise ValueError(f"the scales of {', '.join(tuned)} have not been tuned: these are the full student's")
    return scales


def changed(settings: recipes.Train, base: recipes.Train, kind: str) -> dict[str, Any]:
    """`base` and the settings that differ from it."""
    new, old = to_json(settings), to_json(base)
    return {"base": kind, **{name: new[name] for name in new if new[name] != old[name] and name != "tracker"}}


def identity(line: dict[str, Any]) -> bytes:
    """What makes two lines the same work."""
    return canonical([line.get(k) for k in ("row", "seed", "recipe", "samples", "data", "settings", "logit_scales")])


def command(args: argparse.Namespace, row: str, seed: int) -> str:
    """What repeats one line."""
    words = ["python", "benchmarks/ladder.py", "--data", shown(args.data), "--rows", row, "--seeds", str(seed)]
    more = {"--samples": args.samples or None, "--recipe": args.recipe if args.recipe != "lite" else None}
    return shlex.join(words + [str(word) for pair in more.items() if pair[1] for word in pair])


def shown(path: Path) -> str:
    """A path relative to here, or its last part: results name no machine's folders."""
    full, here = path.resolve(), Path.cwd()
    return full.relative_to(here).as_posix() if full.is_relative_to(here) else path.name


def slug(name: str) -> str:
    """A row's name as a folder's."""
    words = "".join(c if c.isalnum() or c == "." else " " for c in name.replace("+", "plus")).split()
    return "-".join(words)


def run(jobs: list[Job], workers: int, results: Path) -> int:
    """Do the trainings, append a line of each as it ends; how many failed."""
    failed = 0
    for number, (job, outcome) in enumerate(_outcomes(jobs, workers), 1):
        where = f"[{number}/{len(jobs)}] {job.row}, seed {job.seed}"
        if isinstance(outcome, Exception):
            failed += 1
            print(f"{where}: {type(outcome).__name__}: {outcome}", file=sys.stderr, flush=True)
            continue
        append_lines(results, [outcome])
        right = 100 * outcome["metrics"]["zero_shot"]
        print(f"{where}: zero-shot {right:.1f} %, {outcome['seconds']:.0f} s", file=sys.stderr, flush=True)
    return failed


def _outcomes(jobs: list[Job], workers: int) -> Iterator[tuple[Job, dict[str, Any] | Exception]]:
    """Each job with its line or what went wrong, as they end."""
    if workers <= 1:
        for job in jobs:
            try:
                yield job, one(job, progress=sys.stderr.isatty())
            except (RuntimeError, ValueError, OSError) as error:
                yield job, error
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(one, job): job for job in jobs}
        try:
            for future in as_completed(futures):
                error = future.exception()
                yield futures[future], error if isinstance(error, Exception) else future.result()
        finally:  # interrupted: what has not begun shall not begin
            pool.shutdown(wait=False, cancel_futures=True)


def one(job: Job, progress: bool = False) -> dict[str, Any]:
    """Train and measure; finished work is found, interrupted work taken up."""
    from mobileclip2_lite.evaluation.suite import evaluate
    from mobileclip2_lite.training.loop import train

    measure = functools.partial(evaluate, world=job.recipe.world, settings=job.recipe.evaluate)
    watch = functools.partial(measure, only=("zero_shot", "retrieval"))
    train(job.settings, job.data, job.out, seed=job.seed, evaluate=watch, progress=progress)
    metrics = measure(create_model(job.out))
    return {
        **job.line,
        "metrics": {name: round(value, 5) for name, value in metrics.items()},
        "curve": curve(job.out / "log.jsonl", job.settings.batch_size),
        "seconds": read_manifest(job.out)["seconds"],
        "date": datetime.date.today().isoformat(),
    }


def curve(log: Path, batch_size: int) -> dict[str, list[float]]:
    """The evaluations of a training's log as columns: seen samples, and each measure."""
    lines = {line["step"] * batch_size: line["evaluation"] for line in tracking.read(log) if "evaluation" in line}
    columns = {k: [round(line[k], 5) for line in lines.values()] for k in next(iter(lines.values()), {})}
    return {"samples": list(lines), **columns}


def markdown(results: Path) -> str:
    """The table of all recorded rows of the set-up that most lines share."""
    ladder = read_ladder(results)
    if not ladder:
        return f"nothing is recorded in {shown(results)}: name rows with --rows"
    rows = {name: name for name in [*ROWS, *sorted(set(ladder) - set(ROWS))]}
    header, cells = study_table(ladder, Study(rows, "control"), efficiency="control")
    seconds = {name: [line["seconds"] for line in lines] for name, lines in ladder.items()}
    for cell, name in zip(cells, rows, strict=True):
        cell.append(f"{sum(seconds[name]) / len(seconds[name]):.0f}" if name in seconds else "")
    first = next(iter(ladder.values()))[0]
    title = f"Recipe {first['recipe']}, {first['samples']:,} seen samples"
    return to_markdown(title, [Table([*header, "seconds"], cells)]).rstrip()


if __name__ == "__main__":
    sys.exit(main())
