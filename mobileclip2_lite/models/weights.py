"""Read weights from a file without running code, fit them to a model, and say what does not fit.

Reads safetensors, and PyTorch files with `weights_only=True`: a file with pickled code in it is refused. Knows the key
layouts of open_clip (also as trainers wrap and prefix them, also in parts), of the authors' first release
(`image_encoder.model.*`, `text_encoder.*`; mapped by open_clip's own converter) and of towers whose branches are
already folded. Writes nothing. Taught by notebooks/50_architecture_and_latency.ipynb.
"""

from __future__ import annotations

import os
import pickle
import re
import warnings
import zipfile
from pathlib import Path

import torch
from torch import nn

from mobileclip2_lite.models.reparameterization import fold

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
"""Files that can hold weights."""

PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.[a-z]+")
"""Name of one part of a weights file in parts, as the hub's libraries write it."""


WRAPPERS = ("state_dict", "model_state_dict", "model", "module")
"""Keys under which trainers keep the weights of a checkpoint."""

AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")
"""Keys under which they keep the moving average, which is what they evaluate."""

PREFIXES = ("module.", "_orig_mod.", "model.")
"""What DistributedDataParallel, torch.compile and Lightning put before every key, in any order."""


def read_state(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    """The tensors of a weights file by key, without what trainers wrap them in.

    Of a file in parts (`NAME-00001-of-00003.safetensors`) all parts are read, whichever is named. Where a moving
    average lies beside the raw weights, it is taken, and said.

    Raises:
        FileNotFoundError: there is no such file, or a part is missing.
        ValueError: it is truncated, of another kind, a Git LFS pointer, holds pickled code or TorchScript, or holds no
            tensors; the message says what to do.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: not a weights file; known suffixes are {', '.join(SUFFIXES)}")
    files = parts_of(path)
    state = _unwrapped(_read_file(path), path)
    for other in files:
        if other != path:
            state |= _unwrapped(_read_file(other), other)
    found: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        bare = _bare(key)
        if bare in found:
            raise ValueError(f"{path} holds {bare} twice, once as {key}: save one model alone, without the other")
        found[bare] = value
    return found


def parts_of(path: Path) -> list[Path]:
    """All files of a weights file in parts; `[path]` of one that is whole.

    Raises:
        FileNotFoundError: a part is missing.
    """
    match = PART.fullmatch(path.name)
    if not match:
        return [path]
    files = [
        path.with_name(f"{match[1]}-{number:05d}-of-{match[3]}{path.suffix}") for number in range(1, int(match[3]) + 1)
    ]
    if missing := [file.name for file in files if not file.is_file()]:
        absent = ", ".join(missing)
        raise FileNotFoundError(f"{path} is one of {int(match[3])} parts; not beside it: {absent}. Fetch them all")
    return files


def _unwrapped(state: object, path: Path) -> dict[str, torch.Tensor]:
    """The tensors by key within what a trainer saved."""
    while isinstance(state, dict):
        averaged = [key for key in AVERAGED if _holds_tensors(state.get(key))]
        inner = averaged or [key for key in WRAPPERS if isinstance(state.get(key), dict)]
        if not inner:
            break
        if averaged and any(isinstance(state.get(key), dict) for key in WRAPPERS):
            warnings.warn(
                f"{path} holds raw weights and their moving average ({averaged[0]}): the average is taken. For the raw "
                "ones, save them alone.",
                stacklevel=4,
            )
        state = state[inner[0]]
    if not _holds_tensors(state):
        keys = list(state)[:5] if isinstance(state, dict) else type(state).__name__
        raise ValueError(f"{path} holds no weights: expected tensors by name, found {keys}")
    return {str(key): value for key, value in state.items() if isinstance(value, torch.Tensor)}


def _holds_tensors(value: object) -> bool:
    """Whether a value is a dict with a tensor in it, or one that wraps such a dict."""
    if not isinstance(value, dict):
        return False
    return any(isinstance(item, torch.Tensor) for item in value.values()) or any(
        _holds_tensors(value.get(key)) for key in WRAPPERS
    )


def _bare(key: str) -> str:
    """A key without the prefixes of trainers."""
    while key.startswith(PREFIXES):
        key = key.partition(".")[2]
    return key


def _read_file(path: Path) -> object:
    with open(path, "rb") as file:
        head = file.read(64)
    if head.startswith(b"version https://git-lfs"):
        raise ValueError(f"{path} is a Git LFS pointer, not the weights: run `git lfs pull`, or fetch the file itself")
    return _read_safetensors(path) if path.suffix.lower() == ".safetensors" else _read_torch(path)


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file ({error}): fetch or make it again") from error


def _read_torch(path: Path) -> object:
    if _is_torchscript(path):
        raise ValueError(
            f"{path} is TorchScript, a program with its weights, as OpenAI publishes CLIP: it is not run here. "
            'OpenAI\'s models come by name and tag, create_model("ViT-B-32", "openai"). Of another one that you trust, '
            "save `torch.jit.load(path).state_dict()` as safetensors and name that file"
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} was refused: it is broken or no plain file of tensors (pickled objects could run code when "
            f"loaded). Convert it to safetensors where you trust it. ({first_line(error)})"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise ValueError(f"{path} is truncated or not a PyTorch file: fetch it again ({first_line(error)})") from error


def _is_torchscript(path: Path) -> bool:
    """Whether a file is a zip with a program's code in it."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name or name.endswith("/constants.pkl") for name in archive.namelist())


def first_line(error: BaseException) -> str:
    """What an error says, short enough to stand within another message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:240]


TRANSFORMERS = (
    "these are weights of the library transformers, whose towers are built and named otherwise. Take the same model "
    'as open_clip has it: by name and tag (create_model("ViT-B-32", "openai"); see `open_clip.list_pretrained()`), or '
    "its hub repository with an open_clip_config.json (`hf-hub:timm/...`, `hf-hub:laion/...`)"
)
"""What to do with a transformers model."""


def load_weights(model: nn.Module, path: str | os.PathLike, resize: bool = False) -> nn.Module:
    """Load a weights file into a model of open_clip's classes; every key and every shape must fit.

    Args:
        resize: interpolate position embeddings of another picture size or context length. open_clip always does; here
            it has to be asked for, or a model would silently work at a size it was never trained for.

    Returns the model, or, where the file's towers are folded, the folded model.

    Raises:
        FileNotFoundError, ValueError: see `read_state`.
        ValueError: keys are missing, unknown or of another shape; the message names them.
    """
    state = read_state(path)
    try:
        state = _to_open_clip(model, state)
        if resize:
            _resize(model, state)
    except (KeyError, IndexError, RuntimeError, AttributeError, AssertionError) as error:
        raise ValueError(
            f"{path}: the key layout is known, but could not be mapped to this model ({error!r})"
        ) from error
    if any(".reparam_conv." in key for key in state) and not any(".reparam_conv." in k for k in model.state_dict()):
        model = fold(model)
    problems = _differences(model.state_dict(), state)
    if problems:
        raise ValueError(f"{path} does not fit this model:\n  " + "\n  ".join(problems))
    model.load_state_dict(state)
    return model


def _to_open_clip(model: nn.Module, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Any known key layout as that of `model`."""
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict

    if any(key.startswith("text_encoder.transformer.0.token_mixer") for key in state):
        raise ValueError(
            "this is MobileCLIP-S0 (v1): its text tower mixes convolutions and attention, and neither open_clip nor "
            "this package builds it; MobileCLIP2-S0 has a plain text tower"
        )
    if any(key.startswith(("vision_model.", "text_model.")) for key in state):
        raise ValueError(TRANSFORMERS)
    if any(key.startswith(("image_encoder.", "text_encoder.")) for key in state):
        state = convert_state_dict(model, state)
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    own = model.state_dict()
    for key in ("logit_scale", "logit_bias"):
        if key in state and key in own and state[key].numel() == own[key].numel():
            state[key] = state[key].reshape(own[key].shape)
    position_ids = "text.transformer.embeddings.position_ids"
    if position_ids in state and position_ids not in own:
        del state[position_ids]
    return state


def _resize(model: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Interpolate the position embeddings of `state` in place to the sizes of `model`."""
    from open_clip.model import resize_pos_embed, resize_text_pos_embed

    resize_pos_embed(state, model)
    resize_text_pos_embed(state, model)


def _differences(own: dict[str, torch.Tensor], given: dict[str, torch.Tensor]) -> list[str]:
    """What keeps `given` from fitting `own`, in words."""
    missing = [key for key in own if key not in given and not key.endswith("num_batches_tracked")]
    unknown = [key for key in given if key not in own]
    shapes = [
        f"{key} {tuple(given[key].shape)} where {tuple(own[key].shape)} is needed"
        for key in own
        if key in given and given[key].shape != own[key].shape
    ]
    found = []
    for what, keys in (("missing", missing), ("unknown", unknown), ("of another shape", shapes)):
        if keys:
            found.append(f"{len(keys)} {what}: {', '.join(keys[:6])}{', ...' if len(keys) > 6 else ''}")
    return found
