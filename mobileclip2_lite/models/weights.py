"""Weights fitted to a model: the tensors of a file under their names there, and what does not fit in words.

Knows the key layouts of open_clip (also as a part of another model), of the authors' first release
(`image_encoder.model.*`, `text_encoder.*`; mapped by open_clip's own converter) and of towers whose branches are
already folded. Writes nothing. Taught by notebooks/50_architecture_and_latency.ipynb.
"""

from __future__ import annotations

import os

import torch
from torch import nn

from mobileclip2_lite.models.reparameterization import fold
from mobileclip2_lite.models.weight_files import read_state

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
        ValueError: keys are missing, unknown or of another shape, or hold numbers that are not finite; the message
            names them.
    """
    state = read_state(path)
    try:
        state = _to_open_clip(model, state)
        if resize:
            _resize(model, state)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except (KeyError, IndexError, RuntimeError, AttributeError, AssertionError) as error:
        raise ValueError(
            f"{path}: the key layout is known, but could not be mapped to this model ({error!r})"
        ) from error
    if any(".reparam_conv." in key for key in state) and not any(".reparam_conv." in k for k in model.state_dict()):
        model = fold(model)
    problems = _differences(model.state_dict(), state)
    if problems:
        raise ValueError(f"{path} does not fit this model:\n  " + "\n  ".join(problems))
    if broken := [key for key, value in state.items() if not _is_finite(value)]:
        raise ValueError(
            f"{path} holds numbers that are not finite, in {len(broken)} of {len(state)} tensors "
            f"({', '.join(broken[:3])}): the training that wrote it had diverged. Take an earlier checkpoint"
        )
    model.load_state_dict(state)
    return model


def _is_plain(value: torch.Tensor) -> bool:
    return value.is_floating_point() and value.layout == torch.strided and not value.is_meta


def _is_finite(value: torch.Tensor) -> bool:
    return not value.is_floating_point() or bool(torch.isfinite(value).all())


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
    state = _without_prefix(state, list(model.state_dict()))
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


def _without_prefix(state: dict[str, torch.Tensor], own: list[str]) -> dict[str, torch.Tensor]:
    """`state` without the name under which its model was a part of another (`net.`, `student.`).

    Raises:
        ValueError: there are several such models in it.
    """
    probe = max(own, key=lambda key: key.count("."))
    prefixes = sorted(key.removesuffix(probe) for key in state if key.endswith(f".{probe}"))
    if probe in state or not prefixes:
        return state
    if len(prefixes) > 1:
        raise ValueError(f"it holds several models, {', '.join(prefixes)}: save one alone")
    return {key.removeprefix(prefixes[0]): value for key, value in state.items()}


def _resize(model: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Interpolate the position embeddings of `state` in place to the sizes of `model`."""
    from open_clip.model import resize_pos_embed, resize_text_pos_embed

    resize_pos_embed(state, model)
    resize_text_pos_embed(state, model)


def _differences(own: dict[str, torch.Tensor], given: dict[str, torch.Tensor]) -> list[str]:
    """What keeps `given` from fitting `own`, in words."""
    missing = [key for key in own if key not in given and not key.endswith("num_batches_tracked")]
    unknown = [key for key in given if key not in own]
    odd = [key for key in own if key in given and own[key].is_floating_point() and not _is_plain(given[key])]
    shapes = [
        f"{key} {tuple(given[key].shape)} where {tuple(own[key].shape)} is needed"
        for key in own
        if key in given and given[key].shape != own[key].shape
    ]
    found = []
    kinds = {
        "missing": missing,
        "unknown": unknown,
        "of another shape": shapes,
        "quantised, complex, sparse or without content": odd,
    }
    for what, keys in kinds.items():
        if keys:
            found.append(f"{len(keys)} {what}: {', '.join(keys[:6])}{', ...' if len(keys) > 6 else ''}")
    return found
