"""Train the embedded scorer from few clean pairs, and measure what it removes; writes `data/scorers/NAME/`.

    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive python data/train_scorer.py
    python data/train_scorer.py emoji-dfn --start lite-dfn --samples 64000 --scenes 24000

A data filtering network (DFN, arXiv 2309.17425) is a CLIP that learned from few pairs of high quality; it need not be
good at anything but telling right texts from wrong ones. This one sees scenes of the split `annotated` with short clean
captions, and never a pair that it will judge or a test scene. Trained by the library's own loop, contrastive only, and
kept in half precision. `card.json` beside the weights says what was done and what came out: the measures of the world's
test sets, and precision and recall of the removal of wrong texts from the first pairs of the training stream.
"""

from __future__ import annotations

import argparse
import dataclasses
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

SCORERS = Path(__file__).parent / "scorers"
RECIPES = {"lite-dfn": "lite", "emoji-dfn": "emoji"}
"""Scorer -> recipe whose world it is for."""
STYLES = ("short",)
"""The style nearest to alt-text."""
CURVE = {"lite-dfn": recipes.Evaluate(val_renders=2), "emoji-dfn": recipes.Evaluate(val_renders=1)}
"""For the learning curve."""
WEB = 8_000
"""Pairs of the training stream on which the removal is measured: those of recipe `lite`."""


def settings(samples: int, start: str = "") -> recipes.Train:
    """The recipe of the scorer: that of the control, at the rate that a ResNet bears; with `start` it goes on."""
    found = recipes.Train(
        model="lite-dfn",
        start=start,
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
    return dataclasses.replace(found, optimizer="nmuon", learning_rate=3e-3, weight_decay=0.0) if start else found


def train(name: str, work: Path, scenes: int, samples: int, seed: int, start: str = "") -> tuple[LoadedModel, dict]:
    """Train the scorer below `work`, where finished work is found; returns the model and facts for its card."""
    world = recipes.named(RECIPES[name]).world
    clean = work / f"clean-{scenes}"
    if not (clean / "manifest.json").is_file():
        make_pairs(recipes.Pairs(count=0), clean, dataset=emoji_world.annotated_dataset(world, scenes, STYLES))
    recipe = settings(samples, str(SCORERS / start) if start else "")
    folder = training.train(
        recipe,
        clean,
        work / f"scorer-seed{seed}",
        seed,
        evaluate=lambda loaded: evaluate(loaded, world, CURVE[name], only=("zero_shot",), split="val"),
    )
    manifest = read_manifest(folder)
    facts = {key: manifest[key] for key in ("seed", "samples", "seconds", "precision")}
    kept = {**to_json(recipe), "start": start}  # a name, and no path of this machine
    facts |= {"scenes": scenes, "styles": STYLES, "split": "annotated", "world": world, "settings": kept}
    return create_model(folder), facts


def measure(name: str, loaded: LoadedModel, work: Path, keep: float) -> dict:
    """The test sets' measures, and how well the scorer removes wrong texts from the world's web."""
    recipe = recipes.named(RECIPES[name])
    world, web, out = recipe.world, work / "web", work / f"web-kept-{name}"
    if not (web / "manifest.json").is_file():
        make_pairs(recipes.Pairs(count=WEB), web, world)
    if out.is_dir():
        shutil.rmtree(out)
    filter_pairs(recipes.Filter(scorer=name, keep=keep), web, out, loaded)
    report = filter_report(out, out / "report.html", world, web)
    found = {"pairs": report["scored"], "keep": keep, "threshold": report["threshold"], **report["truth"]}
    return {"metrics": evaluate(loaded, world, recipe.evaluate), "removal": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", default="lite-dfn", choices=sorted(RECIPES))
    parser.add_argument("--start", default="", help="scorer to go on from, by its name")
    parser.add_argument("--scenes", type=int, default=8_000, help="clean pairs to learn from")
    parser.add_argument("--samples", type=int, default=140_032, help="samples to see")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=float, default=0.7, help="share kept where the removal is measured")
    parser.add_argument("--work", type=Path, default=None, help="folder for pairs and training")
    parser.add_argument("--out", type=Path, default=SCORERS)
    args = parser.parse_args()
    args.work = args.work or Path("runs") / f"scorer-{args.name}"
    loaded, facts = train(args.name, args.work, args.scenes, args.samples, args.seed, args.start)
    loaded.model.half().float()  # measure what is stored
    card = {"logit_scale": round(loaded.model.logit_scale.exp().item(), 2), **facts}
    given = f"--scenes {args.scenes} --samples {args.samples} --seed {args.seed} --keep {args.keep}"
    given = f"{args.name} --start {args.start} {given}" if args.start else given
    card |= {"command": f"python data/train_scorer.py {given}"}
    card |= {**measure(args.name, loaded, args.work, args.keep), "attribution": emoji_world.ATTRIBUTION}
    folder = save_model(loaded, args.out / args.name, name=args.name, card=to_json(card), dtype=torch.float16)
    size = (folder / "model.safetensors").stat().st_size / 1e6
    print(json.dumps({key: card[key] for key in ("seconds", "metrics", "removal")}, indent=2), f"{size:.1f} MB")


if __name__ == "__main__":
    main()
