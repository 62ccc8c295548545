"""Which tokenizer a model needs, and the lite family's: open_clip's SimpleTokenizer on a prefix of CLIP's BPE merges.

Byte-pair merges are ordered, so their first N make a smaller vocabulary of the same language: 4,096 tokens instead of
49,408 keep the lite models' embeddings small (ours, not the paper's). Reads the merges that open_clip ships, writes
nothing. Taught by notebooks/00_start_here.ipynb.
"""

from __future__ import annotations

import functools
import gzip
import io
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mobileclip2_lite.models.sentence_encoder import WordPiece

CLIP_VOCABULARY = 49_408
_BYTES_AND_SPECIALS = 2 * 256 + 2
"""Tokens before the merges (each byte, alone and ending a word) and after them (start, end of text)."""


def tokenizer_settings(text_cfg: Mapping[str, Any]) -> dict[str, Any]:
    """All of a text tower's config that decides how a text becomes tokens: `tokenizer_of` makes the same from it."""
    keys = (
        "vocab_size",
        "context_length",
        "hf_tokenizer_name",
        "tokenizer_mode",
        "tokenizer_kwargs",
        "sentence_encoder",
    )
    return {key: text_cfg[key] for key in keys if text_cfg.get(key)}


@functools.lru_cache(maxsize=8)
def prefix_tokenizer(vocab_size: int, context_length: int, **options: str) -> Callable[[list[str]], torch.LongTensor]:
    """A tokenizer of `vocab_size` tokens: list of N strings to int64 (N, context_length), padded with 0.

    Texts longer than the context are cut and end with the end-of-text token, which is the largest token id: the text
    tower finds the end of the text by it.

    Args:
        options: of open_clip's SimpleTokenizer: `clean` (`lower`, `canonicalize`, `whitespace`), `reduction_mask`.

    Raises:
        ValueError: `vocab_size` is not between 515 and 49,408.
    """
    from open_clip.tokenizer import SimpleTokenizer

    if not _BYTES_AND_SPECIALS < vocab_size <= CLIP_VOCABULARY:
        raise ValueError(f"vocab_size must be above {_BYTES_AND_SPECIALS} and at most {CLIP_VOCABULARY}: {vocab_size}")
    if vocab_size == CLIP_VOCABULARY:
        return SimpleTokenizer(context_length=context_length, **options)
    lines = ["", *prefix_merges(vocab_size)]  # the first line is a header
    merges = io.BytesIO(gzip.compress("\n".join(lines).encode("utf-8")))
    return SimpleTokenizer(bpe_path=merges, context_length=context_length, **options)


def prefix_merges(vocab_size: int) -> list[str]:
    """The merges of a vocabulary of that size, most frequent first, each two parts with a space between."""
    from open_clip.tokenizer import default_bpe

    with gzip.open(default_bpe(), "rt", encoding="utf-8") as file:
        return file.read().split("\n")[1 : 1 + vocab_size - _BYTES_AND_SPECIALS]


def tokenizer_of(
    model_cfg: dict[str, Any], architecture: str, folder: Path | None = None
) -> Callable[[list[str]], torch.LongTensor]:
    """The tokenizer of a model config: CLIP's, its prefix for a smaller vocabulary, or the one its text tower names.

    A tokenizer that cannot be downloaded from the hub raises only when it is used: images need none.

    Args:
        architecture: open_clip's name, which alone says that a model is SigLIP's.
        folder: where tokenizer files may lie beside the weights.
    """
    text = model_cfg["text_cfg"]
    if "sentence_encoder" in text:
        if folder is None:
            raise ValueError(f"{architecture}: a sentence encoder's vocabulary lies beside its weights: name a folder")
        return WordPiece.beside(folder, text["context_length"])
    if not text.get("hf_tokenizer_name") and "siglip" not in architecture.lower():
        options = text.get("tokenizer_kwargs") or {}
        return prefix_tokenizer(text.get("vocab_size", CLIP_VOCABULARY), text.get("context_length", 77), **options)
    try:
        return _from_hub(text, architecture, folder)
    except Exception as error:  # transformers and the hub client raise many kinds
        first = (str(error).strip().splitlines() or [repr(error)])[0][:200]
        message = f"the tokenizer of {architecture} is not in the local cache and could not be fetched: {first}"
        warnings.warn(message + " Images can be embedded, texts can't.", stacklevel=3)
        return MissingTokenizer(message)


def _from_hub(text: dict[str, Any], architecture: str, folder: Path | None) -> Callable[[list[str]], torch.LongTensor]:
    import open_clip

    context = text.get("context_length", 77)
    local = folder is not None and (folder / "tokenizer_config.json").is_file()
    if not local and open_clip.get_model_config(architecture) is not None:
        return open_clip.get_tokenizer(architecture, context_length=context)
    return open_clip.tokenizer.HFTokenizer(
        str(folder) if local else text["hf_tokenizer_name"],
        context_length=context,
        tokenizer_mode=text.get("tokenizer_mode"),
        **(text.get("tokenizer_kwargs") or {}),
    )


@dataclass(frozen=True)
class MissingTokenizer:
    """Stands where a tokenizer could not be had; using it raises FileNotFoundError."""

    message: str

    def __call__(self, texts: list[str]) -> torch.LongTensor:
        raise FileNotFoundError(self.message)
