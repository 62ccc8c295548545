"""What a student's data costs before any training, and what a sample of a training costs: CPU seconds, one thread.

    mobileclip2-lite study price --recipe study --record

Pairs, captions and reinforcement are made anew in a folder of their own, as a user of the recipe makes them; then the
rows that are compared take a few steps each. The processor's time of this process is counted, so that other work on the
machine does not. The ledger holds it against the samples that a student saves.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mobileclip2_lite.recipes import Recipe
from mobileclip2_lite.studies import data, record, recorded
from mobileclip2_lite.studies.rows import PRICE

SEEDS = 3
TIMED = ("control", "+ captions", "+ ensemble", "live teachers", "ACID")
"""Rows whose steps are timed."""
STEPS = (4, 4, 20)
"""Lengths of the timed trainings: the first warms up, the third less the second is sixteen steps and nothing else."""


def missing(recipe: Recipe, results: Path, seeds: int = 0) -> list[dict[str, Any]]:
    """The lines that are not recorded yet, as far as they are known before."""
    known = {record.identity(line) for line in recorded.all_lines(results)}
    lines = [
        {
            "row": PRICE,
            "seed": seed,
            "recipe": recipe.name,
            "generation": record.generation(recipe),
            "pairs": recipe.pairs.count,
            "command": f"mobileclip2-lite study price --recipe {recipe.name} --record",
        }
        for seed in range(min(seeds or SEEDS, SEEDS))
    ]
    return [line for line in lines if record.identity(line) not in known]


def measure(recipe: Recipe, seed: int, out: Path) -> dict[str, dict[str, float]]:
    """`stages`: stage -> CPU seconds of making one seed's data, the recipe's own captioners alone; and `rates`."""
    from mobileclip2_lite.captioning.stage import caption
    from mobileclip2_lite.pairs.collect import make_pairs
    from mobileclip2_lite.reinforcement.stage import reinforce

    chosen = data.seeded(recipe, seed)
    own = dataclasses.replace(chosen.caption, captioners=recipe.caption.captioners)
    folder = out / f"price-seed{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    pairs, captioned, reinforced = (folder / name for name in ("pairs", "captioned", "reinforced"))
    folder.mkdir(parents=True)
    stages = {
        "pairs": _seconds(lambda: make_pairs(chosen.pairs, pairs, world=chosen.world)),
        "caption": _seconds(lambda: caption(own, pairs, captioned)),
        "reinforce": _seconds(lambda: reinforce(chosen.reinforce, captioned, reinforced)),
    }
    rates = {row: _rate(row, recipe, reinforced, folder / record.slug(row)) for row in TIMED}
    shutil.rmtree(folder)
    return {"stages": {name: round(seconds, 2) for name, seconds in stages.items()}, "rates": rates}


def _seconds(work: Callable[[], Any]) -> float:
    """CPU seconds of this process, all its threads."""
    start = time.process_time()
    work()
    return time.process_time() - start


def _rate(row: str, recipe: Recipe, reinforced: Path, out: Path) -> float:
    """CPU seconds a sample of a row's steps."""
    from mobileclip2_lite.training.loop import train

    settings = dataclasses.replace(record.train_settings(row, recipe), evaluate_every=0, checkpoint_every=0)
    batch, spent = settings.batch_size, []
    for number, steps in enumerate(STEPS):
        short = dataclasses.replace(settings, samples=steps * batch)
        target = out / str(number)
        spent.append(_seconds(lambda s=short, t=target: train(s, reinforced, t, seed=data.FIRST, progress=False)))
    return round((spent[2] - spent[1]) / ((STEPS[2] - STEPS[1]) * batch), 6)


def run(recipe: Recipe, out: Path, results: Path, seeds: int = 0) -> None:
    """Measure what is missing and append a line of each."""
    import torch

    torch.set_num_threads(1)
    for line in missing(recipe, results, seeds):
        recorded.append_rows(results, [{**line, **measure(recipe, line["seed"], out), **record.where()}])


def told(results: Path) -> str:
    """The recorded lines in words, one a seed."""
    lines = recorded.read_rows(results).get(PRICE, ())
    return "\n".join(f"{PRICE}, seed {line['seed']}: {line['stages']}, a sample {line['rates']}" for line in lines)
