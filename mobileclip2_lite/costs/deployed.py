"""What deployed models cost and can do, side by side: megabytes, milliseconds, and accuracy of the exported files.

The paper's figure 1 sets accuracy against latency on a phone; here student, control and teacher stand beside each other
as the files that a program would ship, in each precision, measured through ONNX Runtime. The price of a precision is a
paired difference with its interval: two files answer the same questions. Reads models; writes their exports. Taught by
notebooks/60_deploy.ipynb.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from mobileclip2_lite import emoji_world
from mobileclip2_lite.deployment.export import ExportRow, export_onnx
from mobileclip2_lite.deployment.runtime import Exported, load_exported
from mobileclip2_lite.evaluation.suite import hits
from mobileclip2_lite.models.loaded import LoadedModel
from mobileclip2_lite.reports.numbers import LABELS
from mobileclip2_lite.work.place import made_here, place_of
from mobileclip2_lite.work.tables import markdown_table

if TYPE_CHECKING:
    from mobileclip2_lite.recipes import Evaluate, World

CALIBRATION = 48
"""Training images on which int8 measures the range of its activations."""


@dataclass(frozen=True)
class DeployedRow:
    """One model in one precision."""

    name: str
    """Which model."""
    precision: str
    """`fp32`, `fp16` or `int8`."""
    megabytes: float
    """Both towers' files, 10^6 bytes."""
    image_milliseconds: float
    """ONNX Runtime, one image, one thread, median."""
    text_milliseconds: float
    """The same for one text."""
    hits: Mapping[str, np.ndarray]
    """Measure -> a hit a query, 0 to 1, as `evaluation.suite.hits` gives them."""

    def share(self, measure: str) -> float:
        """Mean hit of one measure, 0 to 1."""
        return float(self.hits[measure].mean())

    def price(self, measure: str, other: DeployedRow) -> tuple[float, float]:
        """How much less than `other` this one hits, and half the width of the difference's 95 % interval (paired).

        Raises:
            ValueError: the two did not answer the same questions.
        """
        if len(self.hits[measure]) != len(other.hits[measure]):
            raise ValueError(f"{self.name} and {other.name} were not asked the same {measure} questions")
        loss = other.hits[measure] - self.hits[measure]
        return float(loss.mean()), float(1.96 * loss.std(ddof=1) / len(loss) ** 0.5)


class _Ran(nn.Module):
    """Exported towers where a model is asked for: the same measures then hold for the files."""

    def __init__(self, exported: Exported) -> None:
        super().__init__()
        self.exported = exported
        self.nothing = nn.Parameter(torch.zeros(()))  # by which others find the device

    def encode_image(self, pixels: torch.Tensor, normalize: bool = True) -> torch.Tensor:
        """Unit features; they cannot be had otherwise from an export."""
        return torch.from_numpy(self.exported.embed_pixels(pixels.contiguous().numpy()))

    def encode_text(self, tokens: torch.Tensor, normalize: bool = True) -> torch.Tensor:
        """Unit features of whole contexts."""
        return torch.from_numpy(self.exported.embed_tokens(tokens.numpy()))


def as_model(exported: Exported) -> LoadedModel:
    """Exported towers in the form of a loaded model, for everything that measures one."""
    return LoadedModel(_Ran(exported).eval(), exported.preprocess, exported.tokenizer)


def compare(
    models: Mapping[str, LoadedModel],
    folder: str | os.PathLike,
    world: World,
    settings: Evaluate,
    precisions: Sequence[str] = ("fp32",),
    only: Collection[str] = ("zero_shot", "retrieval"),
) -> list[DeployedRow]:
    """Export every model in every precision, and measure the files.

    Args:
        models: name -> model, e.g. of student, control and teacher.
        folder: `folder/NAME` holds a model's files afterwards; a store gets them when all are measured.
        world: names and sizes of the test sets.
        settings: how many questions there are.
        precisions: of `export.PRECISIONS`; `fp32` is always measured.
        only: parts of the suite.

    Raises:
        ModuleNotFoundError, ValueError: as `export_onnx` does.
    """
    from PIL import Image

    stream = emoji_world.training_stream(world, 0, CALIBRATION, 0.0)
    images = [Image.fromarray(pixels) for pixels, _ in stream] if "int8" in precisions else []
    rows = []
    with made_here(place_of(folder)) as made:
        for name, loaded in models.items():
            exports = export_onnx(loaded, made / name, precisions=precisions, images=images, name=name)
            for precision in dict.fromkeys(row.precision for row in exports):
                files = {row.tower: row for row in exports if row.precision == precision}
                found = hits(as_model(load_exported(made / name, precision, threads=1)), world, settings, only)
                rows.append(_row(name, precision, files, found))
    return rows


def _row(name: str, precision: str, files: Mapping[str, ExportRow], found: Mapping[str, Any]) -> DeployedRow:
    size = sum(row.megabytes for row in files.values())
    times = files["image"].milliseconds, files["text"].milliseconds
    return DeployedRow(name, precision, round(size, 3), *times, found)


def table(rows: Sequence[DeployedRow], measures: Sequence[str] = ("zero_shot", "retrieval_i2t_r1")) -> str:
    """The rows as a Markdown table: shares in percent, and a precision's price beside the same model's fp32.

    In parentheses: points more than that, ± half the width of the paired difference's 95 % interval.
    """
    lines = []
    for row in rows:
        whole = next(other for other in rows if other.name == row.name and other.precision == "fp32")
        cells = [f"{100 * row.share(measure):.1f}" for measure in measures]
        if row is not whole:
            prices = [row.price(measure, whole) for measure in measures]
            lost = [f" ({-100 * loss:+.1f} ± {100 * half:.1f})" for loss, half in prices]
            cells = [cell + price for cell, price in zip(cells, lost, strict=True)]
        times = f"{row.image_milliseconds:.2f}", f"{row.text_milliseconds:.2f}"
        lines.append((row.name, row.precision, f"{row.megabytes:.1f}", *times, *cells))
    called = [f"{LABELS.get(measure, measure)} (%)" for measure in measures]
    return markdown_table(("model", "precision", "MB", "image, ms", "text, ms", *called), lines, text_columns=2)
