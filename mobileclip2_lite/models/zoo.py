"""`create_model`: model, preprocess and tokenizer, together and right for each other.

Any model of MobileCLIP2 and MobileCLIP (S0 to S4, B, L-14), any other of open_clip, any hub repository, folder or
weights file, and the lite family of the embedded world (JSON files in `configs/`, of the form of open_clip's hub
configs). Reads those; writes model folders: `model.safetensors`, `config.json` with `model_cfg` and `preprocess_cfg`,
and, where given, `card.json`. The paper's towers are open_clip's and timm's, unchanged.
Taught by notebooks/00_start_here.ipynb and notebooks/50_architecture_and_latency.ipynb.
"""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mobileclip2_lite.models.family import FAMILY
from mobileclip2_lite.models.grid_tower import grid_tower, start_decoder
from mobileclip2_lite.models.loaded import LoadedModel
from mobileclip2_lite.models.reparameterization import is_folded
from mobileclip2_lite.models.resolve import lite_names, resolve, say, with_size
from mobileclip2_lite.models.sentence_encoder import TOKENIZER_FILE, SentenceEncoder, WordPiece
from mobileclip2_lite.models.strided_convolutions import slice_strided_pointwise
from mobileclip2_lite.models.tokenizer import tokenizer_of
from mobileclip2_lite.models.trimming import allow_trimming
from mobileclip2_lite.models.weights import load_weights
from mobileclip2_lite.work.files import pretty, sha256_file, write_atomic
from mobileclip2_lite.work.place import StorePath, made_here, place_of


def list_models() -> list[str]:
    """The lite family and MobileCLIP's; `create_model` also takes every name of `open_clip.list_models()`."""
    return [*lite_names(), *FAMILY]


def create_model(
    name_or_path: str | os.PathLike,
    pretrained: str | os.PathLike | None = None,
    *,
    image_size: int | None = None,
    context_length: int | None = None,
    mean: tuple[float, float, float] | None = None,
    std: tuple[float, float, float] | None = None,
    interpolation: str | None = None,
    resize_mode: str | None = None,
) -> LoadedModel:
    """A model in eval mode with its preprocess and tokenizer.

    Args:
        name_or_path: a name of `list_models()` or of open_clip; `hf-hub:OWNER/NAME` (or `...@REVISION`), from the
            local cache where it is there; a folder (ours, open_clip's, or with just a known weights file); or a
            `.safetensors`, `.pt`, `.pth`, `.bin` file that a config beside it or its own name identifies.
        pretrained: for names only: a tag of open_clip (`dfndr2b`, `openai`, ...), or a weights file or folder.
            None gives random weights.
        image_size, context_length: build for another size; position embeddings are interpolated.
        mean, std, interpolation, resize_mode: where you know better than the weights' own preprocess.

    Raises:
        ValueError: unknown name or tag; a broken, unsafe or unfitting weights file (the message names the keys).
        FileNotFoundError: a file is missing, or the hub can't be reached and its cache lacks the model.
    """
    source = resolve(name_or_path, pretrained)
    say(source)
    source = with_size(source, image_size, context_length)
    changes = {"mean": mean, "std": std, "interpolation": interpolation, "resize_mode": resize_mode}
    preprocess = source.preprocess.replace(**{key: value for key, value in changes.items() if value is not None})
    model = build(source.model_cfg)
    if source.weights is not None:
        model = load_weights(model, source.weights, resize=not (image_size is None and context_length is None))
    if image_size is not None and hasattr(model.visual, "set_input_size"):
        model.visual.set_input_size(image_size)
    slice_strided_pointwise(model)  # weights of folded towers make convolutions of their own
    model.architecture = source.architecture
    return LoadedModel(model, preprocess, tokenizer_of(source.model_cfg, source.architecture, source.folder))


def build(model_cfg: dict[str, Any]) -> nn.Module:
    """open_clip's model of a config, random weights, in eval mode, fit to be trained: on a CPU, with texts trimmed."""
    from open_clip import CLIP, CoCa, CustomTextCLIP

    import mobileclip2_lite.models.photo_towers
    import mobileclip2_lite.models.towers  # noqa: F401  (both register towers with timm)

    config = copy.deepcopy(model_cfg)
    if "timm_model_name" in config["vision_cfg"]:
        config["vision_cfg"]["timm_model_pretrained"] = False
    sentences = _without_sentence_encoder(config)
    text_is_hf = "hf_model_name" in config["text_cfg"]
    if text_is_hf:
        config["text_cfg"]["hf_model_pretrained"] = False
    custom = config.pop("custom_text", False) or text_is_hf
    kind = CoCa if custom and "multimodal_cfg" in config else CustomTextCLIP if custom else CLIP
    model = kind(**config)
    if kind is CoCa:
        start_decoder(model)
        if "timm_model_name" in config["vision_cfg"]:
            model.visual = grid_tower(model.visual, model_cfg)
    if sentences:
        model.text = SentenceEncoder(config["embed_dim"], **sentences)
    allow_trimming(model)
    slice_strided_pointwise(model)
    model.eval()
    model.model_cfg = copy.deepcopy(model_cfg)
    return model


def _without_sentence_encoder(config: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a config's sentence encoder, if it has one; open_clip builds a small tower in its place."""
    if config["text_cfg"].pop("sentence_encoder", None) is None:
        return {}
    arguments = config["text_cfg"]
    config["text_cfg"] = {"vocab_size": 2, "context_length": 2, "width": 8, "heads": 1, "layers": 1}
    return arguments


def save_model(
    loaded: LoadedModel,
    folder: str | os.PathLike,
    *,
    name: str | None = None,
    card: dict[str, Any] | None = None,
    dtype: torch.dtype | None = None,
) -> Path | StorePath:
    """Write model, preprocess and tokenizer as one folder that `create_model` reads; returns it.

    Args:
        loaded: what to save.
        folder: made if it does not exist; each file is written beside and renamed. In a store they are created.
        name: what the model calls itself in config and card.
        card: JSON data to keep beside the weights; `sha256` of the weights is added to it.
        dtype: float type on disk, e.g. `torch.float16`; None keeps the parameters' own.
    """
    if getattr(loaded.model, "model_cfg", None) is None:
        raise ValueError("save_model: this model was not made by create_model, so its config is unknown")
    place = place_of(folder)
    with made_here(place) as made:
        _save(loaded, made, name, card, dtype)
    return place


def _save(
    loaded: LoadedModel, folder: Path, name: str | None, card: dict[str, Any] | None, dtype: torch.dtype | None
) -> None:
    from safetensors.torch import save

    folder.mkdir(parents=True, exist_ok=True)
    state = {
        key: (value.to(dtype) if dtype is not None and value.is_floating_point() else value).detach().cpu().contiguous()
        for key, value in loaded.model.state_dict().items()
    }
    config = {
        "name": name,
        "architecture": getattr(loaded.model, "architecture", None),
        "folded": is_folded(loaded.model),
        "model_cfg": loaded.model.model_cfg,
        "preprocess_cfg": loaded.preprocess.to_config(),
    }
    write_atomic(folder / "config.json", pretty(config))
    if isinstance(loaded.tokenizer, WordPiece):
        write_atomic(folder / TOKENIZER_FILE, loaded.tokenizer.data)
    write_atomic(folder / "model.safetensors", save(state, metadata={"format": "pt"}))
    if card is not None:
        digest = sha256_file(folder / "model.safetensors")
        write_atomic(folder / "card.json", pretty({"name": name, **card, "sha256": digest}))
