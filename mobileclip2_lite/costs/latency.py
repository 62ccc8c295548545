"""What a tower costs: parameters, FLOPs, peak memory, and milliseconds by batch, picture size, threads and backend.

Paper: MobileCLIP2's tables give milliseconds on an iPhone 12 Pro Max (Core ML, batch 1). A CPU is not a phone, so
ratios between models differ, and the picture drawn here shows both. Latency needs no training: random weights do.
Towers are folded first, as they are deployed. Writes JSON lines and pictures where asked.
Taught by notebooks/50_architecture_and_latency.ipynb.
"""

from __future__ import annotations

import copy
import functools
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mobileclip2_lite.costs.flops import count_flops, peak_memory
from mobileclip2_lite.costs.latency_rows import Row, picture, read_jsonl, table, write_jsonl
from mobileclip2_lite.models.family import FAMILY
from mobileclip2_lite.models.loaded import parameter_count
from mobileclip2_lite.models.reparameterization import fold
from mobileclip2_lite.work.json_lines import NEEDS_DISK
from mobileclip2_lite.work.place import on_disk
from mobileclip2_lite.work.stopwatch import call_seconds
from mobileclip2_lite.work.threads import processor_name, torch_threads

__all__ = [
    "BACKENDS",
    "Row",
    "TextTower",
    "compare",
    "count_parameters",
    "device_name",
    "measure",
    "measure_model",
    "picture",
    "read_jsonl",
    "report",
    "table",
    "write_jsonl",
]

BACKENDS = ("eager", "compiled", "onnx")


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
    with torch_threads(threads), torch.no_grad():
        flops, peak = count_flops(folded, inputs), (peak_memory(folded, inputs) if memory else 0)
        run = _backend(folded, inputs, backend, threads)
        found = list(call_seconds(run, passes, seconds, warmup, waiting(inputs.device)))
    return _row(folded, inputs, found, model, kind, backend, threads, flops, peak)


@torch.no_grad()
def compare(
    entries: Sequence[tuple[str, str, Callable[[], tuple[nn.Module, torch.Tensor]]]],
    *,
    rounds: int = 5,
    threads: int = 1,
) -> list[Row]:
    """Measure several towers in turn, round by round: what else runs on the machine then disturbs all of them alike.

    Args:
        entries: (model, `image` or `text`, function that makes the tower and its batch); all are in memory together.
        rounds: timed passes of each.
        threads: threads of one operation.

    Returns:
        One eager row an entry, in their order; divide their milliseconds for a ratio.
    """
    ready = []
    for model, kind, make in entries:
        tower, inputs = make()
        ready.append((model, kind, fold(tower).to(inputs.device), inputs))
    times: list[list[float]] = [[] for _ in ready]
    with torch_threads(threads):
        costs = [(count_flops(tower, inputs), peak_memory(tower, inputs)) for _, _, tower, inputs in ready]
        for _ in range(rounds):
            for (_, _, tower, inputs), found in zip(ready, times, strict=True):
                run = functools.partial(tower, inputs)
                found += call_seconds(run, (1, 1), warmup=0, wait=waiting(inputs.device))
    return [
        _row(tower, inputs, found, model, kind, "eager", threads, flops, peak)
        for (model, kind, tower, inputs), found, (flops, peak) in zip(ready, times, costs, strict=True)
    ]


def _row(
    tower: nn.Module,
    inputs: torch.Tensor,
    seconds: Sequence[float],
    model: str,
    kind: str,
    backend: str,
    threads: int,
    flops: int,
    peak: int,
) -> Row:
    times = [1_000 * one for one in seconds]
    quartiles = statistics.quantiles(times, n=4) if len(times) > 1 else [times[0]] * 3
    return Row(
        model=model,
        tower=kind,
        backend=backend,
        folded=any("reparam_conv." in key for key in tower.state_dict()),
        batch_size=len(inputs),
        size=inputs.shape[-1],
        threads=threads,
        parameters=parameter_count(tower),
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


def report(
    models: Sequence[str],
    *,
    output: str | os.PathLike | None = None,
    progress: Callable[[str], None] = print,
    **settings: Any,
) -> list[Row]:
    """Measure several models by name, say each row as it comes, and keep them.

    Args:
        models: names for `create_model`.
        output: JSON lines to append to; a picture of the family goes beside it as `.png`.
        progress: called with each row of the table.
        settings: as `measure_model` and `measure` take them.
    """
    if output is not None:
        on_disk(output, NEEDS_DISK)
    rows: list[Row] = []
    for line in table([]).splitlines():
        progress(line)
    for name in models:
        for row in measure_model(name, **settings):
            rows.append(row)
            progress(table([row]).splitlines()[-1])
            if output is not None:
                write_jsonl([row], output)
    if output is not None and any(row.model in FAMILY for row in rows):
        picture(rows, Path(output).with_suffix(".png"))
    return rows


def count_parameters(name: str) -> tuple[int, int]:
    """Parameters of a named model's image and text tower after folding, without making its weights."""
    import timm

    from mobileclip2_lite.models.resolve import resolve
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
        parameter_count(image),
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


def _backend(tower: nn.Module, inputs: torch.Tensor, backend: str, threads: int) -> Callable[[], Any]:
    """The pass to be timed."""
    if backend == "eager":
        return lambda: tower(inputs)
    if backend == "compiled":
        compiled = torch.compile(tower)
        return lambda: compiled(inputs)
    from mobileclip2_lite.deployment.export import write_onnx
    from mobileclip2_lite.deployment.runtime import require, runner, session

    require("onnx", "onnxscript", "onnxruntime")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tower.onnx"
        write_onnx(tower, inputs, path, "inputs", {})
        run = runner(session(path, threads))
    batch = inputs.numpy()
    return lambda: run(batch)


def waiting(device: torch.device) -> Callable[[], None] | None:
    """What waits until a device has done all that it was asked for; None where nothing runs on after a call."""
    return {"cuda": torch.cuda.synchronize, "mps": torch.mps.synchronize}.get(device.type)


def device_name(device: torch.device) -> str:
    """The processor and the library, e.g. `AMD EPYC (avx512), torch 2.14.0`."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{processor_name()} ({torch.backends.cpu.get_cpu_capability().lower()})"
    return f"{name}, torch {torch.__version__.split('+')[0]}"
