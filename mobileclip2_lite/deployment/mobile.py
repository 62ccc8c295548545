"""The towers for phones: Core ML for Apple's, LiteRT (TensorFlow Lite) for all others.

Paper: MobileCLIP2 is measured as re-parameterised Core ML models on a phone. Reads a model; writes one folder. LiteRT's
files are compared with PyTorch wherever they are made, Core ML's on macOS, which alone runs them. Both take one input
at a time: phones' accelerators want fixed shapes (coremltools' issue 2022: a flexible batch runs on the CPU alone, 20
times slower), and a flexible Core ML package is made only when it is asked for. Each is an extra of its own, because
their packages want older versions of others. Taught by notebooks/60_deploy.ipynb.
"""

from __future__ import annotations

import os
import statistics
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from mobileclip2_lite.deployment.export import TOLERANCE, ExportRow, prepare_tower, tower_metadata
from mobileclip2_lite.deployment.runtime import TOWERS, require
from mobileclip2_lite.work.files import pretty, write_atomic
from mobileclip2_lite.work.stopwatch import Stopwatch

if TYPE_CHECKING:
    from mobileclip2_lite.models.loaded import LoadedModel

MAX_BATCH = 64
"""Largest batch of a flexible Core ML package."""
ALIKE = 0.999
"""Least cosine of a Core ML tower, which computes in half precision, and PyTorch's."""


def export_coreml(loaded: LoadedModel, folder: str | os.PathLike, name: str = "", flexible: bool = False) -> list[Path]:
    """Write `image.mlpackage` and `text.mlpackage` (ML program, half precision, iOS 17), metadata as in ONNX.

    Works on Linux and macOS. Only macOS can run the result, so it is checked there alone: every tower against PyTorch.

    Args:
        flexible: also write `image.flexible.mlpackage` and `text.flexible.mlpackage`, which take 1 to `MAX_BATCH`
            inputs at a time.

    Raises:
        ModuleNotFoundError: coremltools is missing (it has no wheels for Windows).
        ValueError: on macOS, a tower's export differs from PyTorch; its file is not kept.
    """
    require("coremltools", extra="coreml")
    import coremltools

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for tower in TOWERS:
        module, inputs = prepare_tower(loaded, tower, (), ())
        for suffix in ("", ".flexible")[: 1 + flexible]:
            example = inputs[: 2 if suffix else 1]  # of 1 torch would make a constant
            example = example if tower == "image" else example.to(torch.int32)
            shapes = ({0: torch.export.Dim("batch", min=1, max=MAX_BATCH)},) if suffix else None
            program = torch.export.export(module, (example,), dynamic_shapes=shapes).run_decompositions({})
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # versions of torch that it was not tested with
                converted = coremltools.convert(
                    program,
                    outputs=[coremltools.TensorType(name="features")],
                    minimum_deployment_target=coremltools.target.iOS17,
                )
            if sys.platform == "darwin":
                check_coreml(converted, module, example, tower)
            for key, value in tower_metadata(loaded, tower, name).items():
                converted.user_defined_metadata[key] = value
            paths.append(folder / f"{tower}{suffix}.mlpackage")
            converted.save(str(paths[-1]))
    return paths


def check_coreml(converted: Any, module: nn.Module, inputs: torch.Tensor, tower: str) -> None:
    """Compare a converted tower with PyTorch's, one input at a time; runs on macOS.

    Args:
        converted: coremltools' model, with an input `pixels` or `tokens` and the output `features`.
        inputs: (N, 3, S, S) float32 pixels or (N, L) int32 tokens.

    Raises:
        ValueError: a cosine is below `ALIKE`.
    """
    (given,) = (one.name for one in converted.get_spec().description.input)
    with torch.no_grad():
        wanted = torch.cat([module(row[None]) for row in inputs])
    found = [torch.as_tensor(converted.predict({given: row[None].numpy()})["features"]) for row in inputs]
    cosine = torch.nn.functional.cosine_similarity(torch.cat(found).float(), wanted).min().item()
    if not cosine > ALIKE:
        raise ValueError(f"the {tower} tower's Core ML export differs from PyTorch: cosine {cosine:.5f}, not {ALIKE}")


def export_litert(loaded: LoadedModel, folder: str | os.PathLike, name: str = "") -> list[ExportRow]:
    """Write `image.tflite` and `text.tflite` (single precision), `litert.json` with their metadata, and compare them.

    Inputs are `pixels` float32 (1, 3, S, S) and `tokens` int32 (1, L); outputs are L2-normalised float32 (1, D).

    Returns:
        One row a file, as `export_onnx` gives them.

    Raises:
        ModuleNotFoundError: the extra is missing: `pip install mobileclip2_lite[litert]`.
        ValueError: a file differs from PyTorch by more than 1e-4 (it is removed).
    """
    require("litert_torch", extra="litert")
    import litert_torch

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rows, facts = [], {}
    for tower in TOWERS:
        module, inputs = prepare_tower(loaded, tower, (), ())
        lay_out(module)
        inputs = inputs if tower == "image" else inputs.to(torch.int32)
        path = folder / f"{tower}.tflite"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the converter's notes on its own passes
            litert_torch.convert(module, (inputs[:1],)).export(str(path))
        with torch.no_grad():
            wanted = torch.cat([module(row[None]) for row in inputs]).numpy()
        rows.append(_compare(path, tower, inputs.numpy(), wanted))
        facts[tower] = tower_metadata(loaded, tower, name)
    write_atomic(folder / "litert.json", pretty(facts))
    return rows


def lay_out(module: nn.Module) -> None:
    """Put all weights into the usual layout, in place: litert-torch 0.10 mistakes others for each other.

    It knows a constant again by the address of its contiguous copy. A weight in channels-last layout has that copy for
    a moment only, and the next one of its shape may be given the same address, and with it the values of the one
    before: of two convolutions of `lite-teacher-conv` the second became a copy of the first.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data = tensor.data.contiguous()


def _compare(path: Path, tower: str, inputs: np.ndarray, wanted: np.ndarray) -> ExportRow:
    """Run a LiteRT file on single inputs beside PyTorch's features."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    (given,), (out,) = interpreter.get_input_details(), interpreter.get_output_details()
    found, times = [], []
    for row in inputs:
        watch = Stopwatch()
        interpreter.set_tensor(given["index"], row[None])
        interpreter.invoke()
        found.append(interpreter.get_tensor(out["index"])[0])
        times.append(1e3 * watch.seconds)
    difference = float(np.abs(np.stack(found) - wanted).max())
    if not difference < TOLERANCE:
        path.unlink()
        raise ValueError(
            f"the {tower} tower's LiteRT file differs from PyTorch by {difference:.1e} and was removed: the converter "
            "made another model of it; take ONNX"
        )
    cosine = float((np.stack(found) * wanted).sum(1).min())
    size = round(path.stat().st_size / 1e6, 3)
    return ExportRow(tower, "litert", path.name, size, difference, cosine, statistics.median(times[1:]))
