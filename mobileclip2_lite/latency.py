"""What a tower costs: parameters, FLOPs, peak memory, and milliseconds by batch, picture size, threads and backend.

Paper: MobileCLIP2's tables give milliseconds on an iPhone 12 Pro Max (Core ML, batch 1). A CPU is not a phone, so
ratios between models differ, and the picture drawn here shows both. Latency needs no training: random weights do.
Towers are folded first, as they are deployed. Writes JSON lines and pictures where asked.
Taught by notebooks/50_architecture_and_latency.ipynb.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mobileclip2_lite.costs import count_flops, peak_memory
from mobileclip2_lite.models.family import FAMILY
from mobileclip2_lite.models.reparameterization import fold

BACKENDS = ("eager", "compiled", "onnx")


@dataclass(frozen=True)
class Row:
    """One tower, measured once."""

    model: str
    """Name of the model."""
    tower: str
    """`image` or `text`."""
    backend: str
    """`eager`, `compiled` (torch.compile) or `onnx` (ONNX Runtime)."""
    folded: bool
    """Whether branches were folded before."""
    batch_size: int
    """Pictures or texts a pass."""
    size: int
    """Side of the picture in pixels, or tokens of the text."""
    threads: int
    """Threads of one operation."""
    parameters: int
    """Of the tower as measured."""
    flops: int
    """Of one pass: a multiplication and an addition are two."""
    peak_bytes: int
    """Most bytes of activations alive at once, without the weights (eager; 0 if not measured)."""
    milliseconds: float
    """One pass, median."""
    low: float
    """One pass, first quartile."""
    high: float
    """One pass, third quartile."""
    passes: int
    """Timed passes."""
    device: str
    """Machine and library."""


def measure(
    tower: nn.Module,
    inputs: torch.Tensor,
    *,
    model: str = "",
    kind: str = "image",
    backend: str = "eager",
    threads: int = 1,
    warmup: int = 2,
    seconds: float = 2.0,
    passes: tuple[int, int] = (5, 50),
    memory: bool = True,
) -> Row:
    """Measure a tower on one batch.

    Args:
        tower: any module of one input; it is folded and put in eval mode as a copy.
        inputs: the batch, pixels (N, 3, S, S) or tokens (N, L); its device is where everything runs.
        model, kind: names for the row.
        backend: one of `BACKENDS`; `compiled` and `onnx` run on what they need themselves.
        threads: threads of one operation, set for the time of the measurement.
        warmup: passes before the clock starts.
        seconds: time for the timed passes, if their number lets it.
        passes: fewest and most timed passes.
        memory: whether to count the peak of activations (one more pass).

    Raises:
        ValueError: an unknown backend.
        ModuleNotFoundError: the backend's package is missing.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend {backend!r} is not one of {', '.join(BACKENDS)}")
    folded = fold(tower).to(inputs.device)
    with _threads(threads), torch.no_grad():
        flops, peak = count_flops(folded, inputs), (peak_memory(folded, inputs) if memory else 0)
        run = _backend(folded, inputs, backend, threads)
        times = list(_time(run, warmup, seconds, passes, inputs.device.type == "cuda"))
    quartiles = statistics.quantiles(times, n=4) if len(times) > 1 else [times[0]] * 3
    return Row(
        model=model,
        tower=kind,
        backend=backend,
        folded=any(".reparam_conv." in key for key in folded.state_dict()),
        batch_size=len(inputs),
        size=inputs.shape[-1],
        threads=threads,
        parameters=sum(parameter.numel() for parameter in folded.parameters()),
        flops=flops,
        peak_bytes=peak,
        milliseconds=statistics.median(times),
        low=quartiles[0],
        high=quartiles[2],
        passes=len(times),
        device=device_name(inputs.device),
    )


def measure_model(
    name: str,
    *,
    towers: Sequence[str] = ("image", "text"),
    image_sizes: Sequence[int | None] = (None,),
    batch_sizes: Sequence[int] = (1,),
    threads: Sequence[int] = (1,),
    backends: Sequence[str] = ("eager",),
    **settings: Any,
) -> Iterator[Row]:
    """Rows of a model by name (random weights), over all combinations; `settings` go to `measure`.

    Picture sizes other than the model's own are only for towers that take any size (MCi, ResNet).
    """
    from mobileclip2_lite.models.zoo import create_model

    loaded = create_model(name)
    for kind in towers:
        tower = loaded.model.visual if kind == "image" else TextTower(loaded.model)
        sizes = [size or loaded.preprocess.image_size for size in image_sizes] if kind == "image" else [0]
        for size in sizes:
            for batch in batch_sizes:
                inputs = torch.rand(batch, 3, size, size) if size else loaded.tokenizer(["a photo of a dog"] * batch)
                for count in threads:
                    for backend in backends:
                        yield measure(tower, inputs, model=name, kind=kind, backend=backend, threads=count, **settings)


def count_parameters(name: str) -> tuple[int, int]:
    """Parameters of a named model's image and text tower after folding, without making its weights."""
    import timm

    from mobileclip2_lite.models.sources import resolve
    from mobileclip2_lite.models.zoo import build

    config = resolve(name).model_cfg
    trunk = config["vision_cfg"].get("timm_model_name", "")
    with torch.device("meta"):
        model = build(config)
        image: nn.Module = model.visual
        if trunk.startswith(("fastvit", "lite_mci")):
            image = timm.create_model(trunk, num_classes=config["embed_dim"], inference_mode=True)
        text = TextTower(model)
    scales = ("model.logit_scale", "model.logit_bias")
    return (
        sum(parameter.numel() for parameter in image.parameters()),
        sum(parameter.numel() for key, parameter in text.named_parameters() if key not in scales),
    )


class TextTower(nn.Module):
    """A model's `encode_text` as a module of its own parameters; tokens (N, L) to features (N, D)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = copy.copy(model)
        self.model._modules = {key: part for key, part in model._modules.items() if key != "visual"}

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.model.encode_text(tokens)


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _backend(tower: nn.Module, inputs: torch.Tensor, backend: str, threads: int) -> Callable[[], Any]:
    """The pass to be timed."""
    if backend == "eager":
        return lambda: tower(inputs)
    if backend == "compiled":
        compiled = torch.compile(tower)
        return lambda: compiled(inputs)
    from mobileclip2_lite.export import write_onnx
    from mobileclip2_lite.exported import require, runner, session

    require("onnx", "onnxscript", "onnxruntime")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tower.onnx"
        write_onnx(tower, inputs, path, "inputs", {})
        run = runner(session(path, threads))
    batch = inputs.numpy()
    return lambda: run(batch)


def _time(run: Callable[[], Any], warmup: int, seconds: float, passes: tuple[int, int], cuda: bool) -> Iterator[float]:
    """Milliseconds of each timed pass."""
    wait = torch.cuda.synchronize if cuda else lambda: None
    for _ in range(warmup):
        run()
    wait()
    end, count = time.perf_counter() + seconds, 0
    while count < passes[0] or (count < passes[1] and time.perf_counter() < end):
        start = time.perf_counter()
        run()
        wait()
        yield 1e3 * (time.perf_counter() - start)
        count += 1


def device_name(device: torch.device) -> str:
    """The processor and the library, e.g. `AMD EPYC (avx512), torch 2.14.0`."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = platform.processor() or platform.machine()
        with contextlib.suppress(OSError):
            lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
            name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
        name += f" ({torch.backends.cpu.get_cpu_capability().lower()})"
    return f"{name}, torch {torch.__version__.split('+')[0]}"


def write_jsonl(rows: Iterable[Row], path: str | os.PathLike) -> Path:
    """Append rows as JSON lines."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(dataclasses.asdict(row)) + "\n")
    return path


def read_jsonl(path: str | os.PathLike) -> list[Row]:
    """Rows that `write_jsonl` wrote; lines of another kind (ratios) are left out."""
    with open(path, encoding="utf-8") as file:
        found = [json.loads(line) for line in file if line.strip()]
    return [Row(**line) for line in found if "milliseconds" in line]


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| model | tower | backend | batch | size | threads | parameters, M | GFLOPs | peak MB | ms (quartiles) |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row.model} | {row.tower} | {row.backend} | {row.batch_size} | {row.size} | {row.threads} | "
        f"{row.parameters / 1e6:.2f} | {row.flops / 1e9:.2f} | {row.peak_bytes / 1e6:.1f} | "
        f"{row.milliseconds:.1f} ({row.low:.1f}-{row.high:.1f}) |"
        for row in rows
    ]
    return "\n".join(lines)


def picture(rows: Sequence[Row], path: str | os.PathLike | None = None) -> Any:
    """Published ImageNet accuracy against milliseconds: the paper's phone on the left, this machine on the right.

    Args:
        rows: image towers of the family; of several rows of one model the first counts.
        path: where to save the picture; None only draws.

    Returns:
        The matplotlib figure.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    here = {}
    for row in rows:
        if row.tower == "image" and row.model in FAMILY:
            here.setdefault(row.model, row)
    figure = Figure(figsize=(10, 4), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for axis, milliseconds in (
        (left, {name: member.latency[0] for name, member in FAMILY.items()}),
        (right, {name: row.milliseconds for name, row in here.items()}),
    ):
        for generation, marker in (("MobileCLIP2-", "o"), ("MobileCLIP-", "^")):
            names = sorted((name for name in milliseconds if name.startswith(generation)), key=milliseconds.get)
            if names:
                x, y = [milliseconds[name] for name in names], [FAMILY[name].imagenet for name in names]
                axis.plot(x, y, marker=marker, linestyle=":", label=generation.rstrip("-"))
            for name in names:
                label = name.removeprefix(generation)
                axis.annotate(label, (milliseconds[name], FAMILY[name].imagenet), (4, -11), textcoords="offset points")
        axis.set(xscale="log", xlabel="milliseconds of the image tower, batch 1")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_locator(NullLocator())
        axis.grid(alpha=0.3)
    left.set(ylabel="ImageNet zero-shot, % (paper)", title="iPhone 12 Pro Max (paper)")
    left.legend()
    some = next(iter(here.values()), None)
    threads = "" if some is None else f", {some.threads} thread{'s' if some.threads > 1 else ''}"
    right.set_title("here: nothing measured" if some is None else f"here: {some.device}{threads}")
    if path is not None:
        figure.savefig(path)
    return figure
