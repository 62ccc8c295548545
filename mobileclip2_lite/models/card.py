"""What is known of a model's weights: the card beside them, and a digest of the tensors."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mobileclip2_lite.work.files import sha256_file


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
        ValueError: the SHA-256 of `model.safetensors` is not the card's.
    """
    folder = Path(folder)
    if not (folder / "card.json").is_file():
        return {}
    card = json.loads((folder / "card.json").read_text("utf-8"))
    found = sha256_file(folder / "model.safetensors")
    if card.get("sha256") not in (None, found):
        raise ValueError(
            f"{folder / 'model.safetensors'} is not the file that card.json beside it describes (SHA-256 {found}, "
            f"card {card['sha256']}): fetch both again"
        )
    return card
