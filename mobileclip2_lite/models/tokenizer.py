"""The lite family's tokenizer: open_clip's SimpleTokenizer on a prefix of CLIP's BPE merges.

Byte-pair merges are ordered, so their first N make a smaller vocabulary of the same language: 4,096 tokens instead of
49,408 keep the lite models' embeddings small (ours, not the paper's). Reads the merges that open_clip ships, writes
nothing. Taught by notebooks/00_start_here.ipynb.
"""

from __future__ import annotations

import functools
import gzip
import io
from collections.abc import Callable

import torch

CLIP_VOCABULARY = 49_408
_BYTES_AND_SPECIALS = 2 * 256 + 2
"""Tokens before the merges (each byte, alone and ending a word) and after them (start, end of text)."""


@functools.lru_cache(maxsize=8)
def prefix_tokenizer(vocab_size: int, context_length: int) -> Callable[[list[str]], torch.LongTensor]:
    """A tokenizer of `vocab_size` tokens: list of N strings to int64 (N, context_length), padded with 0.

    Texts longer than the context are cut and end with the end-of-text token, which is the largest token id: the text
    tower finds the end of the text by it.

    Raises:
        ValueError: `vocab_size` is not between 515 and 49,408.
    """
    from open_clip.tokenizer import SimpleTokenizer, default_bpe

    if not _BYTES_AND_SPECIALS < vocab_size <= CLIP_VOCABULARY:
        raise ValueError(f"vocab_size must be above {_BYTES_AND_SPECIALS} and at most {CLIP_VOCABULARY}: {vocab_size}")
    if vocab_size == CLIP_VOCABULARY:
        return SimpleTokenizer(context_length=context_length)
    with gzip.open(default_bpe(), "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")[: 1 + vocab_size - _BYTES_AND_SPECIALS]  # the first line is a header
    merges = io.BytesIO(gzip.compress("\n".join(lines).encode("utf-8")))
    return SimpleTokenizer(bpe_path=merges, context_length=context_length)
