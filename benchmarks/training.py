"""Seconds a training step: plain contrast against offline reinforced and online teachers, and against open_clip.

    python benchmarks/training.py                        # everything, the lite student with batch 256
    python benchmarks/training.py --only paper           # MobileCLIP2-S0 at 256 pixels against open_clip alone

Part `prices` runs variants of our own loop on the same pairs, in turns, loading included: contrastive (weak crop),
offline reinforced (stored views and embeddings of two teachers), the same with synthetic captions, one and two teachers
live, and two teachers with a captioner that writes one caption for each view that the student sees. Part `open_clip`
gives open_clip's own `train_one_epoch` and our step the same weights and the same batches, in fp32 and bf16; its images
come normalised and its texts tokenised for free, ours are normalised within the step. It says how far losses and
gradients of the first step are apart, and how far each's gradients are from those of fp64. Part `paper` is the same for
MobileCLIP2-S0, on one thread and on two. Times on one thread are process CPU seconds, so that other processes hardly
disturb them; on two they are seconds of the clock, for a quiet machine. Writes results/training.jsonl.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import statistics
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path

import harness
import inputs
import torch

from mobileclip2_lite import recipes
from mobileclip2_lite.captioning.generation import generate
from mobileclip2_lite.models.embedded import load_captioner
from mobileclip2_lite.models.teachers import load_teachers
from mobileclip2_lite.models.zoo import create_model
from mobileclip2_lite.training.distributed import Processes
from mobileclip2_lite.training.feeding import CAPTIONS, PreparedBatch, TextGroup, Tokens, prepare
from mobileclip2_lite.training.loop import Run
from mobileclip2_lite.work.randomness import rng
from mobileclip2_lite.work.stopwatch import Stopwatch

TEACHERS = ("lite-teacher-conv", "lite-teacher-se")
CPU = torch.device("cpu")
CAPTION = recipes.Generate(captions=1, min_length=15, max_length=17)
"""What a live captioner writes: 15 tokens, a typical caption, whatever its weights say about the end."""
PAPER = "MobileCLIP2-S0"


def write_folder(folder: Path, count: int, world: recipes.World) -> Path:
    """`count` scenes with five views and the embedded teachers' cards; the embeddings are random unit rows."""
    ensemble = load_teachers(TEACHERS)
    sizes = {name: ensemble.embed_texts(name, ["a"]).shape[1] for name in TEACHERS}
    cards = [
        {
            "name": name,
            "logit_scale": ensemble.logit_scales[name],
            "dimension": sizes[name],
            "image_size": ensemble.image_size(name),
        }
        for name in TEACHERS
    ]
    return inputs.write_folder(folder, inputs.scenes(world, count, sizes, views=5), cards)


class LiveCaptioner:
    """A captioner that writes a caption for each view of a batch, as a second group of texts."""

    def __init__(self, name: str, tokens: Tokens) -> None:
        torch.manual_seed(0)
        self.loaded, self.tokens, self.lengths = load_captioner(name), tokens, [0]

    def __call__(self, step: int, batch: PreparedBatch) -> PreparedBatch:
        images, size = batch.images, self.loaded.preprocess.image_size
        if images.shape[-1] != size:
            images = torch.nn.functional.interpolate(images.float(), (size, size), mode="bilinear").byte()
        found = generate(self.loaded, images, CAPTION, [rng(0, "caption", step, uid) for uid in batch.uids])
        self.lengths = [len(captions[0].tokens) - 1 for captions in found]
        texts = [captions[0].text for captions in found]
        return dataclasses.replace(batch, groups=[*batch.groups, TextGroup(CAPTIONS, texts, self.tokens(texts), {})])


def prices(data: Path, student: recipes.Train, steps: int, captioner: str, clock: Callable[[], float]) -> list[dict]:
    """Seconds of loading, of writing captions and of stepping, each variant once a round."""
    variants = {
        "plain contrastive": {"distill": 0.0, "views": "weak"},
        "offline reinforced": {},
        "offline reinforced + captions": {"captioners": ("c",)},
        "plain contrastive + captions": {"distill": 0.0, "views": "weak", "captioners": ("c",)},
        "online, one teacher": {"online": True, "teachers": TEACHERS[1:]},
        "online, two teachers": {"online": True},
        "online, two teachers + captioner": {"online": True},
    }
    runs, times = {}, {name: [] for name in variants}
    for name, changes in variants.items():
        run = Run(dataclasses.replace(student, **changes), data, Path("unused"), 0, Processes())
        tokens = Tokens(run.stepper.loaded.tokenizer, run.stepper.cut)
        write = LiveCaptioner(captioner, tokens) if name.endswith("captioner") else None
        runs[name] = (run, run.stream(), tokens, write)
    for step in range(steps + 1):
        for name, (run, stream, tokens, write) in runs.items():
            watch = Stopwatch(clock)
            batch = prepare(stream[step % len(stream)], tokens, CPU)
            loading = watch.restart()
            batch = write(step, batch) if write else batch
            writing = watch.restart()
            run.stepper(step, [batch])
            if step:  # the first is warm-up
                times[name].append((loading, writing, watch.seconds))
    totals = {name: statistics.median(map(sum, rows)) for name, rows in times.items()}
    found = []
    for name, rows in times.items():
        seconds, write = [sum(row) for row in rows], runs[name][3]
        against = "plain contrastive + captions" if "caption" in name else "plain contrastive"
        row = {
            "part": "prices",
            "name": name,
            "load_s": statistics.median(row[0] for row in rows),
            "write_s": statistics.median(row[1] for row in rows),
            "step_s": statistics.median(row[2] for row in rows),
            "total_s": totals[name],
            "spread_s": max(seconds) - min(seconds),
            "samples_per_s": student.batch_size / totals[name],
            "against": against,
            "of_it": totals[name] / totals[against],
            "of_plain": totals[name] / totals["plain contrastive"],
            "caption_tokens": statistics.mean(write.lengths) if write else None,
        }
        found.append(row)
    return found


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


def against_open_clip(
    data: Path, student: recipes.Train, steps: int, precision: str, clock: Callable[[], float], part: str = "open_clip"
) -> dict:
    """The same weights and batches through both loops, a step of each in turn."""
    from open_clip_train.train import train_one_epoch

    logging.disable(logging.INFO)
    # a constant rate (the whole of training is warm-up's first step) keeps both optimisers at the same point
    student = dataclasses.replace(student, distill=0.0, views="weak", precision=precision, warmup=0.0)
    run = Run(dataclasses.replace(student, samples=10**6 * student.batch_size), data, Path("unused"), 0, Processes())
    theirs, loaded = create_model(student.model).model, run.stepper.loaded  # in the layout that it was made in
    theirs.load_state_dict(run.stepper.model.state_dict())
    theirs.train()
    theirs.output_dict = True
    optimizer, criterion = open_clip_optimizer(theirs, student), recorded_loss()
    arguments = open_clip_arguments({"bf16": "amp_bf16", "fp32": "fp32"}[precision])
    seconds, losses, apart = [], [], {}
    stream, tokens = run.stream(), Tokens(loaded.tokenizer, run.stepper.cut)
    for step in range(steps + 1):
        batch = prepare(stream[step % len(stream)], tokens, CPU)
        pixels, whole = loaded.preprocess.normalize(batch.images).contiguous(), loaded.tokenizer(batch.groups[0].texts)
        facts = types.SimpleNamespace(num_batches=1, num_samples=len(whole))
        feed = {"train": types.SimpleNamespace(set_epoch=lambda epoch: None, dataloader=_One(facts, (pixels, whole)))}
        exact = exact_gradients(theirs, pixels, whole) if step == 0 else {}
        watch = Stopwatch(clock)
        ours, _ = run.stepper(step, [batch])
        own = watch.restart()
        train_one_epoch(theirs, feed, criterion, 0, optimizer, None, None, None, arguments)
        other = watch.seconds
        losses.append((float(ours["loss"]), criterion.found))
        if step:
            seconds.append((own, other))
        else:
            apart = gradients_apart(run.stepper.model, theirs, exact)
    return {
        "part": part,
        "name": f"{student.model} {precision}",
        "ours_samples_per_s": student.batch_size / statistics.median(mine for mine, _ in seconds),
        "open_clip_samples_per_s": student.batch_size / statistics.median(other for _, other in seconds),
        "ratio": statistics.median(other / mine for mine, other in seconds),
        "ratio_low": min(other / mine for mine, other in seconds),
        "first_loss_difference": abs(losses[0][0] - losses[0][1]),
        "last_loss_difference": abs(losses[-1][0] - losses[-1][1]),
        **apart,
    }


def recorded_loss() -> torch.nn.Module:
    """open_clip's loss, which keeps its last value in `found`."""
    from open_clip import ClipLoss

    class Recorded(ClipLoss):
        def forward(self, *arguments, **keywords):
            result = super().forward(*arguments, **keywords)
            self.found = float(result["contrastive_loss"].detach())
            return result

    return Recorded()


def exact_gradients(model: torch.nn.Module, pixels: torch.Tensor, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    """The clipped gradients of open_clip's model and loss in fp64, by parameter; the model stays as it is."""
    from open_clip import ClipLoss

    model = copy.deepcopy(model).double()
    ClipLoss()(**model(pixels.double(), tokens)).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    return gradients(model)


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Gradients by parameter."""
    return {name: p.grad.detach().clone() for name, p in model.named_parameters() if p.grad is not None}


def gradients_apart(ours: torch.nn.Module, theirs: torch.nn.Module, exact: dict) -> dict[str, float]:
    """Norms of differences of all gradients, as shares of the norm: between the two, and of each from fp64's."""
    mine, others = gradients(ours), gradients(theirs)
    if not mine.keys() == others.keys() == exact.keys():
        raise ValueError(f"other parameters have gradients: {sorted(mine.keys() ^ others.keys())}")

    def share(one: dict, reference: dict) -> float:
        pairs = [(one[name].double(), reference[name].double()) for name in reference]
        off, size = sum(float((a - b).square().sum()) for a, b in pairs), sum(float(b.square().sum()) for _, b in pairs)
        return (off / size) ** 0.5

    return {
        "gradient_difference": share(mine, others),
        "ours_from_fp64": share(mine, exact),
        "open_clip_from_fp64": share(others, exact),
    }


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
        harness.show(chosen, [key for key in chosen[0] if key not in ("part", "repeats", "against")])
        print()


def main() -> None:
    """Measure and print."""
    parser = harness.parser(__doc__, "training")
    parser.add_argument("--model", default="lite-mci-s", help="of the parts prices and open_clip")
    parser.add_argument("--batch-size", type=int, default=256, help="of the parts prices and open_clip")
    parser.add_argument("--only", choices=("prices", "open_clip", "paper"))
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--threads", type=int, default=1, help="of the parts prices and open_clip")
    parser.add_argument(
        "--captioner", default="lite-coca", help="who writes live; new weights write as fast as trained"
    )
    parser.add_argument("--paper-model", default=PAPER)
    parser.add_argument("--paper-batch-size", type=int, default=8)
    parser.add_argument("--paper-threads", type=int, nargs="+", default=[1, 2])
    args = parser.parse_args()
    lite = (args.model, args.batch_size, args.threads)
    jobs = [("prices", *lite, None), *(("open_clip", *lite, precision) for precision in args.precision)]
    for threads in args.paper_threads:
        jobs += [("paper", args.paper_model, args.paper_batch_size, threads, one) for one in args.precision]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        data = write_folder(Path(folder), max(2 * args.batch_size, 64), recipes.World())
        for part, *job in jobs:
            if args.only in (None, part):
                found = measure(part, data, *job, steps=args.repeats, captioner=args.captioner)
                rows += found
                harness.keep(args.out, found, add=True)  # each when it is there: the paper's takes minutes
    show(rows)


def measure(
    part: str, data: Path, model: str, batch: int, threads: int, precision: str | None, steps: int, captioner: str
) -> list[dict]:
    """Rows of one part, with what they were measured on."""
    torch.set_num_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    student = recipes.Train(model=model, samples=10_000 * batch, batch_size=batch, workers=0)
    if precision is None:
        found = prices(data, student, steps, captioner, clock)
    else:
        found = [against_open_clip(data, student, steps, precision, clock, part)]
    facts = {"model": model, "batch_size": batch, "repeats": steps, "threads": threads}
    return [{**facts, **row} for row in found]


if __name__ == "__main__":
    main()
