"""What fine-tuning on a small set costs of what a model knew: plain, and on the same set reinforced by teachers.

    python -m mobileclip2_lite.studies.forgetting --work runs/forgetting --output forgetting.jsonl

A trained CLIP (`lite-dfn`) goes on from its weights on a few hundred noisy pairs of a world of few names. Measured
before and after: naming in the world that it knew and retrieval there, and both in the small one. The two trainings
differ in their loss and views alone. The papers train from random weights; people who fine-tune published ones ask for
this. Reads the embedded models; writes a work folder and JSON lines with every item's hit, of which `photograph_page`
makes docs/photographs.md. Taught by notebooks/80_your_own_data.ipynb.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mobileclip2_lite.evaluation.suite import chance, hits
from mobileclip2_lite.models.embedded import load
from mobileclip2_lite.models.loaded import LoadedModel
from mobileclip2_lite.models.zoo import create_model
from mobileclip2_lite.pairs.collect import make_pairs
from mobileclip2_lite.recipes import Augment, Evaluate, Pairs, Reinforce, Train, World
from mobileclip2_lite.reinforcement.stage import reinforce
from mobileclip2_lite.studies import arms, recorded
from mobileclip2_lite.studies.effects import CAPTIONS
from mobileclip2_lite.studies.record import told, where
from mobileclip2_lite.training.loop import train
from mobileclip2_lite.work.folder import read_manifest

STUDY, FILE = "forgetting", "forgetting.jsonl"
"""Its lines' name and file."""
MEASURES = ("zero_shot", "retrieval_i2t_r1", "retrieval_t2i_r1")
"""Of each world."""
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


def measure(loaded: LoadedModel, sizes: Evaluate = SIZES) -> dict[str, dict[str, Any]]:
    """Packed hits of `old_...` and `new_...`: naming and retrieval in both worlds."""
    out = {}
    for when, world in (("old", OLD), ("new", NEW)):
        found = hits(loaded, world, sizes, ("zero_shot", "retrieval"))
        out |= {f"{when}_{name}": arms.packed(found[name], CAPTIONS if "t2i" in name else 1) for name in MEASURES}
    return out


def guessed(sizes: Evaluate = SIZES) -> dict[str, float]:
    """What guessing scores on each measure."""
    found = {when: chance(world, sizes) for when, world in (("old", OLD), ("new", NEW))}
    return {f"{when}_{name}": round(values[name], 5) for when, values in found.items() for name in MEASURES}


def study(
    work: Path, pairs: int = 400, seeds: Sequence[int] = (0, 1, 2), sizes: Evaluate = SIZES
) -> Iterator[dict[str, Any]]:
    """A line for the model as it starts, which has no seed, then one for each arm and seed; what is there is found."""
    make_pairs(Pairs(count=pairs), work / "pairs", world=NEW)
    settings = Reinforce(augment=Augment(scale=(0.5, 1.0), operations=0))
    data = reinforce(settings, work / "pairs", work / "reinforced")["key"][:12]
    facts = {"study": STUDY, "data": data, "pairs": pairs, "chance": guessed(sizes), **where()}
    yield {**facts, "arm": "before", "seed": None, "hits": measure(load(START, device="cpu"), sizes)}
    for seed in seeds:
        for arm, settings in ARMS.items():
            out = train(settings, work / "reinforced", work / f"{arm}-{seed}", seed, progress=False)
            found = {"hits": measure(create_model(out), sizes), "settings": told(settings)}
            yield {**facts, "arm": arm, "seed": seed, **found, "seconds": round(read_manifest(out)["seconds"])}


def main(arguments: Sequence[str] | None = None) -> None:
    """Fine-tune, measure and record."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("runs/forgetting"))
    parser.add_argument("--output", type=Path, default=recorded.results_folder() / FILE, help="JSON lines to append to")
    parser.add_argument("--pairs", type=int, default=400)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    given = parser.parse_args(arguments)
    command = f"python -m mobileclip2_lite.studies.forgetting --pairs {given.pairs}"
    for line in study(given.work, given.pairs, given.seeds):
        arms.append(given.output, {**line, "command": command})
        shown = {name: f"{100 * arms.hits({0: line}, name)[0].mean():.1f}" for name in line["hits"]}
        print(f"{line['arm']}, seed {line['seed']}: {shown}", flush=True)


if __name__ == "__main__":
    main()
