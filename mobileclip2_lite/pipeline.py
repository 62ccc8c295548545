"""The whole way at one recipe: pairs, filter, captions, reinforcement, controls and students, evaluation, report.

    runs/<recipe>/pairs · filtered · captioned · reinforced · control-seed0 … · student-seed0 … · measured ·
                  evaluation.json · report.md · report.html

Every stage finds its finished work and does nothing, so that a second run takes seconds and a killed run goes on where
it was. Gives up: this runs the stages one after another on one machine; larger runs call the stages themselves, from a
scheduler of their own. Taught by notebooks/00_start_here.ipynb.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import multiprocessing
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from pathlib import Path

from mobileclip2_lite.recipes import Recipe
from mobileclip2_lite.reports.numbers import evaluated_seeds, seeds_of
from mobileclip2_lite.work.crew import Spread
from mobileclip2_lite.work.files import pretty, read_object, write_note
from mobileclip2_lite.work.folder import Work, read_manifest
from mobileclip2_lite.work.json_lines import read_lines
from mobileclip2_lite.work.place import StorePath, place_of
from mobileclip2_lite.work.processes import end_with_parent, environment
from mobileclip2_lite.work.stopwatch import Stopwatch

KEPT_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}
"""glibc's: a training's process keeps freed memory, which each step would else be given anew, page by page."""


@contextlib.contextmanager
def _timed(folder: Path | StorePath, stage: str, outputs: list[str], say: Callable[[str], None]) -> Iterator[None]:
    """Add the seconds of a stage to `timings.json`, unless its `outputs` were there before: finding is not work."""
    found, watch = all((folder / output).exists() for output in outputs), Stopwatch()
    yield
    seconds = watch.seconds
    say(f"{stage}: done before" if found else f"{stage}: {seconds:.0f} s")
    if not found:
        path = folder / "timings.json"
        timings = read_object(path) if path.is_file() else {}
        timings[stage] = round(timings.get(stage, 0.0) + seconds, 2)
        write_note(path, pretty(timings))


def run(recipe: Recipe, folder: str | os.PathLike | None = None, say: Callable[[str], None] = print) -> dict:
    """Go the whole way and return what `evaluation.json` holds.

    A run grows: seeds that were evaluated in the folder before stay in its results beside those asked for. A script
    calls it below `if __name__ == "__main__":`, because trainings run in processes of their own.

    Args:
        folder: where everything is written; default `runs/<recipe.name>` below the current folder.
        say: receives one line a finished stage.

    Returns:
        `{"control": [{metric: value} a seed], "student": [...], "teachers": {name: {metric: value}}}`.

    Raises:
        StageMismatch: the folder holds work of other settings.
        FolderLocked: another process works in the folder.
    """
    from mobileclip2_lite.reports.run import write_report

    folder = place_of(folder or Path("runs") / recipe.name)
    recipe = dataclasses.replace(recipe, seeds=tuple(sorted({*recipe.seeds, *evaluated_seeds(folder)})))
    make_data(recipe, folder, say)
    trained = [f"{kind}-seed{seed}/manifest.json" for kind in ("control", "student") for seed in recipe.seeds]
    with _timed(folder, "train", trained, say):
        train_all(recipe, folder)
    with _timed(folder, "evaluate", ["evaluation.json"], say):
        results = evaluate_all(recipe, folder)
    with _timed(folder, "report", ["report.html"], say):
        write_report(folder, recipe)
    return results


def make_data(recipe: Recipe, folder: str | os.PathLike, say: Callable[[str], None] = print) -> Path | StorePath:
    """The part of the way before any training: pairs, filter, captions, reinforcement; returns the reinforced folder.

    Args and raises as `run`.
    """
    from mobileclip2_lite.captioning.stage import caption
    from mobileclip2_lite.filtering.stage import filter_pairs
    from mobileclip2_lite.pairs.collect import make_pairs
    from mobileclip2_lite.reinforcement.stage import reinforce

    folder, (spread, precision) = place_of(folder), crew(recipe)
    folder.mkdir(parents=True, exist_ok=True)
    with _timed(folder, "pairs", ["pairs/manifest.json"], say):
        make_pairs(recipe.pairs, folder / "pairs", world=recipe.world)
    source = folder / "pairs"
    if recipe.filter.keep < 1:
        with _timed(folder, "filter", ["filtered/manifest.json"], say):
            filter_pairs(recipe.filter, source, folder / "filtered")
        source = folder / "filtered"
    if recipe.caption.captioners:
        with _timed(folder, "caption", ["captioned/manifest.json"], say):
            caption(recipe.caption, source, folder / "captioned", spread=spread)
        source = folder / "captioned"
    with _timed(folder, "reinforce", ["reinforced/manifest.json"], say):
        reinforce(recipe.reinforce, source, folder / "reinforced", precision=precision, spread=spread)
    return folder / "reinforced"


def crew(recipe: Recipe) -> tuple[Spread, str]:
    """How captioners and teachers run here: processes side by side, and the teachers' precision.

    A process a core, since models this small do not keep two cores busy; one for few pairs, which are done before a
    second process has started, and one where a GPU does the work.
    """
    from mobileclip2_lite.models.embedded import pick_device
    from mobileclip2_lite.models.loaded import usable_precision

    device = pick_device()
    few = 0 < recipe.pairs.count < 1_000
    workers = 1 if few or device.type == "cuda" else min(os.cpu_count() or 1, 4)
    return Spread(workers=workers), usable_precision(recipe.precision, device)


def train_all(recipe: Recipe, folder: Path | StorePath, jobs: int = 0) -> None:
    """Train every control and student that is not there yet, several at a time, each on one core.

    Models this small do not keep two cores busy, and two threads that share a step wait for each other: eight times as
    long if the machine does anything else (docs/lab_log.md). While the longest goes on, what has ended is measured on
    the core that is free.

    Args:
        jobs: trainings at a time; 0 takes the cores of this machine, at most four (1.5 GB each).
    """
    from tqdm.auto import tqdm

    every = [(kind, seed) for seed in recipe.seeds for kind in ("control", "student")]
    missing = [(kind, seed) for kind, seed in every if not (folder / f"{kind}-seed{seed}" / "manifest.json").is_file()]
    jobs = jobs or min(os.cpu_count() or 1, 4)
    alone = jobs == 1 or len(missing) == 1 or "OMP_NUM_THREADS" in os.environ  # then threads are settled already
    for kind, seed in every:
        if alone or (kind, seed) not in missing:  # finished ones are checked: they may be other work
            train_one(recipe, folder, kind, seed)
    if alone or not missing:
        return
    steps = sum(getattr(recipe, kind).samples // getattr(recipe, kind).batch_size for kind, _ in missing)
    with (
        environment(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive", **KEPT_MEMORY),
        ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), end_with_parent) as pool,
        tqdm(total=steps, unit="step", desc=f"{len(missing)} trainings", disable=None) as bar,
    ):
        waiting = {
            pool.submit(train_one, recipe, folder, kind, seed, False): f"{kind}-seed{seed}" for kind, seed in missing
        }
        waiting |= {pool.submit(measure, recipe, folder, name, True): None for name in recipe.reinforce.teachers}
        while waiting:
            done, _ = wait(waiting, timeout=1.0, return_when=FIRST_COMPLETED)
            bar.update(sum(_steps_done(folder / f"{kind}-seed{seed}") for kind, seed in missing) - bar.n)
            for future in done:
                name = waiting.pop(future)
                if future.exception():
                    pool.shutdown(wait=False, cancel_futures=True)
                future.result()
                if name:  # taken by the process that has waited longest, and has most likely drawn the test sets before
                    waiting[pool.submit(measure, recipe, folder, name)] = None
        bar.update(steps - bar.n)


def _steps_done(folder: Path | StorePath) -> int:
    """The last step that a training's log names in a whole line."""
    log = folder / "log.jsonl"
    lines = list(read_lines(log, cut_short=True)) if log.is_file() else []
    return lines[-1]["step"] if lines else 0


def train_one(
    recipe: Recipe, folder: Path | StorePath, kind: str, seed: int, progress: bool = True
) -> Path | StorePath:
    """Train the `control` or the `student` with one seed, drawing its learning curve; returns the model's folder."""
    from mobileclip2_lite.evaluation.suite import evaluate
    from mobileclip2_lite.training.loop import train

    settings = getattr(recipe, kind)
    watch = functools.partial(
        evaluate, world=recipe.world, settings=recipe.evaluate, only=("zero_shot", "retrieval"), split="val"
    )
    out = folder / f"{kind}-seed{seed}"
    return train(settings, folder / "reinforced", out, seed=seed, evaluate=watch, progress=progress)


def measure(recipe: Recipe, folder: Path | StorePath, name: str, teacher: bool = False) -> dict[str, float]:
    """Every measure of one model on every test set, kept in `measured/<name>`; a stage like the others.

    Args:
        name: of a training's folder below `folder`, or of a teacher.
        teacher: which of the two.
    """
    from mobileclip2_lite.evaluation.suite import evaluate
    from mobileclip2_lite.models.embedded import load, pick_device
    from mobileclip2_lite.models.teachers import load_teachers

    inputs = {"teacher": {name: _teachers(folder)[name]}} if teacher else {name: folder / name}
    place = folder / "measured" / re.sub(r'[\\/:*?"<>|]', "_", name)  # no system takes all of these in a file's name
    work = Work(place, "evaluate", 1, {"world": recipe.world, "evaluate": recipe.evaluate}, inputs)
    done = work.done()
    if done is None:
        with work.lock():
            loaded = load_teachers((name,)).to(pick_device()).loaded(name) if teacher else load(folder / name)
            done = work.commit(results=evaluate(loaded, recipe.world, recipe.evaluate))
    return done["results"]


def _evaluation_folder(folder: Path | StorePath, seeds: Sequence[int]) -> Path | StorePath:
    """`evaluation` for the seeds of the first, another beside it for more."""
    first = folder / "evaluation"
    if not (first / "manifest.json").is_file() or set(seeds_of(first)) == set(seeds):
        return first
    return folder / f"evaluation-seeds-{'-'.join(map(str, seeds))}"


def _teachers(folder: Path | StorePath) -> dict[str, str]:
    """Name -> hash of the weights of each teacher that reinforced a run's data."""
    return {card["name"]: card["sha256"] for card in read_manifest(folder / "reinforced")["teachers"]}


def evaluate_all(recipe: Recipe, folder: Path | StorePath) -> dict:
    """Evaluate every trained model and every teacher on every test set; a stage like the others."""
    from tqdm.auto import tqdm

    trained = {kind: [f"{kind}-seed{seed}" for seed in recipe.seeds] for kind in ("control", "student")}
    inputs = {name: folder / name for names in trained.values() for name in names}
    inputs["teachers"] = _teachers(folder)
    settings = {"world": recipe.world, "evaluate": recipe.evaluate}
    work = Work(_evaluation_folder(folder, recipe.seeds), "evaluate", 1, settings, inputs)
    done = work.done()
    if done is None:
        results: dict = {kind: [] for kind in trained}
        teachers = recipe.reinforce.teachers
        with work.lock(), tqdm(total=len(inputs) - 1 + len(teachers), desc="evaluate", disable=None) as bar:
            for kind, names in trained.items():
                for name in names:
                    results[kind].append(measure(recipe, folder, name))
                    bar.update()
            results["teachers"] = {}
            for name in teachers:
                results["teachers"][name] = measure(recipe, folder, name, teacher=True)
                bar.update()
        done = work.commit(results=results)
    write_note(folder / "evaluation.json", pretty(done["results"]))
    return done["results"]
