"""One GPU at the paper's shapes: reinforcement, captioning and training, the loader beside them, and the CPU's word.

    python benchmarks/gpu.py                  # at most eight minutes; writes results/gpu.jsonl with the chip's name
    python benchmarks/gpu.py --device cpu --students lite-mci-s --teachers lite-teacher-se --captioner lite-coca \
        --batch-size 4 --seconds 0.1         # any device, any shapes

Weights are random: rates do not depend on them. `reinforce` is one teacher's image tower in bf16, as written, compiled,
and compiled with CUDA graphs, and its text tower; `caption` five captions an image; `train` whole steps with
stored embeddings of two teachers and synthetic captions; `loader` what one CPU core replays and loads, and how many
cores keep the fastest of the others fed; `agreement` the lowest cosine between what the device and the CPU in fp32 make
of the same images and texts. `of_peak` is the share of the chip's dense bf16 peak that its makers give, by FLOPs of
matrix products and convolutions. A part for which no time is left says so, and one that the deadline ends. Without a
GPU nothing is measured, nor written.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import harness
import torch
import torch.nn.functional as F

from mobileclip2_lite import recipes
from mobileclip2_lite.costs import rates
from mobileclip2_lite.costs.gpus import flops, peak_of
from mobileclip2_lite.costs.latency import device_name
from mobileclip2_lite.models.loaded import LoadedModel, autocast, usable_precision
from mobileclip2_lite.models.zoo import create_model
from mobileclip2_lite.work.stopwatch import Stopwatch

PRECISION = "bf16"


def main() -> None:
    """Measure, print and write."""
    arguments = parsed()
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("no GPU here: not run")
        return
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device_name(device)
    peak = arguments.peak or peak_of(name)
    facts = {"device": name, "peak_tflops": peak or None, "precision": usable_precision(PRECISION, device)}
    facts |= {"batch_size": arguments.batch_size, "torch": torch.__version__, "date": time.strftime("%Y-%m-%d")}
    fastest = {"views": 0.0, "samples": 0.0}
    with contextlib.suppress(OutOfTime):  # between two parts
        for row in measured(arguments, device, peak * 1e12, fastest):
            print(
                *(f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in row.items())
            )
            harness.keep(arguments.out, [{**facts, **row}], add=True)  # each when it is there


def parsed() -> argparse.Namespace:
    """What was asked for."""
    parser = harness.parser(__doc__, "gpu", rounds=0)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--teachers", nargs="+", default=["ViT-L-14"], help="architectures")
    parser.add_argument("--captioner", default="coca_ViT-L-14")
    parser.add_argument("--students", nargs="+", default=["MobileCLIP2-S0", "MobileCLIP2-B", "MobileCLIP2-S4"])
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=5.0, help="at least so long for each number")
    parser.add_argument("--limit", type=float, default=460.0, help="seconds after which no part is begun")
    parser.add_argument("--deadline", type=float, default=465.0, help="seconds after which the part under way is ended")
    parser.add_argument("--peak", type=float, default=0.0, help="TFLOP/s of the chip, if it is not known here")
    return parser.parse_args()


def measured(arguments: argparse.Namespace, device: torch.device, peak: float, fastest: dict) -> Iterator[dict]:
    """The rows of all parts, as they are measured; `fastest` takes the best rates for the loader's part."""
    began = Stopwatch()
    parts: list[tuple[str, str, Callable[[], Iterator[dict]]]] = []
    for name in arguments.teachers:
        parts.append(("agreement", name, lambda name=name: agreement(name, device)))
        parts.append(("reinforce", name, lambda name=name: reinforcing(name, arguments, device, peak)))
    for name in arguments.students:
        parts.append(("train", name, lambda name=name: training(name, arguments, device, peak)))
    parts.append(("caption", arguments.captioner, lambda: captioning(arguments, device)))
    parts.append(("loader", "one core", lambda: loading(arguments, fastest)))
    with deadline(arguments.deadline):
        for part, name, run in parts:
            if began.seconds > min(arguments.limit, arguments.deadline):
                yield {"part": part, "name": name, "left_out": "no time was left"}
                continue
            try:
                for row in run():
                    kind = {"reinforce": "views", "train": "samples"}.get(part)
                    if kind and row.get("what") == kind:
                        fastest[kind] = max(fastest[kind], row["a_second"])
                    yield {"part": part, "name": name, **row}
            except OutOfTime:
                yield {"part": part, "name": name, "left_out": "it was ended when the time was up"}


class OutOfTime(Exception):
    """The deadline has come in the middle of a part."""


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise `OutOfTime` in the block after so many seconds, where the system has such an alarm (not on Windows)."""

    def end(*_: object) -> None:
        raise OutOfTime

    if not hasattr(signal, "setitimer"):
        yield
        return
    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def rate(what: str, made: tuple[int, Callable], seconds: float, device: torch.device, peak: float, each: int) -> dict:
    """A row: how many a second, and the share of the chip's peak."""
    count, run = made
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    found = count / rates.median_seconds(run, seconds, device)
    row: dict[str, Any] = {"what": what, "a_second": found, "tflops": found * each / 1e12}
    if peak:
        row["of_peak"] = found * each / peak
    if device.type == "cuda":
        row["memory_gb"] = torch.cuda.max_memory_allocated() / 1e9
    return row


def reinforcing(name: str, arguments: argparse.Namespace, device: torch.device, peak: float) -> Iterator[dict]:
    """Views a second of a teacher in each way to run it, and texts."""
    loaded, (image, text) = on_device(name, device), flops(name)
    ways: dict[str, dict | None] = {"as written": None}
    if device.type == "cuda":
        ways |= {"compiled": {}, "compiled, CUDA graphs": {"mode": "reduce-overhead"}}
    for way, options in ways.items():
        model = copy.copy(loaded.model)
        model._modules = dict(model._modules)  # the copy's own: the next way begins from the model as it was
        if options is not None:
            model.visual = torch.compile(loaded.model.visual, **options)
        made = rates.views(loaded._replace(model=model), device, arguments.batch_size, PRECISION)
        yield {"way": way, **rate("views", made, arguments.seconds, device, peak, image)}
    made = rates.texts(loaded, device, arguments.batch_size, PRECISION)
    yield rate("texts", made, arguments.seconds, device, 0, text)  # trimmed: fewer FLOPs than counted


def captioning(arguments: argparse.Namespace, device: torch.device) -> Iterator[dict]:
    """Captions a second: five an image, 15 tokens each."""
    loaded = on_device(arguments.captioner, device)
    made = rates.captions(loaded, device, arguments.batch_size, PRECISION)
    row = rate("captions", made, arguments.seconds, device, 0, 0)
    yield {key: value for key, value in row.items() if key != "tflops"}


def training(name: str, arguments: argparse.Namespace, device: torch.device, peak: float) -> Iterator[dict]:
    """Samples a second of whole steps, plain and compiled; a backward pass is twice its forward pass."""
    image, text = flops(name)
    for compiled in (False, True) if device.type == "cuda" else (False,):
        base = recipes.paper_12m()
        student = dataclasses.replace(
            base.student, model=name, captioners=("c",), precision=PRECISION, compile=compiled
        )
        recipe = dataclasses.replace(base, student=student)
        made = rates.training(recipe, device, arguments.batch_size)
        found = rate("samples", made, arguments.seconds, device, peak, 3 * (image + 2 * text))
        yield {"way": "compiled" if compiled else "as written", **found}


def loading(arguments: argparse.Namespace, fastest: dict) -> Iterator[dict]:
    """What one core does beside the device, and how many keep it fed."""
    base = recipes.paper_12m()
    recipe = dataclasses.replace(
        base,
        reinforce=dataclasses.replace(base.reinforce, teachers=tuple(arguments.teachers), views=2),
        student=dataclasses.replace(base.student, model=arguments.students[0]),
    )
    found = rates.cpu_rates(recipe, min(arguments.seconds, 2.0))
    for what, kind in (("views replayed", "views"), ("samples loaded", "samples")):
        yield {"what": what, "a_second": found[what], "cores_for_the_device": fastest[kind] / found[what]}


@torch.inference_mode()
def agreement(name: str, device: torch.device, count: int = 8) -> Iterator[dict]:
    """The lowest cosine between the device's features and the CPU's in fp32, of the same weights and inputs."""
    loaded = on_device(name, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    side = loaded.preprocess.image_size
    coarse = torch.rand(count, 3, 8, 8, generator=generator) * 255
    pixels = F.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 255).to(torch.uint8)
    tokens = loaded.tokenizer([f"{rates.CAPTION} number {number}" for number in range(count)])
    there = copy.deepcopy(loaded.model).to(device)
    precision = usable_precision(PRECISION, device)
    for what, inputs in (("image", loaded.preprocess.normalize(pixels)), ("text", tokens)):
        exact = getattr(loaded.model, f"encode_{what}")(inputs)
        with autocast(precision, device):
            found = getattr(there, f"encode_{what}")(inputs.to(device))
        cosine = F.cosine_similarity(exact.float(), found.float().cpu(), dim=1)
        yield {"what": what, "lowest_cosine": float(cosine.min())}


def on_device(name: str, device: torch.device) -> LoadedModel:
    """A model of that architecture with random weights, the same each time."""
    torch.manual_seed(0)
    loaded = create_model(name)
    return loaded._replace(model=loaded.model.to(device))


if __name__ == "__main__":
    main()
