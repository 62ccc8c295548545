"""Seconds a training step: plain contrast against offline reinforced and online teachers, and against open_clip.

    python benchmarks/training.py                        # the lite student, batch 256
    python benchmarks/training.py --model MobileCLIP2-S0 --batch-size 8 --steps 2 --only open_clip

Part `prices` runs variants of our own loop on the same pairs, in turns, loading included: contrastive (weak crop),
offline reinforced (stored views and embeddings of two teachers), the same with synthetic captions, and one and two
teachers live. Part `open_clip` gives open_clip's own `train_one_epoch` and our step the same weights and the same
batches, in fp32 and bf16; its images come normalised and its texts tokenised for free, ours are normalised within the
step. Times are process CPU seconds on one thread, so that other processes hardly disturb them. Writes
results/training.jsonl.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import logging
import statistics
import tempfile
import time
import types
from pathlib import Path

import numpy as np
import torch

from mobileclip2_lite import augment, emoji_world, recipes, shards
from mobileclip2_lite.distributed import Processes
from mobileclip2_lite.feeding import Fed, Tokens, _prepare
from mobileclip2_lite.models.teachers import load_teachers
from mobileclip2_lite.models.zoo import create_model
from mobileclip2_lite.stages import Work, rng, sha256_bytes, stable_uid
from mobileclip2_lite.training import Run

TEACHERS = ("lite-teacher-conv", "lite-teacher-se")
CPU = torch.device("cpu")


def write_folder(folder: Path, count: int, world: recipes.World) -> Path:
    """`count` scenes with five views and the embedded teachers' cards; the embeddings are random unit rows."""
    from PIL import Image

    ensemble = load_teachers(TEACHERS)
    sizes = {name: ensemble.embed_texts(name, ["a"]).shape[1] for name in TEACHERS}
    items = []
    for index in range(count):
        scene = emoji_world.scene(world, "train", index)
        file = io.BytesIO()
        Image.fromarray(emoji_world.render(scene, world.image_size)).save(file, "PNG")
        data, uid = file.getvalue(), stable_uid(f"scene-{index}")
        side, digest, chance = world.image_size, sha256_bytes(file.getvalue()), rng(0, "benchmark", uid)
        rows = {}
        for name, size in sizes.items():
            for kind, number in (("image", 5), ("text", 1), ("syn_text_c", 5)):
                unit = torch.from_numpy(chance.normal(size=(number, size)).astype(np.float32))
                rows[f"{kind}/{name}"] = torch.nn.functional.normalize(unit, dim=-1)
        views = [augment.draw(chance, side, side, recipes.Augment(), digest) for _ in range(5)]
        meta = {"source": uid, "width": side, "height": side, "sha256": digest}
        text, captions = emoji_world.alt_text(scene, world), {"c": emoji_world.captions(scene)}
        items.append(shards.Sample(uid, data, "png", text, meta, captions, views, rows))
    info = shards.write_shard(folder / "shard-000000.tar", items)
    cards = [
        {
            "name": n,
            "logit_scale": ensemble.logit_scales[n],
            "dimension": sizes[n],
            "image_size": ensemble.image_size(n),
        }
        for n in TEACHERS
    ]
    record = {"name": "shard-000000.tar", **info._asdict(), "dropped": {}}
    Work(folder, "benchmark", 1, {}).commit(teachers=cards, captioners=["c"], shards=[record], samples=count)
    return folder


def prices(data: Path, student: recipes.Train, steps: int) -> list[dict]:
    """Seconds of loading and of stepping, each variant once a round."""
    variants = {
        "plain contrastive": {"distill": 0.0, "views": "weak"},
        "offline reinforced": {},
        "offline reinforced + captions": {"captioners": ("c",)},
        "plain contrastive + captions": {"distill": 0.0, "views": "weak", "captioners": ("c",)},
        "online, one teacher": {"online": True, "teachers": TEACHERS[1:]},
        "online, two teachers": {"online": True},
    }
    runs, times = {}, {name: [] for name in variants}
    for name, changes in variants.items():
        run = Run(dataclasses.replace(student, **changes), data, Path("unused"), 0, Processes())
        runs[name] = (run, run.stream(), Tokens(run.stepper.loaded.tokenizer, run.stepper.cut))
    for step in range(steps + 1):
        for name, (run, stream, tokens) in runs.items():
            start = time.process_time()
            fed = _prepare(stream[step % len(stream)], tokens, CPU)
            loaded = time.process_time()
            run.stepper(step, [fed])
            if step:  # the first is warm-up
                times[name].append((loaded - start, time.process_time() - loaded))
    base = statistics.median(sum(pair) for pair in times["plain contrastive"])
    base_captions = statistics.median(sum(pair) for pair in times["plain contrastive + captions"])
    rows = []
    for name, pairs in times.items():
        seconds = [sum(pair) for pair in pairs]
        against = base_captions if "captions" in name else base
        row = {
            "part": "prices",
            "name": name,
            "load_s": statistics.median(pair[0] for pair in pairs),
            "step_s": statistics.median(pair[1] for pair in pairs),
            "total_s": statistics.median(seconds),
            "spread_s": max(seconds) - min(seconds),
            "samples_per_s": student.batch_size / statistics.median(seconds),
            "of_plain": statistics.median(seconds) / against,
        }
        rows.append(row)
    return rows


def open_clip_arguments(precision: str) -> types.SimpleNamespace:
    """What its training loop looks at."""
    return types.SimpleNamespace(
        device="cpu", precision=precision, distill=False, accum_freq=1, skip_scheduler=True, horovod=False,
        grad_clip_norm=1.0, rank=0, log_every_n_steps=10**9, world_size=1, batch_size=1, wandb=False, local_rank=0,
    )  # fmt: skip


def open_clip_optimizer(model: torch.nn.Module, student: recipes.Train) -> torch.optim.AdamW:
    """As its main.py builds it."""

    def excluded(name: str, p: torch.nn.Parameter) -> bool:
        return p.ndim < 2 or "bn" in name or "ln" in name or "bias" in name or "logit_scale" in name

    named = list(model.named_parameters())
    groups = [
        {"params": [p for n, p in named if excluded(n, p)], "weight_decay": 0.0},
        {"params": [p for n, p in named if not excluded(n, p)], "weight_decay": student.weight_decay},
    ]
    return torch.optim.AdamW(groups, lr=student.learning_rate, betas=student.betas, eps=1e-8)


def against_open_clip(data: Path, student: recipes.Train, steps: int, precision: str) -> list[dict]:
    """The same weights and batches through both loops, a step of each in turn."""
    from open_clip import ClipLoss
    from open_clip_train.train import train_one_epoch

    logging.disable(logging.INFO)
    # a constant rate (the whole of training is warm-up's first step) keeps both optimisers at the same point
    student = dataclasses.replace(student, distill=0.0, views="weak", precision=precision, warmup=0.0)
    run = Run(dataclasses.replace(student, samples=10**6 * student.batch_size), data, Path("unused"), 0, Processes())
    theirs, loaded = create_model(student.model).model, run.stepper.loaded  # in the layout that it was made in
    theirs.load_state_dict(run.stepper.model.state_dict())
    theirs.train()
    theirs.output_dict = True
    optimizer = open_clip_optimizer(theirs, student)
    name = {"bf16": "amp_bf16", "fp32": "fp32"}[precision]
    ours_s, theirs_s, losses = [], [], []
    stream, tokens = run.stream(), Tokens(loaded.tokenizer, run.stepper.cut)
    recorded: list[float] = []

    class Recorded(ClipLoss):
        def forward(self, *arguments, **keywords):
            found = super().forward(*arguments, **keywords)
            recorded.append(float(found["contrastive_loss"].detach()))
            return found

    criterion = Recorded()
    for step in range(steps + 1):
        batch = stream[step % len(stream)]
        fed: Fed = _prepare(batch, tokens, CPU)
        pixels, whole = loaded.preprocess.normalize(fed.images).contiguous(), loaded.tokenizer(fed.texts[0])
        loader = types.SimpleNamespace(num_batches=1, num_samples=len(whole))
        feed = {"train": types.SimpleNamespace(set_epoch=lambda epoch: None, dataloader=_One(loader, (pixels, whole)))}
        start = time.process_time()
        ours, _ = run.stepper(step, [fed])
        middle = time.process_time()
        train_one_epoch(theirs, feed, criterion, 0, optimizer, None, None, None, open_clip_arguments(name))
        end = time.process_time()
        losses.append((float(ours["loss"]), recorded[-1]))
        if step:
            ours_s.append(middle - start)
            theirs_s.append(end - middle)
    ratio = [b / a for a, b in zip(ours_s, theirs_s, strict=True)]
    return [
        {
            "part": "open_clip",
            "name": f"{student.model} {precision}",
            "batch_size": student.batch_size,
            "ours_samples_per_s": student.batch_size / statistics.median(ours_s),
            "open_clip_samples_per_s": student.batch_size / statistics.median(theirs_s),
            "ratio": statistics.median(ratio),
            "ratio_low": min(ratio),
            "first_loss_difference": abs(losses[0][0] - losses[0][1]),
            "last_loss_difference": abs(losses[-1][0] - losses[-1][1]),
        }
    ]


class _One:
    """A data loader of one batch."""

    def __init__(self, facts: types.SimpleNamespace, batch: tuple) -> None:
        self.num_batches, self.num_samples, self.batch = facts.num_batches, facts.num_samples, batch

    def __iter__(self):
        yield self.batch


def show(rows: list[dict]) -> None:
    """Print rows of one part as a table."""
    for part in dict.fromkeys(row["part"] for row in rows):
        chosen = [row for row in rows if row["part"] == part]
        columns = [key for key in chosen[0] if key != "part"]
        print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
        for row in chosen:
            cells = [f"{v:.3g}" if isinstance(v, float) else str(v) for v in (row[key] for key in columns)]
            print("| " + " | ".join(cells) + " |")
        print()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="lite-mci-s")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=5, help="measured steps of each variant, after one of warm-up")
    parser.add_argument("--only", choices=("prices", "open_clip"))
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "training.jsonl")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    student = recipes.Train(model=args.model, samples=10_000 * args.batch_size, batch_size=args.batch_size, workers=0)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        data = write_folder(Path(folder), max(2 * args.batch_size, 64), recipes.World())
        if args.only != "open_clip":
            rows += prices(data, student, args.steps)
        if args.only != "prices":
            for precision in args.precision:
                rows += against_open_clip(data, student, args.steps, precision)
    show(rows)
    args.out.parent.mkdir(exist_ok=True)
    facts = {"model": args.model, "batch_size": args.batch_size, "steps": args.steps, "threads": args.threads}
    facts["torch"] = torch.__version__
    with open(args.out, "a", encoding="utf-8") as file:
        file.writelines(json.dumps({**facts, **row}) + "\n" for row in rows)


if __name__ == "__main__":
    main()
