"""Export the image and the text tower to ONNX, and check them against PyTorch.

Paper: MobileCLIP2 is measured as re-parameterised Core ML models on a phone; here ONNX is the main road, and `mobile`
has Core ML and LiteRT. Writes one folder: `image.onnx`, `text.onnx`,
variants such as `image.int8.onnx`, and `export.json` with sizes, differences and milliseconds. Every file carries the
model's preprocess or tokenizer in its metadata, so that it can be used without this package: inputs are `pixels`
float32 (N, 3, S, S), normalised as the metadata says, and `tokens` int64 (N, L); outputs are L2-normalised `features`
float32 (N, D).
Taught by notebooks/60_deploy.ipynb.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import statistics
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from mobileclip2_lite.deployment.runtime import TOWERS, require, runner, session
from mobileclip2_lite.models.loaded import LoadedModel
from mobileclip2_lite.models.reparameterization import fold
from mobileclip2_lite.models.sentence_encoder import TOKENIZER_FILE, WordPiece
from mobileclip2_lite.models.tokenizer import CLIP_VOCABULARY, tokenizer_settings
from mobileclip2_lite.work.files import pretty, write_atomic
from mobileclip2_lite.work.place import made_here, place_of
from mobileclip2_lite.work.stopwatch import call_seconds
from mobileclip2_lite.work.tables import markdown_table

PRECISIONS = ("fp32", "fp16", "int8")
TOLERANCE = 1e-4
"""Largest allowed difference of a unit feature's entries between PyTorch and the fp32 export."""
PROBES = ("a photo of a dog", "two red apples left of a green bicycle", "", "Ünïcode ☃ <b>and</b> markup", "word " * 99)


@dataclass(frozen=True)
class ExportRow:
    """One exported file and how it compares with PyTorch."""

    tower: str
    """`image` or `text`."""
    precision: str
    """`fp32`, `fp16` or `int8`."""
    file: str
    """Name within the folder."""
    megabytes: float
    """Size on disk, 10^6 bytes."""
    difference: float
    """Largest absolute difference of unit features on random and real inputs."""
    cosine: float
    """Smallest cosine between exported and PyTorch features."""
    milliseconds: float
    """ONNX Runtime, one input, one thread, median."""


class _ImageTower(nn.Module):
    """The image tower with its last step, the L2 norm; the argument's name becomes the file's input name."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.visual = model.visual

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return F.normalize(self.visual(pixels), dim=-1)


class _TextTower(nn.Module):
    """The text tower with its last step, the L2 norm."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return F.normalize(self.model.encode_text(tokens), dim=-1)


def export_onnx(
    loaded: LoadedModel,
    folder: str | os.PathLike,
    *,
    precisions: Sequence[str] = ("fp32",),
    images: Sequence[Any] = (),
    texts: Sequence[str] = PROBES,
    name: str = "",
) -> list[ExportRow]:
    """Fold the towers, write them as ONNX with a dynamic batch, and check every file.

    Args:
        loaded: the model; it is left as it is.
        folder: made if it does not exist; a store gets the files when all of them are checked.
        precisions: of `PRECISIONS`; `fp32` is always made. `fp16` halves the file, `int8` quarters it; the image
            tower's int8 needs `images` to measure the range of its activations.
        images: real PIL images for the check and for int8 (some dozens).
        texts: real texts for the check.
        name: what the files call the model.

    Returns:
        One row a file, also in `export.json`.

    Raises:
        ModuleNotFoundError: the extra is missing: `pip install mobileclip2_lite[export]`.
        ValueError: an unknown precision; int8 without images; or an fp32 export that differs from PyTorch by more than
            1e-4 (nothing of that file is kept).
    """
    require("onnx", "onnxscript", "onnxruntime")
    if unknown := sorted(set(precisions) - set(PRECISIONS)):
        raise ValueError(f"unknown precisions {unknown}; there are {', '.join(PRECISIONS)}")
    if "int8" in precisions and not images:
        raise ValueError("int8 needs images: some dozens of real ones, to measure the range of activations")
    with made_here(place_of(folder)) as made:
        return _export(loaded, made, precisions, images, texts, name)


def _export(
    loaded: LoadedModel, folder: Path, precisions: Sequence[str], images: Sequence[Any], texts: Sequence[str], name: str
) -> list[ExportRow]:
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for tower in TOWERS:
        module, inputs = prepare_tower(loaded, tower, images, texts)
        with torch.no_grad():
            wanted = torch.cat([module(inputs[row : row + 32]) for row in range(0, len(inputs), 32)]).numpy()
        metadata = tower_metadata(loaded, tower, name)
        whole = folder / f"{tower}.onnx"
        write_onnx(module, inputs[:2], whole, "pixels" if tower == "image" else "tokens", metadata)
        for precision in ("fp32", *(p for p in PRECISIONS[1:] if p in precisions)):
            path = whole if precision == "fp32" else folder / f"{tower}.{precision}.onnx"
            if precision == "fp16":
                _to_fp16(whole, path)
            elif precision == "int8":
                _to_int8(whole, path, tower, inputs.numpy()[-len(images) :] if tower == "image" else None)
            rows.append(_check(path, tower, precision, inputs.numpy(), wanted))
    if isinstance(loaded.tokenizer, WordPiece):  # too large for the metadata
        write_atomic(folder / TOKENIZER_FILE, loaded.tokenizer.data)
    write_atomic(folder / "export.json", pretty({"name": name, "files": [dataclasses.asdict(row) for row in rows]}))
    return rows


def prepare_tower(
    loaded: LoadedModel, tower: str, images: Sequence[Any], texts: Sequence[str]
) -> tuple[nn.Module, torch.Tensor]:
    """The tower in eval mode with its norm, and inputs for the check: random ones first, then real ones."""
    model = fold(loaded.model).cpu().float()
    if tower == "text":
        return _TextTower(model).eval(), loaded.tokenizer([*PROBES, *texts])
    size = loaded.preprocess.image_size
    noise = torch.randint(0, 256, (4, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels = [loaded.preprocess.normalize(noise), *(loaded.preprocess(image)[None] for image in images)]
    return _ImageTower(model).eval(), torch.cat(pixels).contiguous()


def tower_metadata(loaded: LoadedModel, tower: str, name: str) -> dict[str, str]:
    text = loaded.model.model_cfg["text_cfg"]
    facts: dict[str, Any] = {
        "model": name or getattr(loaded.model, "architecture", ""),
        "tower": tower,
        "logit_scale": float(loaded.model.logit_scale.detach().exp().max()),
        "embed_dim": loaded.model.model_cfg["embed_dim"],
    }
    if getattr(loaded.model, "logit_bias", None) is not None:
        facts["logit_bias"] = float(loaded.model.logit_bias.detach().max())
    if tower == "image":
        facts["preprocess"] = loaded.preprocess.to_config()
    else:
        facts["tokenizer"] = {"vocab_size": CLIP_VOCABULARY, "context_length": 77} | tokenizer_settings(text)
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}


def write_onnx(module: nn.Module, example: torch.Tensor, path: Path, name: str, metadata: dict[str, str]) -> None:
    """Export a module of one input with torch's own exporter: dynamic batch, weights inside, with metadata."""
    import onnx

    example = torch.cat([example, example]) if len(example) == 1 else example  # of 1 torch would make a constant
    beside = path.with_name(f".{path.name}.partial")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's notes on its own opset conversions
        torch.onnx.export(
            module,
            (example,),
            str(beside),
            input_names=[name],
            output_names=["features"],
            dynamo=True,
            external_data=False,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=4096)},),
            verbose=False,
        )
    model = onnx.load(str(beside))
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, str(beside))
    os.replace(beside, path)


def _to_fp16(source: Path, path: Path) -> None:
    """Weights and arithmetic in half precision, inputs and outputs as before.

    Layer norms stay in single precision: they are nothing in size, and ONNX Runtime 1.32 crashes (not: fails) when it
    optimises half-precision ones together with GELU on a CPU.
    """
    import onnx
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it names every weight below the smallest half float
        model = convert_float_to_float16(
            onnx.load(str(source)), keep_io_types=True, op_block_list=[*DEFAULT_OP_BLOCK_LIST, "LayerNormalization"]
        )
    onnx.save(model, str(path))


def _to_int8(source: Path, path: Path, tower: str, pixels: np.ndarray | None) -> None:
    """Text: int8 weights, activations quantised as they come. Image: int8 both, ranges measured on real images.

    Weights take 7 bits (`reduce_range`): x86 processors without VNNI add two products in 16 bits, which overflow
    silently with 8, and a file must answer the same on every processor (ONNX Runtime, "Quantize ONNX models").
    """
    import logging

    import onnx
    from onnxruntime import quantization

    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)  # it recommends a preprocessing step at every call
    try:
        if tower == "text":
            quantization.quantize_dynamic(
                str(source), str(path), per_channel=True, reduce_range=True, weight_type=quantization.QuantType.QInt8
            )
        else:
            quantization.quantize_static(
                str(source),
                str(path),
                _Feed(pixels),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                reduce_range=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
            )
    finally:
        logging.getLogger().setLevel(level)
    model = onnx.load(str(path))
    if not model.metadata_props:
        onnx.helper.set_model_props(model, {prop.key: prop.value for prop in onnx.load(str(source)).metadata_props})
        onnx.save(model, str(path))


class _Feed:
    """Calibration inputs in the form that ONNX Runtime asks for."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.rest = iter([pixels[row : row + 1] for row in range(len(pixels))])

    def get_next(self) -> dict[str, np.ndarray] | None:
        row = next(self.rest, None)
        return None if row is None else {"pixels": row}


def _check(path: Path, tower: str, precision: str, inputs: np.ndarray, wanted: np.ndarray) -> ExportRow:
    """Compare a file with PyTorch, in batches of several sizes, and time it."""
    run = runner(session(path, threads=1))
    cuts = (0, 1, min(4, len(inputs)), len(inputs))
    found = np.concatenate([run(inputs[a:b]) for a, b in itertools.pairwise(cuts) if b > a])
    difference = float(np.abs(found - wanted).max())
    if precision == "fp32" and not difference < TOLERANCE:
        path.unlink()
        raise ValueError(
            f"the {tower} tower's export differs from PyTorch by {difference:.1e}, allowed {TOLERANCE:.0e}"
        )
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
    cosine = float(((found * wanted).sum(1) / np.maximum(norms, 1e-12)).min())
    one = statistics.median(call_seconds(lambda: run(inputs[:1]), (6, 6), warmup=2))
    size = path.stat().st_size / 1e6
    return ExportRow(tower, precision, path.name, round(size, 3), difference, cosine, 1e3 * one)


def table(rows: Sequence[ExportRow]) -> str:
    """The rows as a Markdown table."""
    header = ("tower", "precision", "MB", "largest difference", "smallest cosine", "ms, one input, one thread")
    cells = []
    for row in rows:
        numbers = f"{row.megabytes:.1f}", f"{row.difference:.1e}", f"{row.cosine:.5f}", f"{row.milliseconds:.2f}"
        cells.append((row.tower, row.precision, *numbers))
    return markdown_table(header, cells, text_columns=2)
