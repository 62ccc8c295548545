"""Rows of latency measurements: as JSON lines, as a table, and as the picture of accuracy against milliseconds.

The picture's accuracies are the paper's (MobileCLIP2, table of models), its milliseconds those of the paper's phone
beside this machine's. Reads and writes the files it is given. Taught by notebooks/50_architecture_and_latency.ipynb.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobileclip2_lite.models.family import FAMILY
from mobileclip2_lite.work.json_lines import append_lines, read_lines
from mobileclip2_lite.work.tables import markdown_table


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


def write_jsonl(rows: Iterable[Row], path: str | os.PathLike) -> Path:
    """Append rows as JSON lines."""
    return append_lines(path, map(dataclasses.asdict, rows))


def read_jsonl(path: str | os.PathLike) -> list[Row]:
    """Rows that `write_jsonl` wrote; lines of another kind (ratios) are left out."""
    names = [field.name for field in dataclasses.fields(Row)]
    return [Row(**{name: line[name] for name in names}) for line in read_lines(path) if "milliseconds" in line]


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    columns = {
        "model": lambda row: row.model,
        "tower": lambda row: row.tower,
        "backend": lambda row: row.backend,
        "batch": lambda row: row.batch_size,
        "size": lambda row: row.size,
        "threads": lambda row: row.threads,
        "parameters, M": lambda row: f"{row.parameters / 1e6:.2f}",
        "GFLOPs": lambda row: f"{row.flops / 1e9:.2f}",
        "peak MB": lambda row: f"{row.peak_bytes / 1e6:.1f}",
        "ms (quartiles)": lambda row: f"{row.milliseconds:.1f} ({row.low:.1f}-{row.high:.1f})",
    }
    return markdown_table(list(columns), ([cell(row) for cell in columns.values()] for row in rows), text_columns=3)


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
        axis.margins(0.1)  # room for the names below the points
        axis.grid(alpha=0.3)
    left.set(ylabel="ImageNet zero-shot, % (paper)", title="iPhone 12 Pro Max (paper)")
    left.legend()
    some = next(iter(here.values()), None)
    threads = "" if some is None else f", {some.threads} thread{'s' if some.threads > 1 else ''}"
    right.set_title("here: nothing measured" if some is None else f"here: {some.device}{threads}")
    if path is not None:
        figure.savefig(path)
    return figure
