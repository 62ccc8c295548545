"""Train one embedded teacher from an endless stream of the embedded world; writes `data/teachers/NAME/`.

    python data/train_teacher.py lite-teacher-conv --samples 6000000
    python data/train_teacher.py lite-teacher-mci  --samples 6000000

Plain contrastive training (teachers come before all reinforcement), every scene seen once. The two teachers differ in
architecture and in the data filter of their web, so that an ensemble of them makes sense: the convolutional one reads
a strictly filtered web, the hybrid one a larger share of clean captions but a web in which one text of six is wrong.
Weights are stored in half precision. `card.json` beside them says what was done and what came out.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from mobileclip2_lite import augment, emoji_world, recipes
from mobileclip2_lite.evaluation import evaluate
from mobileclip2_lite.models.trimming import trim
from mobileclip2_lite.models.zoo import create_model, save_model
from mobileclip2_lite.stages import rng, to_json

WEBS = {
    "lite-teacher-conv": (recipes.AltText(mismatch=0.02, filename=0.05, boilerplate=0.15, fragment=0.05), 0.4, 101),
    "lite-teacher-mci": (recipes.AltText(mismatch=0.16), 0.6, 202),
}
"""Per teacher: the noise of its web, the share of clean captions, the seed of its stream (students use seed 0)."""

VIEWS = recipes.Augment(scale=(0.15, 1.0), operations=1)
"""Augmentation in training: the teacher has to judge strongly augmented views later."""


class Stream(IterableDataset):
    """Batches of the stream: uint8 images (B, 3, S, S) and token ids (B, L); a worker takes every k-th batch."""

    def __init__(self, world: recipes.World, captions: float, size: int, tokenizer, batch: int, batches: range):
        self.world, self.captions, self.size = world, captions, size
        self.tokenizer, self.batch, self.batches = tokenizer, batch, batches

    def __iter__(self):
        torch.set_num_threads(1)
        worker = get_worker_info()
        for index in self.batches[worker.id :: worker.num_workers] if worker else self.batches:
            images = np.empty((self.batch, self.size, self.size, 3), np.uint8)
            texts = []
            pairs = emoji_world.training_stream(self.world, index * self.batch, (index + 1) * self.batch, self.captions)
            for row, (pixels, text) in enumerate(pairs):
                draw = rng("teacher-view", self.world.seed, index, row)
                view = augment.draw(draw, self.world.image_size, self.world.image_size, VIEWS, "")
                images[row] = np.asarray(augment.replay(Image.fromarray(pixels), view, self.size))
                texts.append(text)
            yield torch.from_numpy(images).permute(0, 3, 1, 2), self.tokenizer(texts)


def learning_rate(step: int, steps: int, peak: float, warmup: int = 500) -> float:
    """Linear warm-up, then half a cosine to zero."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def train(name: str, samples: int, batch: int, peak: float, workers: int, limit: float) -> tuple:
    """Train `name`; returns (loaded model, facts for its card). Stops early after `limit` seconds, at a lower rate."""
    noise, captions, seed = WEBS[name]
    torch.manual_seed(seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded = create_model(name)
    model = loaded.model.to(device, memory_format=torch.channels_last).train()
    world = recipes.World(names=0, image_size=80, max_objects=4, seed=seed, alt_text=noise)
    steps, start = samples // batch, time.time()
    stream = Stream(world, captions, loaded.preprocess.image_size, loaded.tokenizer, batch, range(steps))
    loader = DataLoader(stream, batch_size=None, num_workers=workers, prefetch_factor=6 if workers else None)
    decay = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decay, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.98))
    mean, std = (
        torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (loaded.preprocess.mean, loaded.preprocess.std)
    )
    target = torch.arange(batch, device=device)
    for step, (images, tokens) in enumerate(loader):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, steps, peak)
        pixels = (images.to(device, non_blocking=True).float() / 255 - mean) / std
        tokens = trim(model, tokens).to(device, non_blocking=True)
        with torch.autocast(device, torch.bfloat16):
            image_features = model.encode_image(pixels.contiguous(memory_format=torch.channels_last), normalize=True)
            text_features = model.encode_text(tokens, normalize=True)
        logits = model.logit_scale.exp() * image_features.float() @ text_features.float().T
        loss = (
            torch.nn.functional.cross_entropy(logits, target) + torch.nn.functional.cross_entropy(logits.T, target)
        ) / 2
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        if step % 200 == 0 or step == steps - 1:
            rate = (step + 1) * batch / (time.time() - start)
            scale = model.logit_scale.exp().item()
            print(
                f"{name} step {step}/{steps} loss {loss.item():.4f} scale {scale:.1f} {rate:.0f} samples/s", flush=True
            )
        if limit and time.time() - start > limit:
            print(f"{name}: stopped at step {step} after {limit:.0f} s", flush=True)
            break
    facts = {"seed": seed, "samples": (step + 1) * batch, "batch_size": batch, "learning_rate": peak, "world": world}
    facts |= {"captions": captions, "augment": VIEWS, "seconds": round(time.time() - start), "device": device}
    return loaded._replace(model=model.eval()), facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(WEBS))
    parser.add_argument("--samples", type=int, default=6_000_000, help="scenes to see")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    parser.add_argument("--limit", type=float, default=0, help="stop after so many seconds (0: never)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "teachers")
    args = parser.parse_args()
    loaded, facts = train(args.name, args.samples, args.batch, args.learning_rate, args.workers, args.limit)
    loaded.model.half().float()  # measure what is stored
    metrics = {
        "all_names": evaluate(loaded, recipes.World(names=0, image_size=96), recipes.Evaluate()),
        "lite": evaluate(loaded, recipes.lite().world, recipes.Evaluate()),
    }
    card = {
        "name": args.name,
        "command": f"python data/train_teacher.py {args.name} --samples {args.samples} --batch {args.batch}",
        "logit_scale": round(loaded.model.logit_scale.exp().item(), 2),
        **to_json(facts),
        "metrics": metrics,
        "attribution": emoji_world.ATTRIBUTION,
    }
    loaded.model.cpu()
    folder = save_model(loaded, args.out / args.name, name=args.name, card=card, dtype=torch.float16)
    print(json.dumps(metrics, indent=2), f"{(folder / 'model.safetensors').stat().st_size / 1e6:.1f} MB", flush=True)


if __name__ == "__main__":
    main()
