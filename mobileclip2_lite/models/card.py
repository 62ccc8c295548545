"""What is known of a model: the card beside its weights, a digest of its tensors, and what a teacher is.

`TeacherCard` is what travels from an ensemble to the manifest of a reinforced folder, and from there to the training's
loss and to teachers that run live.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mobileclip2_lite.work.files import read_object, sha256_file


@dataclass(frozen=True)
class TeacherCard:
    """What a teacher is: all that its targets depend on. None where it is not known."""

    name: str
    """How its embeddings are called."""
    logit_scale: float | None = None
    """Inverse temperature of its targets (not its logarithm)."""
    logit_bias: float | None = None
    """Of a teacher trained with the sigmoid loss."""
    dimension: int | None = None
    """Of its embeddings."""
    image_size: int | None = None
    """Side of its images in pixels."""
    interpolation: str | None = None
    """How images are resized to that side."""
    sha256: str | None = None
    """Of its weights: of the file that a card names, else over the tensors (`digest`)."""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    tokenizer: Mapping[str, Any] | None = None
    """`tokenizer.tokenizer_settings` of its text tower."""
    dtype: str = "fp32"
    """`fp32`, or `bf16` or `fp16` autocast."""
    source: str | None = None
    """Folder that it was loaded from, where its name alone does not find it."""

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> TeacherCard:
        """Of a manifest's entry; keys that are not known are left out, so that old and new manifests are read.

        Raises:
            ValueError: it has no name.
        """
        if "name" not in facts:
            raise ValueError(f"a teacher's entry in a manifest has no `name`, only {', '.join(sorted(facts))}")
        fields = {field.name for field in dataclasses.fields(cls)}
        known = {key: value for key, value in facts.items() if key in fields and value is not None}
        return cls(**{key: tuple(v) if key in ("mean", "std") else v for key, v in known.items()})

    def to_json(self) -> dict[str, Any]:
        """The manifest's entry, without what is not known; `dtype` only where it is not `fp32`."""
        facts = {key: value for key, value in dataclasses.asdict(self).items() if value is not None}
        if facts["dtype"] == "fp32":
            del facts["dtype"]
        return {key: list(value) if isinstance(value, tuple) else value for key, value in facts.items()}

    def embeds(self) -> dict[str, Any]:
        """The part that stored rows depend on: not how its logits are scaled, nor where it lies, nor their width."""
        later = ("logit_scale", "logit_bias", "source", "dimension")
        return {key: value for key, value in self.to_json().items() if key not in later}


def digest(model: nn.Module) -> str:
    """SHA-256 over names and values of a model's tensors: the same weights, the same digest, wherever they lie."""
    found = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        found.update(f"{key}:{value.dtype}:{tuple(value.shape)}".encode())
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def read_card(folder: str | os.PathLike) -> dict[str, Any]:
    """The `card.json` beside a model's weights, which must be those that it describes; empty where there is none.

    Raises:
        ValueError: the card is no JSON object, or the SHA-256 of `model.safetensors` is not the card's.
    """
    folder = Path(folder)
    if not (folder / "card.json").is_file():
        return {}
    card = read_object(folder / "card.json")
    found = sha256_file(folder / "model.safetensors")
    if card.get("sha256") not in (None, found):
        raise ValueError(
            f"{folder / 'model.safetensors'} is not the file that card.json beside it describes (SHA-256 {found}, "
            f"card {card['sha256']}): fetch both again"
        )
    return card
