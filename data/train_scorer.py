"""Train the embedded scorer from few clean pairs, and measure what it removes; writes `data/scorers/lite-dfn/`.

    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive python data/train_scorer.py

A data filtering network (DFN, arXiv 2309.17425) is a CLIP that learned from few pairs of high quality; it need not be
good at anything but telling right texts from wrong ones. This one sees scenes of the split `annotated` with short clean
captions, and never a pair that it will judge or a test scene. Trained by the library's own loop, contrastive only, and
kept in half precision. `card.json` beside the weights says what was done and what came out: the measures of the world's
test sets, and precision and recall of the removal of wrong texts from the first pairs of the training stream.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch

from mobileclip2_lite import emoji_world, recipes
from mobileclip2_lite.evaluation.suite import evaluate
from mobileclip2_lite.filtering.stage import filter_pairs
from mobileclip2_lite.models.loaded import LoadedModel
from mobileclip2_lite.models.zoo import create_model, save_model
from mobileclip2_lite.pairs.collect import make_pairs
from mobileclip2_lite.reports.filter import filter_report
from mobileclip2_lite.training import loop as training
from mobileclip2_lite.work.files import to_json
from mobileclip2_lite.work.folder import read_manifest

NAME = "lite-dfn"
STYLES = ("short",)
"""The style nearest to alt-text."""
CURVE = recipes.Evaluate(val_renders=2)
"""For the learning curve."""
WEB = 8_000
"""Pairs of the training stream on which the removal is measured: those of recipe `lite`."""


def settings(samples: int) -> recipes.Train:
    """The recipe of the scorer: that of the control, at the rate that a ResNet bears."""
    return recipes.Train(
        model=NAME,
        samples=samples,
        batch_size=128,
        distill=0.0,
        views="weak",
        learning_rate=1.5e-3,
        warmup=0.06,
        weight_decay=0.05,
        evaluate_every=200,
        workers=0,
    )


def train(work: Path, scenes: int, samples: int, seed: int) -> tuple[LoadedModel, dict]:
    """Train the scorer below `work`, where finished work is found; returns the model and facts for its card."""
    world = recipes.lite().world
    clean = work / f"clean-{scenes}"
    if not (clean / "manifest.json").is_file():
        make_pairs(recipes.Pairs(count=0), clean, dataset=emoji_world.annotated_dataset(world, scenes, STYLES))
    recipe = settings(samples)
    folder = training.train(
        recipe,
        clean,
        work / f"scorer-seed{seed}",
        seed,
        evaluate=lambda loaded: evaluate(loaded, world, CURVE, only=("zero_shot",), split="val"),
    )
    manifest = read_manifest(folder)
    facts = {key: manifest[key] for key in ("seed", "samples", "seconds", "precision")}
    facts |= {"scenes": scenes, "styles": STYLES, "split": "annotated", "world": world, "settings": recipe}
    return create_model(folder), facts


def measure(loaded: LoadedModel, work: Path, keep: float) -> dict:
    """The test sets' measures, and how well the scorer removes wrong texts from the world's web."""
    world = recipes.lite().world
    web, out = work / "web", work / f"web-kept-{NAME}"
    if not (web / "manifest.json").is_file():
        make_pairs(recipes.Pairs(count=WEB), web, world)
    if out.is_dir():
        shutil.rmtree(out)
    filter_pairs(recipes.Filter(scorer=NAME, keep=keep), web, out, loaded)
    report = filter_report(out, out / "report.html", world, web)
    found = {"pairs": report["scored"], "keep": keep, "threshold": report["threshold"], **report["truth"]}
    return {"metrics": evaluate(loaded, world, recipes.Evaluate()), "removal": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=8_000, help="clean pairs to learn from")
    parser.add_argument("--samples", type=int, default=140_032, help="samples to see")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=float, default=0.7, help="share kept where the removal is measured")
    parser.add_argument("--work", type=Path, default=Path("runs/scorer"), help="folder for pairs and training")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "scorers")
    args = parser.parse_args()
    loaded, facts = train(args.work, args.scenes, args.samples, args.seed)
    loaded.model.half().float()  # measure what is stored
    card = {"logit_scale": round(loaded.model.logit_scale.exp().item(), 2), **facts}
    given = f"--scenes {args.scenes} --samples {args.samples} --seed {args.seed} --keep {args.keep}"
    card |= {"command": f"python data/train_scorer.py {given}"}
    card |= {**measure(loaded, args.work, args.keep), "attribution": emoji_world.ATTRIBUTION}
    folder = save_model(loaded, args.out / NAME, name=NAME, card=to_json(card), dtype=torch.float16)
    size = (folder / "model.safetensors").stat().st_size / 1e6
    print(json.dumps({key: card[key] for key in ("seconds", "metrics", "removal")}, indent=2), f"{size:.1f} MB")


if __name__ == "__main__":
    main()
