"""The whole way at one recipe: pairs, reinforcement, controls and students, evaluation, report.

    runs/<recipe>/pairs · reinforced · control-seed0 … · student-seed0 … · evaluation.json · report.md · report.html

Every stage finds its finished work and does nothing, so that a second run takes seconds and a killed run goes on where
it was. Gives up: this runs the stages one after another on one machine; larger runs call the stages themselves, from a
scheduler of their own. Taught by notebooks/00_start_here.ipynb.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from mobileclip2_lite.recipes import Recipe
from mobileclip2_lite.stages import Work, pretty, read_manifest, write_atomic


@contextlib.contextmanager
def _timed(folder: Path, stage: str, output: str, say: Callable[[str], None]) -> Iterator[None]:
    """Add the seconds of a stage to `timings.json`, unless its `output` was there before: finding it is not work."""
    found, start = (folder / output).exists(), time.perf_counter()
    yield
    seconds = time.perf_counter() - start
    say(f"{output}: done before" if found else f"{output}: {seconds:.0f} s")
    if not found:
        path = folder / "timings.json"
        timings = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        timings[stage] = round(timings.get(stage, 0.0) + seconds, 2)
        write_atomic(path, pretty(timings))


def run(recipe: Recipe, folder: str | os.PathLike | None = None, say: Callable[[str], None] = print) -> dict:
    """Go the whole way and return what `evaluation.json` holds.

    Args:
        folder: where everything is written; default `runs/<recipe.name>` below the current folder.
        say: receives one line a finished stage.

    Returns:
        `{"control": [{metric: value} a seed], "student": [...], "teachers": {name: {metric: value}}}`.

    Raises:
        stages.StageMismatch: the folder holds work of other settings.
        stages.FolderLocked: another process works in the folder.
    """
    from mobileclip2_lite.pairs import make_pairs
    from mobileclip2_lite.reinforce import reinforce
    from mobileclip2_lite.report import write_report

    folder = Path(folder or Path("runs") / recipe.name)
    folder.mkdir(parents=True, exist_ok=True)
    with _timed(folder, "pairs", "pairs/manifest.json", say):
        make_pairs(recipe.pairs, folder / "pairs", world=recipe.world)
    with _timed(folder, "reinforce", "reinforced/manifest.json", say):
        reinforce(recipe.reinforce, folder / "pairs", folder / "reinforced")
    for seed in recipe.seeds:
        for kind in ("control", "student"):
            with _timed(folder, f"train {kind}", f"{kind}-seed{seed}/manifest.json", say):
                train_one(recipe, folder, kind, seed)
    with _timed(folder, "evaluate", "evaluation.json", say):
        results = evaluate_all(recipe, folder)
    with _timed(folder, "report", "report.html", say):
        write_report(folder, recipe)
    return results


def train_one(recipe: Recipe, folder: Path, kind: str, seed: int) -> Path:
    """Train the `control` or the `student` with one seed, drawing its learning curve; returns the model's folder."""
    from mobileclip2_lite.evaluation import evaluate
    from mobileclip2_lite.training import train

    settings = getattr(recipe, kind)
    watch = functools.partial(evaluate, world=recipe.world, settings=recipe.evaluate, only=("zero_shot", "retrieval"))
    return train(settings, folder / "reinforced", folder / f"{kind}-seed{seed}", seed=seed, evaluate=watch)


def evaluate_all(recipe: Recipe, folder: Path) -> dict:
    """Evaluate every trained model and every teacher on every test set; a stage like the others."""
    from tqdm.auto import tqdm

    from mobileclip2_lite.evaluation import evaluate
    from mobileclip2_lite.models.teachers import load_teachers
    from mobileclip2_lite.models.zoo import create_model

    trained = {kind: [folder / f"{kind}-seed{seed}" for seed in recipe.seeds] for kind in ("control", "student")}
    inputs = {path.name: path for paths in trained.values() for path in paths}
    inputs["teachers"] = {card["name"]: card["sha256"] for card in read_manifest(folder / "reinforced")["teachers"]}
    work = Work(folder / "evaluation", "evaluate", 1, {"world": recipe.world, "evaluate": recipe.evaluate}, inputs)
    done = work.done()
    if done is None:
        results: dict = {kind: [] for kind in trained}
        with work.lock(), tqdm(total=len(inputs) - 1 + len(recipe.reinforce.teachers), desc="evaluate") as bar:
            for kind, paths in trained.items():
                for path in paths:
                    results[kind].append(evaluate(create_model(path), recipe.world, recipe.evaluate))
                    bar.update()
            ensemble = load_teachers(recipe.reinforce.teachers)
            results["teachers"] = {}
            for name in ensemble.names:
                results["teachers"][name] = evaluate(ensemble.loaded(name), recipe.world, recipe.evaluate)
                bar.update()
        done = work.commit(results=results)
    write_atomic(folder / "evaluation.json", pretty(done["results"]))
    return done["results"]
