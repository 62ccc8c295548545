"""Trainings that fail on purpose, in small: what docs/when_it_does_not_learn.md tells, seen again in minutes.

    python -m mobileclip2_lite.studies.symptoms --record

Each case is a short contrastive training on a few scenes of the embedded world, from new weights, and what its log and
its model then look like. The healthy one learns 256 pairs by heart; each of the others changes one thing.
The ledger docs/claims.md shows what was recorded.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mobileclip2_lite import recipes
from mobileclip2_lite.studies import record, recorded

PAIRS, BATCH = 256, 32


class Case(NamedTuple):
    """One training and what it changes."""

    shows: str
    changes: Mapping[str, Any] = {}
    """Fields of `recipes.Train` that differ from the healthy training."""
    mismatch: float = 0.0
    """Share of texts that belong to another image."""


CASES = {
    "healthy": Case("learns a few pairs by heart"),
    "rate too high": Case("the loss stays at ln B: the text tower has collapsed", {"learning_rate": 0.03}),
    "every text wrong": Case("the loss falls, for pairs can be learned by heart, and nothing is understood", {}, 1.0),
    "scale at its limit": Case("a low limit holds the loss up", {"max_logit_scale": 5.0}),
    "batches of two": Case(
        "batch norm learns from two images and judges by others", {"batch_size": 2, "samples": 1_280}
    ),
}


def settings(case: Case) -> recipes.Train:
    """The training of a case: 25 passes over the pairs."""
    healthy = recipes.Train(
        samples=25 * PAIRS,
        batch_size=BATCH,
        distill=0.0,
        views="weak",
        learning_rate=1e-3,
        weight_decay=0.0,
        log_every=5,
        checkpoint_every=0,
        tracker="none",
        workers=0,
    )
    return dataclasses.replace(healthy, **case.changes)


def pairs(out: Path, mismatch: float) -> Path:
    """A folder of scenes whose texts are short and name what is seen, but for the share that is wrong."""
    from mobileclip2_lite.pairs.collect import make_pairs

    text = recipes.AltText(mismatch, filename=0, boilerplate=0, fragment=0, listing=0, colour=0)
    world = dataclasses.replace(recipes.lite().world, image_size=64, max_objects=1, alt_text=text)
    make_pairs(recipes.Pairs(count=PAIRS, samples_per_shard=PAIRS), out, world=world)
    return out


def run(name: str, work: Path) -> dict[str, Any]:
    """Train one case below `work` and look at it.

    Returns:
        `loss` (mean of the last ten logged), `guessing` (ln B), `logit_scale`, `same_text` (mean cosine of two
        different texts), and `zero_shot` on the validation split.
    """
    from mobileclip2_lite.evaluation.suite import evaluate
    from mobileclip2_lite.models.loaded import encode_texts
    from mobileclip2_lite.models.zoo import create_model
    from mobileclip2_lite.training import log
    from mobileclip2_lite.training.loop import train

    case = CASES[name]
    chosen = settings(case)
    data = pairs(work / f"pairs-{case.mismatch:g}", case.mismatch)
    folder = train(chosen, data, work / name.replace(" ", "-"), seed=0, progress=False)
    lines = [line for line in log.read(folder / "log.jsonl") if "loss" in line]
    loaded = create_model(folder)
    texts = encode_texts(loaded, [f"a {name}" for name in ("dog", "pizza", "train", "drum", "clock", "tree")])
    cosines = (texts @ texts.T)[~torch.eye(len(texts), dtype=torch.bool)]
    sizes = recipes.Evaluate(val_renders=1)
    found = evaluate(loaded, recipes.lite().world, sizes, only=("zero_shot",), split="val")["zero_shot"]
    return {
        "row": f"symptom: {name}",
        "seed": 0,
        "generation": "symptoms",
        "case": name,
        "shows": case.shows,
        "changes": {**case.changes, **({"mismatch": case.mismatch} if case.mismatch else {})},
        "loss": round(sum(line["loss"] for line in lines[-10:]) / len(lines[-10:]), 3),
        "guessing": round(math.log(chosen.batch_size), 3),
        "logit_scale": round(lines[-1]["logit_scale"], 2),
        "same_text": round(float(cosines.mean()), 3),
        "zero_shot": round(found, 4),
        "command": "python -m mobileclip2_lite.studies.symptoms --record",
        **record.where(),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Every case, a line each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("runs/symptoms"))
    parser.add_argument("--record", action="store_true", help="append the lines to the recorded ones")
    parser.add_argument("--results", type=Path, help="folder of the recorded lines (default: with the library)")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for name in CASES:
        line = run(name, given.work)
        print(json.dumps(line), file=sys.stdout, flush=True)
        if given.record:
            recorded.append_rows(recorded.results_folder(given.results), [line])


if __name__ == "__main__":
    main()
