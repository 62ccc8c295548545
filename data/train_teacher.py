"""Train one embedded teacher from an endless stream of the embedded world; writes `data/teachers/NAME/`.

    OMP_NUM_THREADS=1 python data/train_teacher.py lite-teacher-conv --samples 400000
    OMP_NUM_THREADS=1 python data/train_teacher.py lite-teacher-se --samples 300000
    OMP_NUM_THREADS=1 python data/train_teacher.py lite-teacher-conv --start data/teachers/lite-teacher-conv
    OMP_NUM_THREADS=1 python data/train_teacher.py lite-teacher-se --start data/teachers/lite-teacher-se
    OMP_NUM_THREADS=1 python data/train_teacher.py emoji-teacher-conv --start data/teachers/lite-teacher-conv
    OMP_NUM_THREADS=1 python data/train_teacher.py emoji-teacher-se --start data/teachers/lite-teacher-se

Plain contrastive training (teachers come before all reinforcement), every scene seen once. The two teachers differ in
architecture and in the data filter of their web, so that an ensemble of them makes sense: `conv` reads a strictly
filtered web, `se` a larger share of clean captions but a web in which one text of ten is wrong. With `--start` a
trained teacher goes on for a further part, on scenes that it has not seen, whose clean captions come in many wordings
(`emoji_world.wording`), so that it understands captions of other forms than those of the first part. The two of the
world of all names are such a part, longer, of those of 120; their views differ, too, so that they err differently.
Weights are stored in half precision. `card.json` beside them says what was done and what came out.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
import torch.nn.functional as functional
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from mobileclip2_lite import emoji_world, recipes
from mobileclip2_lite.costs.rates import architecture
from mobileclip2_lite.evaluation.suite import evaluate
from mobileclip2_lite.models.loaded import LoadedModel, attention, autocast, usable_precision
from mobileclip2_lite.models.trimming import encode_text
from mobileclip2_lite.models.zoo import create_model, save_model
from mobileclip2_lite.training.grouped_convolutions import speed_up_grouped_convolutions
from mobileclip2_lite.training.optimizer import learning_rate, optimizer
from mobileclip2_lite.views import drawing
from mobileclip2_lite.views.replay import replay
from mobileclip2_lite.work.files import to_json
from mobileclip2_lite.work.randomness import rng
from mobileclip2_lite.work.stopwatch import Stopwatch


class Plan(NamedTuple):
    """How one teacher is trained."""

    alt_text: recipes.AltText
    """Noise of its web."""
    captions: float
    """Share of clean captions."""
    seed: int
    """Of its stream; students use seed 0."""
    recipe: str = "lite"
    """Whose world, and whose test sets, it is for."""
    augment: recipes.Augment = recipes.Augment(scale=(0.25, 1.0), operations=1)
    """Views in training: the teacher has to judge strongly augmented ones later."""
    samples: int = 51_200
    """Scenes that a part after the first one sees."""
    learning_rate: float = 2e-3
    """Of a part after the first one, whose optimiser is timm's `nmuon`."""
    small: float = 0.0
    """Share of the steps of such a part that see few pixels."""

    @property
    def world(self) -> recipes.World:
        """Where its scenes come from."""
        world = recipes.named(self.recipe).world
        return dataclasses.replace(world, image_size=80, seed=self.seed, alt_text=self.alt_text)


_STRICT = recipes.AltText(mismatch=0.02, filename=0.05, fragment=0.05)
_LOOSE = recipes.AltText(mismatch=0.1)
_ALL = {"recipe": "emoji", "samples": 153_600, "learning_rate": 4e-3, "small": 0.5}
PLANS = {
    "lite-teacher-conv": Plan(_STRICT, 0.5, 101),
    "lite-teacher-se": Plan(_LOOSE, 0.6, 202),
    "emoji-teacher-conv": Plan(_STRICT, 0.5, 103, **_ALL),
    "emoji-teacher-se": Plan(_LOOSE, 0.6, 204, augment=recipes.Augment(scale=(0.4, 1.0), operations=2), **_ALL),
}
"""Teacher -> how it is trained."""

WARMUP = 0.06
"""Share of the steps in which the learning rate rises."""

SMALL = (48, 0.75)
"""Side in pixels with which a training begins, and the share of steps that this takes in a first part."""

WORDED = 0.8
"""In a part after the first: share of the clean captions in the wording `learned`; the others are plain."""


def _read_card(folder: Path) -> dict:
    return json.loads((folder / "card.json").read_text("utf-8"))


class Stream(IterableDataset):
    """Batches of the stream: uint8 images (B, 3, S, S) and token ids (B, L); a worker takes every k-th batch."""

    def __init__(self, plan: Plan, worded: float, size: int, tokenizer, batch: int, batches: range):
        self.world, self.augment, self.shares, self.size = plan.world, plan.augment, (plan.captions, worded), size
        self.tokenizer, self.batch, self.batches = tokenizer, batch, batches

    def __iter__(self):
        torch.set_num_threads(1)
        worker = get_worker_info()
        for index in self.batches[worker.id :: worker.num_workers] if worker else self.batches:
            images = np.empty((self.batch, self.size, self.size, 3), np.uint8)
            texts = []
            pairs = emoji_world.training_stream(self.world, index * self.batch, (index + 1) * self.batch, *self.shares)
            for row, (pixels, text) in enumerate(pairs):
                draw = rng("teacher-view", self.world.seed, index, row)
                view = drawing.draw(draw, self.world.image_size, self.world.image_size, self.augment, "")
                images[row] = np.asarray(replay(Image.fromarray(pixels), view, self.size))
                texts.append(text)
            yield torch.from_numpy(images).permute(0, 3, 1, 2), self.tokenizer(texts)


def train(name: str, args: argparse.Namespace) -> tuple[LoadedModel, dict]:
    """Train `name` and keep the state of every 300 steps in its folder; returns the model and facts for its card."""
    plan = PLANS[name]
    torch.manual_seed(plan.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    precision = usable_precision("bf16", torch.device(device))
    before = _read_card(args.start) if args.start else {}
    loaded = create_model(args.start or architecture(name))
    model = loaded.model.to(device, memory_format=torch.channels_last).train()
    steps, watch = args.samples // args.batch, Stopwatch()
    small_steps = int(steps * (plan.small if before else SMALL[1]))
    facts = {
        "seed": plan.seed,
        "samples": steps * args.batch,
        "batch_size": args.batch,
        "learning_rate": args.learning_rate,
    }
    worded = WORDED if before else 0.0
    facts |= {"captions": plan.captions, "worded": worded, "world": plan.world}
    facts |= {"augment": plan.augment, "device": device, "precision": precision}
    facts["command"] = f"python data/train_teacher.py {name} --samples {args.samples} --batch {args.batch}"
    if before:
        facts["command"] += f" --start data/teachers/{args.start.name}"
        facts["start"] = {key: before[key] for key in ("sha256", "seed", "samples", "seconds", "command")}
    if device == "cpu":
        speed_up_grouped_convolutions(model)
    if before:
        optimiser = optimizer(model, "nmuon", args.learning_rate, betas=(0.9, 0.95), decay=0.05)
    else:
        optimiser = optimizer(model, "adamw", args.learning_rate, betas=(0.9, 0.98), decay=0.05)
    own = before.get("name") == name  # the same stream goes on
    first = before["samples"] // args.batch if own else 0
    for step, (images, tokens) in enumerate(batches(loaded, plan, worded, args, first, steps, small_steps)):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, steps, args.learning_rate, WARMUP)
        pixels = loaded.preprocess.normalize(images.to(device))
        with autocast(precision, torch.device(device)):
            image_features = model.encode_image(pixels, normalize=True)
            with attention(precision, torch.device(device), tokens.shape[1]):
                text_features = encode_text(model, tokens.to(device), normalize=True)
        logits = model.logit_scale.exp() * image_features.float() @ text_features.float().T
        target = torch.arange(len(logits), device=device)
        loss = (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        if step % 50 == 0 or step == steps - 1:
            rate, scale = (step + 1) * args.batch / watch.seconds, model.logit_scale.exp().item()
            print(f"{name} step {step}/{steps} loss {loss.item():.4f} scale {scale:.1f} {rate:.0f}/s", flush=True)
        if (step + 1) % 300 == 0 and step + 1 < steps:
            keep(loaded, args.out, name, {**facts, "steps": step + 1, "seconds": round(watch.seconds)})
    return loaded._replace(model=model.eval()), {**facts, "seconds": round(watch.seconds)}


def batches(
    loaded: LoadedModel,
    plan: Plan,
    worded: float,
    args: argparse.Namespace,
    first: int,
    steps: int,
    small: int,
):
    """All batches of a training, from batch `first` of the stream on.

    The first `small` steps have fewer pixels, where a step costs half as much.
    """
    parts = (
        (SMALL[0], range(first, first + small)),
        (loaded.preprocess.image_size, range(first + small, first + steps)),
    )
    for size, part in parts:
        stream = Stream(plan, worded, size, loaded.tokenizer, args.batch, part)
        prefetch = 4 if args.workers else None
        yield from DataLoader(stream, batch_size=None, num_workers=args.workers, prefetch_factor=prefetch)


def keep(loaded: LoadedModel, out: Path, name: str, card: dict) -> Path:
    """Save in half precision with a card; returns the folder."""
    card = {"logit_scale": round(loaded.model.logit_scale.exp().item(), 2), **to_json(card)}
    card["attribution"] = emoji_world.ATTRIBUTION
    return save_model(loaded, out / name, name=name, card=card, dtype=torch.float16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(PLANS))
    parser.add_argument("--start", type=Path, help="folder of a trained teacher: a further part")
    parser.add_argument("--samples", type=int, default=0, help="scenes to see; 0 for 400,000, or the further part's")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--learning-rate", type=float, default=0.0, help="0 for that of the part")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "teachers")
    args = parser.parse_args()
    plan = PLANS[args.name]
    args.samples = args.samples or (plan.samples if args.start else 400_000)
    args.learning_rate = args.learning_rate or (plan.learning_rate if args.start else 2e-3)
    loaded, facts = train(args.name, args)
    loaded.model.half().float()  # measure what is stored
    facts["metrics"] = evaluate(loaded, recipes.named(plan.recipe).world, recipes.named(plan.recipe).evaluate)
    loaded.model.cpu()
    folder = keep(loaded, args.out, args.name, facts)
    size = (folder / "model.safetensors").stat().st_size / 1e6
    print(json.dumps(facts["metrics"], indent=2), f"{size:.1f} MB", flush=True)


if __name__ == "__main__":
    main()
