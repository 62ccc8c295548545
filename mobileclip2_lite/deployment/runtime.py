"""Use exported towers: numpy in, numpy out, through ONNX Runtime, preprocess and tokenizer from their metadata.

Reads the ONNX files that export.py writes; writes nothing. No PyTorch model is built: this is what a program that ships
the towers does. Taught by notebooks/60_deploy.ipynb.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mobileclip2_lite.models.loaded import many
from mobileclip2_lite.models.preprocess import Preprocess
from mobileclip2_lite.models.stored import exported_here
from mobileclip2_lite.models.tokenizer import tokenizer_of
from mobileclip2_lite.work.files import sha256_file
from mobileclip2_lite.work.place import StorePath, place_of

if TYPE_CHECKING:
    import torch

TOWERS = ("image", "text")


@dataclass(frozen=True)
class Exported:
    """Exported towers, ready to use: numpy in, numpy out, no PyTorch model."""

    embed_pixels: Callable[[np.ndarray], np.ndarray]
    """float32 (N, 3, S, S), normalised, to unit features (N, D)."""
    embed_tokens: Callable[[np.ndarray], np.ndarray]
    """int64 (N, L) to unit features (N, D)."""
    preprocess: Preprocess
    """From the image file's metadata."""
    tokenizer: Callable[[list[str]], torch.LongTensor]
    """From the text file's metadata."""
    logit_scale: float
    """Of the model, as a factor."""
    key: str
    """SHA-256 of the image file: embeddings of another key are not comparable."""
    logit_bias: float | None = None
    """Of a model trained with the sigmoid loss: a pair's probability is sigmoid(logit_scale * cosine + logit_bias)."""

    def embed_images(self, images: Sequence[Any]) -> np.ndarray:
        """PIL images to unit features (N, D)."""
        return self.embed_pixels(np.stack([self.preprocess(image).numpy() for image in images]))

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Texts to unit features (N, D); one string in place of a list is a ValueError."""
        return self.embed_tokens(self.tokenizer(many(texts, "texts")).numpy())


def load_exported(folder: str | os.PathLike, precision: str = "fp32", threads: int | None = None) -> Exported:
    """Open the towers that `export_onnx` wrote.

    Raises:
        FileNotFoundError: the folder has no such files.
        ValueError: a file has no metadata of this package.
    """
    require("onnxruntime")
    folder = towers_here(folder, precision)
    paths = {tower: folder / name for tower, name in _files(precision).items()}
    for path in paths.values():
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} does not exist: export the model first (export_onnx, precisions={precision!r})"
            )
    sessions = {tower: session(path, threads) for tower, path in paths.items()}
    meta = {tower: session.get_modelmeta().custom_metadata_map for tower, session in sessions.items()}
    if "preprocess" not in meta["image"] or "tokenizer" not in meta["text"]:
        raise ValueError(f"{folder}: these ONNX files carry no preprocess and tokenizer; export them with export_onnx")
    return Exported(
        embed_pixels=runner(sessions["image"]),
        embed_tokens=runner(sessions["text"]),
        preprocess=Preprocess.from_config(json.loads(meta["image"]["preprocess"])),
        tokenizer=_tokenizer(json.loads(meta["text"]["tokenizer"]), folder),
        logit_scale=float(meta["image"]["logit_scale"]),
        key=sha256_file(paths["image"]),
        logit_bias=float(bias) if (bias := meta["image"].get("logit_bias")) is not None else None,
    )


def towers_here(folder: str | os.PathLike, precision: str = "fp32") -> Path:
    """The folder of exported towers, a copy on this disk of one in a store."""
    place = place_of(folder)
    return exported_here(place, _files(precision).values()) if isinstance(place, StorePath) else place


def _files(precision: str) -> dict[str, str]:
    suffix = "" if precision == "fp32" else f".{precision}"
    return {tower: f"{tower}{suffix}.onnx" for tower in TOWERS}


def _tokenizer(config: dict[str, Any], folder: Path) -> Callable[[list[str]], torch.LongTensor]:
    return tokenizer_of({"text_cfg": config}, config.get("hf_tokenizer_name") or "", folder)


def metadata(path: Path) -> dict[str, str]:
    """What an exported file says of itself."""
    return session(path, 1).get_modelmeta().custom_metadata_map


def session(path: Path, threads: int | None) -> Any:
    """An ONNX Runtime session on the CPU; None threads lets it choose."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def runner(session: Any) -> Callable[[np.ndarray], np.ndarray]:
    """The session as a function of its one input."""
    name = session.get_inputs()[0].name
    return lambda inputs: session.run(None, {name: inputs})[0]


def require(*packages: str, extra: str = "export") -> None:
    """Raise ModuleNotFoundError with the remedy where a package of an extra is missing."""
    import importlib.util

    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise ModuleNotFoundError(
            f'export needs {", ".join(missing)}: pip install "mobileclip2_lite[{extra}]"', name=missing[0]
        )
