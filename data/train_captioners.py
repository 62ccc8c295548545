"""Train the embedded captioners; writes `data/captioners/NAME/`.

    OMP_NUM_THREADS=1 python data/train_captioners.py web
    OMP_NUM_THREADS=1 python data/train_captioners.py short relational detailed

`web` learns from alt-text alone, of a web as a good filter leaves it; the others start from it and are fine-tuned on
the small annotated set (4,000 scenes with clean captions) in one style each, until the held-out loss rises. All with
the one training loop. Weights are stored in half precision. `card.json` beside them says what was done.
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
ANNOTATED = 4_000
"""Scenes with clean captions to fine-tune on; 500 more are held out."""
HELD_OUT = 500
WORDING = "learned"
"""Of the clean captions: no test caption is worded like one of them."""

PRETRAIN = recipes.Train(
    model="lite-coca",
    samples=300_000,
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


def world() -> recipes.World:
    """The lite world, drawn smaller: the captioner sees 48 pixels."""
    return dataclasses.replace(recipes.lite().world, image_size=64, seed=SEED, alt_text=WEB)


def web_pairs(out: Path, count: int, seed: int = SEED) -> Path:
    """A folder of the web's pairs."""
    settings = recipes.Pairs(count=count, samples_per_shard=2_000)
    make_pairs(settings, out, world=dataclasses.replace(world(), seed=seed))
    return out


def clean_pairs(out: Path, style: str, start: int, count: int) -> Path:
    """A folder of annotated scenes with captions of one style."""
    settings = recipes.Pairs(source="annotated", count=0, samples_per_shard=2_000)
    dataset = emoji_world.annotated_dataset(world(), count, styles=(style,), start=start, wording=WORDING)
    make_pairs(settings, out, dataset=dataset)
    return out


def make(name: str, args: argparse.Namespace) -> Path:
    """Train one captioner and store it with its card."""
    work, watch = args.work, Stopwatch()
    if name == "web":
        settings = dataclasses.replace(PRETRAIN, samples=args.samples)
        data, held = web_pairs(work / "web", args.pairs), web_pairs(work / "web-held", HELD_OUT, seed=SEED + 1)
        facts = {"data": f"{args.pairs:,} pairs of alt-text", "world": world()}
    else:
        settings = dataclasses.replace(FINETUNE, start=str(args.out / "lite-captioner-web"))
        data = clean_pairs(work / name, name, 0, ANNOTATED)
        held = clean_pairs(work / f"{name}-held", name, ANNOTATED, HELD_OUT)
        facts = {
            "data": f"{ANNOTATED:,} annotated scenes, captions {name}",
            "wording": WORDING,
            "start": "lite-captioner-web",
        }
    folder = train(settings, data, work / f"captioner-{name}", seed=0, evaluate=HeldOut(held, HELD_OUT))
    losses = [
        (line["step"], line["evaluation"]["caption_loss"])
        for line in read(folder / "log.jsonl")
        if "evaluation" in line
    ]
    facts |= {"held_out_loss": losses, "seed": 0, "seconds": round(watch.seconds), "settings": settings}
    facts["settings"] = {**to_json(settings), "start": facts.get("start", "")}
    facts["command"] = f"python data/train_captioners.py {name}"
    card = {**to_json(facts), "attribution": emoji_world.ATTRIBUTION}
    loaded = create_model(folder)
    out = args.out / f"lite-captioner-{name}"
    save_model(loaded, out, name=out.name, card=card, dtype=torch.float16)
    size = (out / "model.safetensors").stat().st_size / 1e6
    print(json.dumps({"name": out.name, "megabytes": round(size, 1), "held_out_loss": losses}), flush=True)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=("web", *emoji_world.STYLES))
    parser.add_argument("--samples", type=int, default=PRETRAIN.samples, help="seen samples of `web`")
    parser.add_argument("--pairs", type=int, default=60_000, help="pairs of the web")
    parser.add_argument("--work", type=Path, default=Path("runs/captioners"), help="pairs and trainings")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "captioners")
    args = parser.parse_args()
    for name in args.names:
        make(name, args)


if __name__ == "__main__":
    main()
