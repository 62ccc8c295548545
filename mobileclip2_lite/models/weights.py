"""Read weights from a file without running code, fit them to a model, and say what does not fit.

Reads safetensors, and PyTorch files with `weights_only=True`: a file with pickled code in it is refused. Knows the key
layouts of open_clip (also wrapped in `state_dict`, also with a `module.` prefix), of the authors' first release
(`image_encoder.model.*`, `text_encoder.*`; mapped by open_clip's own converter) and of towers whose branches are
already folded. Writes nothing. Taught by notebooks/50_architecture_and_latency.ipynb.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import torch
from torch import nn

from mobileclip2_lite.models.reparameterization import fold

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
"""Files that can hold weights."""


def read_state(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    """The tensors of a weights file by key.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is truncated, of another kind, holds pickled code or TorchScript, or holds no tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path}: not a weights file; known suffixes are {', '.join(SUFFIXES)}")
    state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    for wrapper in ("state_dict", "model", "module"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
            break
    if not isinstance(state, dict) or not any(isinstance(value, torch.Tensor) for value in state.values()):
        keys = list(state)[:5] if isinstance(state, dict) else type(state).__name__
        raise ValueError(f"{path} holds no weights: expected tensors by name, found {keys}")
    state = {str(key): value for key, value in state.items() if isinstance(value, torch.Tensor)}
    if all(key.startswith("module.") for key in state):
        state = {key[len("module.") :]: value for key, value in state.items()}
    return state


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file ({error}): fetch or make it again") from error


def _read_torch(path: Path) -> object:
    with open(path, "rb") as file:
        head = file.read(64)
    if head.startswith(b"version https://git-lfs"):
        raise ValueError(f"{path} is a Git LFS pointer, not the weights: run `git lfs pull`")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} was refused: it is broken or no plain file of tensors (pickled objects could run code when "
            f"loaded). Convert it to safetensors where you trust it. ({first_line(error)})"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        kind = (
            "TorchScript, not a file of tensors" if "TorchScript" in str(error) else "truncated or not a PyTorch file"
        )
        raise ValueError(f"{path} is {kind}: fetch it again ({first_line(error)})") from error


def first_line(error: BaseException) -> str:
    """What an error says, short enough to stand within another message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:240]


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
