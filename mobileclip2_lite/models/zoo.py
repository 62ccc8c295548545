"""`create_model`: model, preprocess and tokenizer, together and right for each other.

Names are the lite family's (JSON files in `configs/`, of open_clip's form) or a folder that `save_model` wrote. Reads
configs and safetensors, writes model folders: `model.safetensors`, `config.json` with `model_cfg` and
`preprocess_cfg`, and, where given, `card.json`. Taught by notebooks/00_start_here.ipynb.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from mobileclip2_lite.models.preprocess import Preprocess
from mobileclip2_lite.models.tokenizer import CLIP_VOCABULARY, prefix_tokenizer
from mobileclip2_lite.models.trimming import allow_trimming
from mobileclip2_lite.stages import pretty, sha256_file, write_atomic

CONFIGS = Path(__file__).parent / "configs"


class LoadedModel(NamedTuple):
    """A model with what it needs to be used: never pass one on without the others."""

    model: nn.Module
    """`encode_image(x, normalize=False)`, `encode_text(tokens, normalize=False)`, `logit_scale` (log), `logit_bias`."""
    preprocess: Preprocess
    """PIL image to float32 (3, S, S)."""
    tokenizer: Callable[[list[str]], torch.LongTensor]
    """N strings to int64 (N, context length)."""


def data_folder() -> Path:
    """The folder with the embedded world's models: inside an installed package, else the repository's `data/`."""
    package = Path(__file__).parents[1]
    inside = package / "data"
    return inside if inside.is_dir() else package.parent / "data"


def list_models() -> list[str]:
    """Names of the lite family."""
    return sorted(path.stem for path in CONFIGS.glob("*.json"))


def create_model(name_or_path: str | os.PathLike, pretrained: str | None = None, **overrides: Any) -> LoadedModel:
    """A model in eval mode with its preprocess and tokenizer.

    Args:
        name_or_path: a name of `list_models()` (random weights) or a folder written by `save_model`.
        pretrained: a folder or safetensors file whose weights to load.
        overrides: fields of `Preprocess` that differ from the config.

    Raises:
        ValueError: the name is unknown, or the weights do not fit (the message names the keys).
    """
    folder = Path(name_or_path)
    if (folder / "config.json").is_file():
        config = json.loads((folder / "config.json").read_text("utf-8"))
        weights = folder / "model.safetensors"
    elif (CONFIGS / f"{name_or_path}.json").is_file():
        config = json.loads((CONFIGS / f"{name_or_path}.json").read_text("utf-8"))
        weights = None
    else:
        raise ValueError(
            f"no model {str(name_or_path)!r}: neither a folder with config.json nor one of {list_models()}"
        )
    loaded = _build(config, overrides)
    if pretrained is not None:
        weights = Path(pretrained)
        weights = weights / "model.safetensors" if weights.is_dir() else weights
    if weights is not None:
        load_weights(loaded.model, weights)
    return loaded


def _build(config: dict[str, Any], overrides: dict[str, Any]) -> LoadedModel:
    from open_clip import CustomTextCLIP

    import mobileclip2_lite.models.towers  # noqa: F401  (registers the lite towers with timm)

    model_cfg = copy.deepcopy(config["model_cfg"])
    model_cfg.pop("custom_text", None)
    model = CustomTextCLIP(**model_cfg).eval()
    model.model_cfg = copy.deepcopy(config["model_cfg"])
    allow_trimming(model)
    preprocess = Preprocess.from_config(config["preprocess_cfg"], **overrides)
    text = config["model_cfg"]["text_cfg"]
    tokenizer = prefix_tokenizer(text.get("vocab_size", CLIP_VOCABULARY), text.get("context_length", 77))
    return LoadedModel(model, preprocess, tokenizer)


def load_weights(model: nn.Module, path: str | os.PathLike) -> None:
    """Load a safetensors file into `model`, whatever its float type; every key and shape must fit.

    Raises:
        ValueError: the file is broken, or keys are missing, unexpected or of another shape.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file ({error}): fetch or make it again") from error
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit the model: {error}") from error


def save_model(
    loaded: LoadedModel,
    folder: str | os.PathLike,
    *,
    name: str | None = None,
    card: dict[str, Any] | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """Write model, preprocess and tokenizer as one folder that `create_model` reads; returns it.

    Args:
        loaded: what to save.
        folder: made if it does not exist; each file is written beside and renamed.
        name: what the model calls itself in config and card.
        card: JSON data to keep beside the weights; `sha256` of the weights is added to it.
        dtype: float type on disk, e.g. `torch.float16`; None keeps the parameters' own.
    """
    from safetensors.torch import save

    model_cfg = getattr(loaded.model, "model_cfg", None)
    if model_cfg is None:
        raise ValueError("save_model: this model was not made by create_model, so its config is unknown")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        key: (value.to(dtype) if dtype is not None and value.is_floating_point() else value).detach().cpu().contiguous()
        for key, value in loaded.model.state_dict().items()
    }
    config = {"name": name, "model_cfg": model_cfg, "preprocess_cfg": loaded.preprocess.to_config()}
    write_atomic(folder / "config.json", pretty(config))
    write_atomic(folder / "model.safetensors", save(state, metadata={"format": "pt"}))
    if card is not None:
        digest = sha256_file(folder / "model.safetensors")
        write_atomic(folder / "card.json", pretty({"name": name, **card, "sha256": digest}))
    return folder
