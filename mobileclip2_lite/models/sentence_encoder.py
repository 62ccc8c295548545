"""A frozen sentence encoder as a text tower: BERT's layers, the mean of all tokens, WordPiece tokens.

Ours, so that a CLIP model can have a text tower that was trained on text alone (LiT's idea the other way round): the
MiniLM encoders that lie inside wheels need neither `transformers` nor a hub. The arithmetic is that of BERT (arXiv
1810.04805) with mean pooling as in Sentence-BERT (arXiv 1908.10084). Reads `tokenizer.json` beside a model's weights.
Gives up: decoding, segments, the pooler. Taught by notebooks/10_teacher_ensemble.ipynb.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

TOKENIZER_FILE = "tokenizer.json"
"""Where a model folder keeps a WordPiece vocabulary."""
_PARTS = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "out",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "up",
    "output.dense": "down",
    "output.LayerNorm": "norm",
}
"""BERT's names of a layer's parts, and ours."""


class SentenceEncoder(nn.Module):
    """Token ids (N, L), padded with 0, to features (N, D); padding is masked, so cutting it changes nothing.

    Args:
        vocab_size, context_length, width, heads, layers: of the encoder; `width` is also that of its mean.
        embed_dim: D. Where it is not `width`, a projection without bias makes it so.
    """

    masks_padding = True

    def __init__(
        self, embed_dim: int, vocab_size: int, context_length: int, width: int, heads: int, layers: int
    ) -> None:
        super().__init__()
        self.vocab_size, self.context_length, self.output_dim = vocab_size, context_length, embed_dim
        self.tokens = nn.Embedding(vocab_size, width, padding_idx=0)
        self.positions = nn.Parameter(torch.randn(context_length, width) * 0.02)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.blocks = nn.ModuleList(EncoderLayer(width, heads) for _ in range(layers))
        self.projection = nn.Identity() if embed_dim == width else nn.Linear(width, embed_dim, bias=False)
        self.checkpointing = False

    def forward(self, tokens: Tensor) -> Tensor:
        """Features (N, D), not normalised."""
        kept = tokens != 0
        x = self.norm(self.tokens(tokens) + self.positions[: tokens.shape[1]])
        for block in self.blocks:
            if self.checkpointing and self.training:
                x = checkpoint(block, x, kept, use_reentrant=False)
            else:
                x = block(x, kept)
        weights = kept.to(x.dtype).unsqueeze(-1)
        return self.projection((x * weights).sum(1) / weights.sum(1).clamp(min=1))

    def lock(self, unlocked_layers: int = 0, freeze_layer_norm: bool = True) -> None:
        """Keep the encoder as it is, but for its last `unlocked_layers` and the projection (LiT)."""
        free = {id(p) for block in self.blocks[len(self.blocks) - unlocked_layers :] for p in block.parameters()}
        free |= {id(p) for p in self.projection.parameters()}
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(id(parameter) in free or (not freeze_layer_norm and "norm" in name))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute activations again in the backward pass instead of keeping them."""
        self.checkpointing = enable


class EncoderLayer(nn.Module):
    """One layer of BERT: attention, then two linear maps with GELU, each added and normalised afterwards."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.attention_norm, self.norm = nn.LayerNorm(width, eps=1e-12), nn.LayerNorm(width, eps=1e-12)

    def forward(self, x: Tensor, kept: Tensor) -> Tensor:
        """(N, L, W) to (N, L, W); nobody looks at a token that `kept` (N, L) has as False."""
        q, k, v = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=kept[:, None, None, :])
        x = self.attention_norm(x + self.out(seen.transpose(1, 2).flatten(2)))
        return self.norm(x + self.down(F.gelu(self.up(x))))


def from_bert(state: Mapping[str, Tensor], context_length: int) -> dict[str, Tensor]:
    """BERT's tensors (transformers' names) as those of a `SentenceEncoder`; the one segment is added to the positions.

    Raises:
        ValueError: a tensor is missing; names it.
    """
    prefix = "bert." if any(key.startswith("bert.") for key in state) else ""
    try:
        segment = state[f"{prefix}embeddings.token_type_embeddings.weight"][0]
        out = {
            "tokens.weight": state[f"{prefix}embeddings.word_embeddings.weight"],
            "positions": state[f"{prefix}embeddings.position_embeddings.weight"][:context_length] + segment,
            "norm.weight": state[f"{prefix}embeddings.LayerNorm.weight"],
            "norm.bias": state[f"{prefix}embeddings.LayerNorm.bias"],
        }
        number = 0
        while f"{prefix}encoder.layer.{number}.output.dense.weight" in state:
            for theirs, ours in _PARTS.items():
                for kind in ("weight", "bias"):
                    key = f"{prefix}encoder.layer.{number}.{theirs}.{kind}"
                    out[f"blocks.{number}.{ours}.{kind}"] = state[key]
            number += 1
    except KeyError as error:
        raise ValueError(f"these are not the weights of a BERT encoder: {error} is missing") from error
    return out


class WordPiece:
    """BERT's tokenizer: N strings to int64 (N, context length), padded with 0.

    Args:
        data: a `tokenizer.json` of the library `tokenizers`.
        context_length: tokens of a row, the first and the last token included; longer texts are cut.

    Raises:
        ModuleNotFoundError: `tokenizers` is not installed; names the extra.
        ValueError: the data is no such file.
    """

    def __init__(self, data: bytes, context_length: int) -> None:
        try:
            from tokenizers import Tokenizer
        except ModuleNotFoundError as error:
            message = "the tokenizer of a sentence encoder needs `pip install 'mobileclip2_lite[photos]'`"
            raise ModuleNotFoundError(message) from error

        self.data, self.context_length = data, context_length
        try:
            self._tokenizer = Tokenizer.from_str(data.decode("utf-8"))
        except Exception as error:  # the library raises bare Exceptions
            raise ValueError(f"not a {TOKENIZER_FILE} of the library tokenizers: {error}") from error
        self._tokenizer.enable_truncation(context_length)
        self._tokenizer.enable_padding(length=context_length, pad_id=0)

    @classmethod
    def beside(cls, folder: str | os.PathLike, context_length: int) -> WordPiece:
        """The tokenizer of a model folder.

        Raises:
            FileNotFoundError: the folder has none.
        """
        path = Path(folder) / TOKENIZER_FILE
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} does not exist: a model with a sentence encoder keeps its vocabulary there"
            )
        return cls(path.read_bytes(), context_length)

    def __call__(self, texts: str | Sequence[str]) -> torch.LongTensor:
        """Token ids (N, context length); one string is a batch of one."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        if not texts:
            return torch.zeros(0, self.context_length, dtype=torch.long)
        return torch.tensor([row.ids for row in self._tokenizer.encode_batch(texts)], dtype=torch.long)
