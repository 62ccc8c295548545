"""What fine-tuning on a small set costs of what a model knew: plain, and on the same set reinforced by teachers.

    python -m mobileclip2_lite.studies.forgetting --work runs/forgetting --output forgetting.jsonl

A trained CLIP (`lite-dfn`) goes on from its weights on a few hundred noisy pairs of a world of few names. Measured
before and after: naming in the world that it knew and retrieval there, and both in the small one. The two trainings
differ in their loss and views alone. The papers train from random weights; people who fine-tune published ones ask for
this. Reads the embedded models; writes a work folder and JSON lines. Taught by
notebooks/40_reinforced_training.ipynb.
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mobileclip2_lite.evaluation.suite import evaluate
from mobileclip2_lite.models.embedded import load
from mobileclip2_lite.models.loaded import LoadedModel
from mobileclip2_lite.models.zoo import create_model
from mobileclip2_lite.pairs.collect import make_pairs
from mobileclip2_lite.recipes import Augment, Evaluate, Pairs, Reinforce, Train, World
from mobileclip2_lite.reinforcement.stage import reinforce
from mobileclip2_lite.studies.recorded import append_lines
from mobileclip2_lite.training.loop import train
from mobileclip2_lite.work.files import to_json

START = "lite-dfn"
OLD, NEW = World(), World(names=24, max_objects=2, seed=1)
"""The world that the model knows, and that of the small set."""
SIZES = Evaluate(renders=5, scenes=500)
TUNE = Train(
    model=START, start=START, samples=12_800, batch_size=128, learning_rate=3e-4, weight_decay=0.05,
    workers=0, tracker="none",
)  # fmt: skip
ARMS = {
    "plain": dataclasses.replace(TUNE, distill=0.0, views="weak"),
    "reinforced": TUNE,
}
"""Contrast alone on light crops, and distillation from stored views."""


def measure(loaded: LoadedModel, sizes: Evaluate = SIZES) -> dict[str, float]:
    """`old_...` and `new_...`: naming and retrieval in both worlds."""
    parts = ("zero_shot", "retrieval")
    found = {when: evaluate(loaded, world, sizes, parts) for when, world in (("old", OLD), ("new", NEW))}
    wanted = ("zero_shot", "retrieval_i2t_r1", "retrieval_t2i_r1")
    return {f"{when}_{name}": values[name] for when, values in found.items() for name in wanted}


def study(
    work: Path, pairs: int = 400, seeds: Sequence[int] = (0, 1, 2), sizes: Evaluate = SIZES
) -> Iterator[dict[str, Any]]:
    """A line for the model as it starts, then one for each arm and seed; what is there already is found."""
    make_pairs(Pairs(count=pairs), work / "pairs", world=NEW)
    reinforce(Reinforce(augment=Augment(scale=(0.5, 1.0), operations=0)), work / "pairs", work / "reinforced")
    yield {"study": "forgetting", "arm": "before", "seed": 0, **measure(load(START, device="cpu"), sizes)}
    for seed in seeds:
        for arm, settings in ARMS.items():
            out = train(settings, work / "reinforced", work / f"{arm}-{seed}", seed, progress=False)
            found = measure(create_model(out), sizes)
            yield {"study": "forgetting", "arm": arm, "seed": seed, **found, "settings": to_json(settings)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Fine-tune, measure and record."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("runs/forgetting"))
    parser.add_argument("--output", type=Path, help="JSON lines to append to")
    parser.add_argument("--pairs", type=int, default=400)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    given = parser.parse_args(arguments)
    for line in study(given.work, given.pairs, given.seeds):
        line["command"] = shlex.join(["python", "-m", "mobileclip2_lite.studies.forgetting", *sys.argv[1:]])
        if given.output:
            append_lines(given.output, [line])
        shown = {key: f"{100 * value:.1f}" for key, value in line.items() if key.startswith(("old_", "new_"))}
        print(f"{line['arm']}, seed {line['seed']}: {shown}", flush=True)


if __name__ == "__main__":
    main()
