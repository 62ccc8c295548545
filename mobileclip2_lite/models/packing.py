"""Texts of different lengths through a causal text tower, without work on padding or on tokens that nobody reads.

Ours; the numbers are those of `model.encode_text`. Everything in a text tower but attention works on single tokens, so
the tokens of all texts are laid one after another, and only attention sees texts: those of about one length together.
Texts are cut where they end, because in a causal tower no token sees a later one; and of the last block only the end
token is computed, because the feature is read from there. Taught by notebooks/50_architecture_and_latency.ipynb.
"""

from __future__ import annotations

import torch
from open_clip.transformer import ResidualAttentionBlock, TextTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from mobileclip2_lite.models.trimming import is_trimmable, text_lengths, trim

ROUNDED = 4
"""Texts are padded to a multiple of so many tokens: fewer different lengths, fewer calls."""


def is_packable(model: nn.Module) -> bool:
    """Whether the text tower is open_clip's plain causal transformer, with the feature at the end token."""
    text = getattr(model, "text", None)
    if not is_trimmable(model) or getattr(text, "attn_mask", None) is None or getattr(text, "use_pad_mask", False):
        return False
    blocks = text.transformer.resblocks
    plain = all(type(block) is ResidualAttentionBlock and not hasattr(block, "ln_1_kv") for block in blocks)
    return plain and text.transformer.batch_first and all(block.attn.dropout == 0 for block in blocks)


def encode_text(model: nn.Module, tokens: Tensor, normalize: bool = False) -> Tensor:
    """Text features (N, D) as from `model.encode_text`, in the way that costs this tower and device least.

    On a GPU texts are only cut to the longest: to look at each one's length it would have to wait.
    """
    if tokens.device.type == "cpu" and is_packable(model):
        return encode_packed(model, tokens, normalize)
    return model.encode_text(trim(model, tokens), normalize=normalize)


def encode_packed(model: nn.Module, tokens: Tensor, normalize: bool = False) -> Tensor:
    """Text features (N, D) as from `model.encode_text`, for a model that `is_packable`.

    Args:
        tokens: int64 (N, L), padded with zeros.
        normalize: whether features have length 1.
    """
    text = model.text
    order, groups = by_length(tokens)
    places = torch.cat([torch.arange(group.shape[1]).repeat(len(group)) for group in groups])
    ids = torch.cat([group.flatten() for group in groups])
    shapes, ends = [group.shape for group in groups], [end_tokens(text, group) for group in groups]
    starts = torch.tensor([0] + [count * length for count, length in shapes]).cumsum(0)
    kept = torch.cat(
        [
            start + torch.arange(count) * length + end
            for start, (count, length), end in zip(starts, shapes, ends, strict=False)
        ]
    )
    x = text.token_embedding(ids) + text.positional_embedding[places]
    *blocks, last = text.transformer.resblocks
    for block in blocks:
        x = x + block.ls_1(_attention(block.attn, block.ln_1(x), shapes))
        x = x + block.ls_2(block.mlp(block.ln_2(x)))
    x = x[kept] + last.ls_1(_attention_of_ends(last.attn, last.ln_1(x), kept, shapes, ends))
    x = text.ln_final(x + last.ls_2(last.mlp(last.ln_2(x))))
    projection = text.text_projection
    if projection is not None:
        x = projection(x) if isinstance(projection, nn.Linear) else x @ projection
    x = x[order.argsort()]
    return F.normalize(x, dim=-1) if normalize else x


def by_length(tokens: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The order of the texts by length, and in it their tokens in groups (n, l) of one rounded length l."""
    lengths = (
        (text_lengths(tokens) + ROUNDED - 1).div(ROUNDED, rounding_mode="floor").mul(ROUNDED).clamp(max=tokens.shape[1])
    )
    order = lengths.argsort(stable=True)
    found, counts = lengths[order].unique_consecutive(return_counts=True)
    rows = order.split(counts.tolist())
    return order, [tokens[own, :length] for own, length in zip(rows, found.tolist(), strict=True)]


def end_tokens(text: TextTransformer, tokens: Tensor) -> Tensor:
    """(N,) place of the token whose feature is the text's, as the tower's `pool_type` says (N, L)."""
    return (tokens == text.eos_id).int().argmax(-1) if text.pool_type == "eos" else tokens.argmax(-1)


def _attention(attention: nn.MultiheadAttention, x: Tensor, shapes: list[torch.Size]) -> Tensor:
    """Causal self-attention within each text: rows (T, D) in, rows out."""
    heads, width = attention.num_heads, attention.head_dim
    qkv = F.linear(x, attention.in_proj_weight, attention.in_proj_bias)
    out = []
    for rows, (count, length) in zip(qkv.split([n * m for n, m in shapes]), shapes, strict=True):
        q, k, v = rows.view(count, length, 3, heads, width).permute(2, 0, 3, 1, 4).flatten(1, 2)
        later = torch.full((length, length), -torch.inf, dtype=q.dtype).triu(1)
        mixed = torch.bmm(torch.baddbmm(later, q, k.mT, alpha=width**-0.5).softmax(-1), v)
        out.append(mixed.view(count, heads, length, width).transpose(1, 2).reshape(count * length, -1))
    return attention.out_proj(torch.cat(out))


def _attention_of_ends(
    attention: nn.MultiheadAttention, x: Tensor, kept: Tensor, shapes: list[torch.Size], ends: list[Tensor]
) -> Tensor:
    """What the end token of each text takes from its text: rows (T, D) in, (N, D) out; `kept` are the ends' rows."""
    heads, width, size = attention.num_heads, attention.head_dim, attention.embed_dim
    weight, bias = attention.in_proj_weight.split([size, 2 * size]), attention.in_proj_bias.split([size, 2 * size])
    queries, keys = F.linear(x[kept], weight[0], bias[0]), F.linear(x, weight[1], bias[1])
    out = []
    counts, lengths = [count for count, _ in shapes], [length for _, length in shapes]
    pieces = zip(queries.split(counts), keys.split([n * m for n, m in shapes]), ends, lengths, strict=True)
    for q, rows, end, length in pieces:
        count = len(q)
        k, v = rows.view(count, length, 2, heads, width).permute(2, 0, 3, 1, 4).flatten(1, 2)
        later = torch.where(torch.arange(length) > end[:, None], -torch.inf, 0.0).to(q.dtype)
        later = later.repeat_interleave(heads, dim=0)[:, None]
        weights = torch.baddbmm(later, q.view(count * heads, 1, width), k.mT, alpha=width**-0.5).softmax(-1)
        out.append(torch.bmm(weights, v).view(count, -1))
    return attention.out_proj(torch.cat(out))
