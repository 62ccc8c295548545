"""Train the embedded captioners; writes `data/captioners/NAME/`.

    OMP_NUM_THREADS=1 python data/train_captioners.py web
    OMP_NUM_THREADS=1 python data/train_captioners.py short relational detailed
    OMP_NUM_THREADS=1 python data/train_captioners.py web short relational detailed --recipe emoji

`web` learns from alt-text alone, of a web as a good filter leaves it; the others start from it and are fine-tuned on
the small annotated set (4,000 scenes with clean captions) in one style each, until the held-out loss rises. All with
the one training loop. Those of recipe `emoji`, whose world has all names, go on from those of `lite`, with timm's
`nmuon` instead of AdamW, on twice the annotated scenes. Weights are stored in half precision. `card.json` beside them
says what was done.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch

from mobileclip2_lite import emoji_world, recipes
from mobileclip2_lite.models.zoo import create_model, save_model
from mobileclip2_lite.pairs.collect import make_pairs
from mobileclip2_lite.training.captioner_step import HeldOut
from mobileclip2_lite.training.log import read
from mobileclip2_lite.training.loop import train
from mobileclip2_lite.work.files import to_json
from mobileclip2_lite.work.stopwatch import Stopwatch

WEB = recipes.AltText(mismatch=0.05)
"""The web that `web` reads: what a good filter leaves of three mismatches in ten."""
SEED = 303
"""Of the web's stream; students use seed 0."""
READ = {"lite": (60_000, 300_000), "emoji": (40_000, 51_200)}
"""Recipe -> pairs of the web that `web` reads, and the samples that it sees of them."""
ANNOTATED = {"lite": 4_000, "emoji": 8_000}
"""Recipe -> scenes with clean captions to fine-tune on; 500 more are held out."""
HELD_OUT = 500
WORDING = "learned"
"""Of the clean captions: no test caption is worded like one of them."""

PRETRAIN = recipes.Train(
    model="lite-coca",
    samples=READ["lite"][1],
    batch_size=128,
    distill=0.0,
    views="weak",
    captioning=2.0,
    learning_rate=1e-3,
    weight_decay=0.05,
    warmup=0.05,
    evaluate_every=300,
    checkpoint_every=300,
    log_every=20,
    tracker="none",
    workers=0,
)
FINETUNE = dataclasses.replace(
    PRETRAIN, samples=25_600, learning_rate=5e-4, warmup=0.1, evaluate_every=50, stop_on="caption_loss", patience=2
)

QUICK = {"optimizer": "nmuon", "weight_decay": 0.0}
"""What differs where a captioner goes on from that of another world."""
RATE = 4.0
"""Times the learning rate there: Muon's steps are relative to a layer's size."""


def world(recipe: str) -> recipes.World:
    """A recipe's world, drawn smaller: the captioner sees 48 pixels."""
    return dataclasses.replace(recipes.named(recipe).world, image_size=64, seed=SEED, alt_text=WEB)


def web_pairs(recipe: str, out: Path, count: int, seed: int = SEED) -> Path:
    """A folder of the web's pairs."""
    settings = recipes.Pairs(count=count, samples_per_shard=2_000)
    make_pairs(settings, out, world=dataclasses.replace(world(recipe), seed=seed))
    return out


def clean_pairs(recipe: str, out: Path, style: str, start: int, count: int) -> Path:
    """A folder of annotated scenes with captions of one style."""
    settings = recipes.Pairs(source="annotated", count=0, samples_per_shard=2_000)
    dataset = emoji_world.annotated_dataset(world(recipe), count, styles=(style,), start=start, wording=WORDING)
    make_pairs(settings, out, dataset=dataset)
    return out


def make(name: str, args: argparse.Namespace) -> Path:
    """Train one captioner and store it with its card."""
    work, recipe, watch = args.work / args.recipe, args.recipe, Stopwatch()
    scenes, quick = ANNOTATED[recipe], recipe == "emoji"
    if name == "web":
        start = "lite-captioner-web" if recipe == "emoji" else ""
        settings = dataclasses.replace(PRETRAIN, samples=args.samples)
        data = web_pairs(recipe, work / "web", args.pairs)
        held = web_pairs(recipe, work / "web-held", HELD_OUT, seed=SEED + 1)
        facts = {"data": f"{args.pairs:,} pairs of alt-text", "world": world(recipe)}
    else:
        start = f"{recipe}-captioner-web"
        settings = FINETUNE
        data = clean_pairs(recipe, work / name, name, 0, scenes)
        held = clean_pairs(recipe, work / f"{name}-held", name, scenes, HELD_OUT)
        facts = {"data": f"{scenes:,} annotated scenes, captions {name}", "wording": WORDING}
    if quick:
        settings = dataclasses.replace(settings, learning_rate=RATE * settings.learning_rate, **QUICK)
    if start:
        facts["start"], settings = start, dataclasses.replace(settings, start=str(args.out / start))
    folder = train(settings, data, work / f"captioner-{name}", seed=0, evaluate=HeldOut(held, HELD_OUT))
    losses = [
        (line["step"], line["evaluation"]["caption_loss"])
        for line in read(folder / "log.jsonl")
        if "evaluation" in line
    ]
    facts |= {"held_out_loss": losses, "seed": 0, "seconds": round(watch.seconds), "settings": settings}
    facts["settings"] = {**to_json(settings), "start": facts.get("start", "")}
    facts["command"] = f"python data/train_captioners.py {name}" + (f" --recipe {recipe}" if quick else "")
    card = {**to_json(facts), "attribution": emoji_world.ATTRIBUTION}
    loaded = create_model(folder)
    out = args.out / f"{recipe}-captioner-{name}"
    save_model(loaded, out, name=out.name, card=card, dtype=torch.float16)
    size = (out / "model.safetensors").stat().st_size / 1e6
    print(json.dumps({"name": out.name, "megabytes": round(size, 1), "held_out_loss": losses}), flush=True)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=("web", *emoji_world.STYLES))
    parser.add_argument("--recipe", default="lite", choices=sorted(ANNOTATED), help="whose world it is for")
    parser.add_argument("--samples", type=int, default=0, help="seen samples of `web`; 0 for the recipe's")
    parser.add_argument("--pairs", type=int, default=0, help="pairs of the web; 0 for the recipe's")
    parser.add_argument("--work", type=Path, default=Path("runs/captioners"), help="pairs and trainings")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "captioners")
    args = parser.parse_args()
    pairs, samples = READ[args.recipe]
    args.pairs, args.samples = args.pairs or pairs, args.samples or samples
    for name in args.names:
        make(name, args)


if __name__ == "__main__":
    main()
