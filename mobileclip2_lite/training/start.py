"""What a training starts from: new or given weights, another image size, a teacher's text tower, towers that stay.

The paper trains from random weights. People who have a small set of their own ask for more: to go on from published
weights, to keep a tower as it is while the other learns to meet it (LiT, arXiv 2111.07991), to take over the text
tower of a teacher, with its tokenizer. Reads models; writes nothing. Taught by
notebooks/40_reinforced_training.ipynb.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from mobileclip2_lite.models.embedded import find, load
from mobileclip2_lite.models.loaded import LoadedModel
from mobileclip2_lite.models.reparameterization import is_folded
from mobileclip2_lite.models.zoo import build, create_model
from mobileclip2_lite.recipes import Train

TOWERS = ("image", "text")


def new_model(settings: Train) -> LoadedModel:
    """A model with new weights or those of `settings.start`, with SigLIP's start of scale and bias for its loss.

    Raises:
        ValueError: the model to start from is another one, or its branches are folded; or a tower cannot be taken over.
    """
    size = {"image_size": settings.image_size} if settings.image_size else {}
    given = find(settings.start, "start") if settings.start else (settings.model,)
    loaded = create_model(*given, **size)
    model = loaded.model
    if settings.start:
        _check_start(settings, model, create_model(settings.model, **size).model)
    if settings.text_from:
        loaded = with_text_tower(loaded, settings.text_from)
        model = loaded.model
    if settings.loss == "sigmoid" and getattr(model, "logit_bias", None) is None:
        start = {"init_logit_scale": math.log(10), "init_logit_bias": -10.0}  # arXiv 2303.15343
        model.model_cfg = {**model.model_cfg, **start}
        with torch.no_grad():
            model.logit_scale.fill_(start["init_logit_scale"])
        model.logit_bias = nn.Parameter(torch.full_like(model.logit_scale, start["init_logit_bias"]))
    return loaded


def _check_start(settings: Train, found: nn.Module, wanted: nn.Module) -> None:
    shapes, expected = ({name: value.shape for name, value in m.state_dict().items()} for m in (found, wanted))
    shapes.pop("logit_bias", None)
    expected.pop("logit_bias", None)
    if shapes == expected:
        return
    if is_folded(found) and not is_folded(wanted):
        raise ValueError(f"start={settings.start} is folded for use, its branches are one: start from unfolded weights")
    held = getattr(found, "architecture", None) or "another model"
    raise ValueError(
        f"start={settings.start} does not hold a {settings.model} but {held}: name the model that it holds with --model"
    )


def with_text_tower(loaded: LoadedModel, name: str) -> LoadedModel:
    """The model with another's text tower, tokenizer and embedding size; the image tower's last map may be new.

    Args:
        name: a teacher by name (`photo-teacher-vectors`), a folder, `MODEL@TAG` or `hf-hub:OWNER/NAME`.

    Raises:
        ValueError: the other model has no weights, or a text tower of its own kind (CoCa's).
    """
    from open_clip.model import convert_to_custom_text_state_dict

    other = load(name, "text tower", "cpu")
    given, cfg = other.model.model_cfg, loaded.model.model_cfg
    if "multimodal_cfg" in given or "multimodal_cfg" in cfg:
        raise ValueError(f"text_from={name}: the text tower of a captioner cannot be taken over, nor can it take one")
    cfg = {**copy.deepcopy(cfg), "embed_dim": given["embed_dim"], "text_cfg": given["text_cfg"], "custom_text": True}
    cfg |= {key: given[key] for key in ("quick_gelu",) if key in given}
    model = build(cfg)
    if hasattr(model.visual, "set_input_size"):  # as `create_model` does for a size that is not the config's own
        model.visual.set_input_size(loaded.preprocess.image_size)
    state = other.model.state_dict()
    if not hasattr(other.model, "text"):
        state = convert_to_custom_text_state_dict(state)
    model.text.load_state_dict({key[5:]: value for key, value in state.items() if key.startswith("text.")})
    own, new = loaded.model.visual.state_dict(), model.visual.state_dict()
    model.visual.load_state_dict({key: own[key] if own[key].shape == new[key].shape else new[key] for key in new})
    model.architecture = loaded.model.architecture
    return LoadedModel(model, loaded.preprocess, other.tokenizer)


def lock(model: nn.Module, towers: tuple[str, ...]) -> None:
    """Let no step move the parameters of these towers.

    Raises:
        ValueError: a tower has no such name, or nothing would be left to train.
    """
    if unknown := sorted(set(towers) - set(TOWERS)):
        raise ValueError(f"lock names {', '.join(unknown)}: a tower is {' or '.join(TOWERS)}")
    if set(towers) == set(TOWERS):
        raise ValueError("lock names both towers: nothing would be left to train")
    for tower in towers:
        for parameter in parameters_of(model, tower):
            parameter.requires_grad_(False)


def parameters_of(model: nn.Module, tower: str) -> Iterator[Tensor]:
    """The parameters of `image` or `text`; the logit scale and bias belong to neither."""
    for name, parameter in model.named_parameters():
        if name not in ("logit_scale", "logit_bias") and name.startswith("visual.") == (tower == "image"):
            yield parameter


def training_mode(model: nn.Module, locked: tuple[str, ...]) -> None:
    """Training mode, but for locked towers: their batch norms keep their statistics, and nothing is dropped."""
    model.train()
    for tower in locked:
        for module in [model.visual] if tower == "image" else [m for n, m in model.named_children() if n != "visual"]:
            module.eval()
