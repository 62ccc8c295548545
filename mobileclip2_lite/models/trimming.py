"""Cut a batch of texts to its longest one, where that changes nothing.

A causal text tower never looks past the end token, and one that masks padding not at it, so that the padding is work
for nothing: at lite it is four fifths of the text. MobileCLIP2's other towers attend to padding, and cutting it would
change their output; they are left as they are. `text_lengths` is the one definition of a text's length: id 0 is padding
behind a text, but in CLIP's BPE also the token `!` inside one (`"cute dog!:)"`), so that counting the tokens that are
not 0 would lose the end token. Taught by notebooks/40_reinforced_training.ipynb.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def allow_trimming(model: nn.Module) -> None:
    """Let a causal open_clip text tower take fewer tokens than its context: cut the whole mask that it hands on."""
    if is_trimmable(model) and hasattr(model.text, "transformer"):  # a sentence encoder makes its own mask
        model.text.transformer.register_forward_pre_hook(_cut_mask, with_kwargs=True)


def _cut_mask(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    mask, length = kwargs.get("attn_mask"), args[0].shape[1]
    if mask is not None and mask.ndim == 2 and mask.shape[-1] > length:
        kwargs = {**kwargs, "attn_mask": mask[:length, :length]}
    return args, kwargs


def is_trimmable(model: nn.Module) -> bool:
    """Whether the text tower is causal, or masks padding of id 0, and takes its feature from an end token."""
    text = getattr(model, "text", None)
    if getattr(text, "masks_padding", False):  # a mean over the tokens that are not padding
        return True
    masks_padding = getattr(text, "use_pad_mask", False) and getattr(text, "pad_id", None) == 0
    pool = getattr(text, "pool_type", "")
    from_end = pool == "argmax" or (pool == "eos" and getattr(text, "eos_id", 0) != 0)
    causal = getattr(text, "attn_mask", None) is not None
    return (causal or masks_padding) and from_end and getattr(text, "cls_emb", None) is None


def text_lengths(tokens: torch.Tensor, pad: int = 0) -> torch.Tensor:
    """(N,) places up to each text's last token that is not `pad`, at least 1, of tokens (N, L)."""
    places = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
    return ((tokens != pad) * places).amax(dim=1).clamp_(min=1)


def trim(model: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """`tokens` (N, L), padded with zeros, cut to the longest text if that leaves the features as they are."""
    if not is_trimmable(model):
        return tokens
    return tokens[:, : int(text_lengths(tokens).max())]


def encode_text(model: nn.Module, tokens: torch.Tensor, normalize: bool = False, parts: int = 4) -> torch.Tensor:
    """Text features (N, D) as from `model.encode_text`, for less work where the tower is causal.

    The batch is sorted by length and encoded in `parts`, each cut to its own longest text, because one long caption
    would make all others as expensive as itself.
    """
    if not is_trimmable(model):
        return model.encode_text(tokens, normalize=normalize)
    order = text_lengths(tokens).argsort(stable=True)
    pieces = [tokens[rows] for rows in order.chunk(parts)]
    features = torch.cat([model.encode_text(trim(model, piece), normalize=normalize) for piece in pieces])
    return features[order.argsort()]
