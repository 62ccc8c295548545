"""What a model's folder holds: its config, its one weights file, and by the shapes of tensors which model that is.

Folders are written by this library, by open_clip, by Apple's repositories or by hand; `resolve` decides what follows.
Reads configs and weights, writes nothing. Taught by notebooks/50_architecture_and_latency.ipynb.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mobileclip2_lite.models.hub import WEIGHT_NAMES, pick
from mobileclip2_lite.models.weight_files import PART, SUFFIXES, named_parts, read_state

CONFIGS = ("config.json", "open_clip_config.json")
"""How a folder's config is called."""


def config_in(folder: Path) -> Path | None:
    """The folder's config with a `model_cfg`, or one that is such; other `config.json` files (transformers') aren't."""
    for name in CONFIGS:
        path = folder / name
        content = path.read_bytes() if path.is_file() else b""
        if b'"model_cfg"' in content or (b'"embed_dim"' in content and b'"vision_cfg"' in content):
            return path
    return None


def is_transformers(folder: Path) -> bool:
    """Whether the folder's `config.json` is one of the library transformers."""
    path = folder / "config.json"
    content = path.read_bytes() if path.is_file() else b""
    return b'"model_type"' in content and (b'"architectures"' in content or b'"vision_config"' in content)


def read_config(path: Path) -> dict[str, Any]:
    """A model's config, whichever of the two forms it has.

    Raises:
        ValueError: it is not JSON, or lacks what a model is built from; the message names the file and the key.
    """
    try:
        config = json.loads(path.read_text("utf-8-sig"))
        if "model_cfg" not in config:  # a bare model config, as Apple's captioners have it
            config = {"model_cfg": config}
        for key in ("embed_dim", "vision_cfg", "text_cfg"):
            config["model_cfg"][key]
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a model config: `model_cfg` lacks {error}") from error
    return config


def recognise(path: Path) -> str | None:
    """The family member whose image tower a weights file holds, by the shapes of a few tensors."""
    state = read_state(path)
    shapes = {
        key.removeprefix("visual.trunk.").removeprefix("image_encoder.model."): value.shape
        for key, value in state.items()
    }
    for key in ("stem.0.conv_kxk.0.conv.weight", "stem.0.reparam_conv.weight", "patch_embed.0.rbr_conv.0.conv.weight"):
        if key in shapes:
            mixers = sum(
                key.startswith(("stages.2.blocks.", "network.4.")) and key.endswith("mlp.fc1.weight") for key in shapes
            )
            mixers += sum(key.startswith("network.4.") and key.endswith("convffn.fc1.weight") for key in shapes)
            small = "MobileCLIP2-S0" if mixers == 10 else "MobileCLIP-S1"
            return {64: small, 80: "MobileCLIP2-S2", 96: "MobileCLIP2-S3", 128: "MobileCLIP2-S4"}.get(shapes[key][0])
    if "patch_emb.0.block.conv.weight" in shapes or "patch_embed.backbone.stem.0.conv.weight" in shapes:
        return "MobileCLIP2-B"
    return None


def weights_in(folder: Path) -> Path:
    """The folder's weights file: a known name first, safetensors before PyTorch.

    Raises:
        FileNotFoundError: there is none, or none of the parts that its index names.
        ValueError: there are several, and nothing says which.
    """
    here = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    name = pick(here)
    parts = named_parts(folder)
    if name is None and parts:
        raise FileNotFoundError(f"{folder} has an index, but none of the {len(parts)} parts that it names: {parts[:4]}")
    if name is None:
        raise FileNotFoundError(
            f"{folder} has no weights file ({', '.join(SUFFIXES)}): name a folder that a finished training wrote"
        )
    alike = sorted({_whole(other) for other in here if Path(other).suffix == Path(name).suffix})
    if name not in WEIGHT_NAMES and len(alike) > 1 and not set(alike) <= set(parts):
        raise ValueError(f"{folder} has several weights files ({', '.join(alike)}): name one of them")
    return folder / name


def _whole(name: str) -> str:
    """A file's name, or what all its parts have in common."""
    match = PART.fullmatch(name)
    return match[1] if match else name
