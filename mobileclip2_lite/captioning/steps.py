"""A captioner writing many captions at once, one token of each at a time, and nothing computed twice.

Paper: MobileCLIP2 (arXiv 2508.20691) captions with CoCa (arXiv 2205.01917). Takes image tokens and token ids, gives
logits; reads and writes no files. Differs from open_clip's `CoCa.generate`, which forwards both text stacks over the
whole caption for every new token, and each image once a caption: keys and values of earlier tokens are kept here, those
of an image are computed once and shared by all its captions, only the newest token is projected onto the vocabulary,
and the class token, which no other token sees, is left away. Taught by notebooks/20_captioner_finetuning.ipynb.

Shapes: B images, n captions each, R rows (captions that are still written), Q image tokens, t tokens so far, W the
decoder's width, H heads, D = W / H, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROWS, ALIGNED = 16, 4
"""Rows are padded to at least the first and to a multiple of the second. For few rows matrix libraries take other
kernels, which round differently: for fewer than four on AMD, than sixteen on Intel (docs/lab_log.md)."""


def check_causal(model: nn.Module) -> None:
    """Raise ValueError unless the text tower is open_clip's causal transformer of plain blocks, which can be cached."""
    text = getattr(model, "text", None)
    blocks = getattr(getattr(text, "transformer", None), "resblocks", ())
    if not blocks or text.attn_mask is None or not all(isinstance(b.attn, nn.MultiheadAttention) for b in blocks):
        raise ValueError(
            "captions are written token by token, which needs open_clip's own causal text tower; this model has "
            f"{type(text).__name__}: name a CoCa model such as coca_ViT-L-14"
        )


class CaptionSteps:
    """The captions of a group of images, from their start token on; every call of `step` adds a token to each row.

    Args:
        model: open_clip's CoCa, in eval mode (`check_causal`).
        images: image tokens (B, Q, W).
        captions: n; row `i * n + c` is caption c of image i.
        length: most tokens of a caption.
    """

    def __init__(self, model: nn.Module, images: Tensor, captions: int, length: int) -> None:
        self.text, self.decoder, self.captions, self.length = model.text, model.text_decoder, captions, length
        self.time, self.rows = 0, len(images) * captions
        self.slots = torch.arange(_padded(self.rows), device=images.device).clamp_(max=self.rows - 1)
        self.looked_at = [_keys_values(block, images) for block in self.decoder.cross_attn]
        self.written: list[Tensor] = []

    def step(self, tokens: Tensor) -> Tensor:
        """Logits (R, V), fp32, of what follows `tokens` (R,), the newest token of every row."""
        x = self.text.token_embedding(self._pad(tokens)) + self.text.positional_embedding[self.time]
        layers = iter(range(len(self.text.transformer.resblocks) + len(self.decoder.resblocks)))
        for block in self.text.transformer.resblocks:
            x = self._own(block, next(layers), x)
        for block, cross, image in zip(self.decoder.resblocks, self.decoder.cross_attn, self.looked_at, strict=True):
            x = self._cross(cross, image, self._own(block, next(layers), x))
        self.time += 1
        return (self.decoder.ln_final(x) @ self.decoder.text_projection)[: self.rows].float()

    def keep(self, rows: Tensor) -> None:
        """Go on with `rows` alone, indices into the present ones in rising order; the others' captions are finished."""
        self.rows, rows = len(rows), self._pad(rows, _padded(len(rows)))
        self._take(rows)
        slots = self.slots[rows]
        left, images = (slots // self.captions).unique_consecutive(return_inverse=True)
        if len(left) < len(self.looked_at[0][0]):
            self.looked_at = [(keys[left], values[left]) for keys, values in self.looked_at]
        self.slots = images * self.captions + slots % self.captions

    def follow(self, parents: Tensor) -> None:
        """Let row r go on from what row `parents[r]`, of the same image, has written: beams."""
        self._take(self._pad(parents))

    def _take(self, rows: Tensor) -> None:
        for layer, old in enumerate(self.written):
            new = old.new_empty(2, len(rows), *old.shape[2:])
            new[:, :, : self.time] = old[:, rows, : self.time]
            self.written[layer] = new

    def _pad(self, values: Tensor, rows: int | None = None) -> Tensor:
        """`values` with its last repeated up to `rows`."""
        rest = (len(self.slots) if rows is None else rows) - len(values)
        return torch.cat([values, values[-1:].expand(rest)]) if rest else values

    def _own(self, block: nn.Module, layer: int, x: Tensor) -> Tensor:
        """A block of causal self-attention over (rows, W), whose keys and values are kept."""
        attention, rows, width = block.attn, *x.shape
        query, *new = F.linear(block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias).chunk(3, -1)
        if layer == len(self.written):
            self.written.append(query.new_empty(2, rows, self.length, width))
        cache = self.written[layer]
        cache[0, :, self.time], cache[1, :, self.time] = new
        keys, values = (_heads(part[:, : self.time + 1], attention.num_heads) for part in cache)
        out = F.scaled_dot_product_attention(_heads(query[:, None], attention.num_heads), keys, values)
        return _rest(block, x, out.reshape(rows, width))

    def _cross(self, block: nn.Module, image: tuple[Tensor, Tensor], x: Tensor) -> Tensor:
        """A block of attention to the image; all captions of an image are queries to its one set of keys and values."""
        attention, (keys, values), width = block.attn, image, x.shape[1]
        query = F.linear(block.ln_1(x), attention.in_proj_weight[:width], attention.in_proj_bias[:width])
        seats = query.new_zeros(len(keys) * self.captions, width)
        seats[self.slots] = query
        seats = _heads(seats.view(len(keys), self.captions, width), attention.num_heads)
        out = F.scaled_dot_product_attention(seats, keys, values)
        return _rest(block, x, out.transpose(1, 2).reshape(-1, width)[self.slots])


def _padded(rows: int) -> int:
    return max(ROWS, -(-rows // ALIGNED) * ALIGNED)


def _heads(x: Tensor, heads: int) -> Tensor:
    """(N, t, W) as (N, H, t, D)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _keys_values(block: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """What a cross-attention block makes of image tokens (B, Q, W): keys and values, (B, H, Q, D) each."""
    attention, width = block.attn, images.shape[-1]
    both = F.linear(block.ln_1_kv(images), attention.in_proj_weight[width:], attention.in_proj_bias[width:])
    keys, values = (_heads(part, attention.num_heads).contiguous() for part in both.chunk(2, -1))
    return keys, values


def _rest(block: nn.Module, x: Tensor, attended: Tensor) -> Tensor:
    """The rest of open_clip's ResidualAttentionBlock, after the attention."""
    x = x + block.ls_1(block.attn.out_proj(attended))
    return x + block.ls_2(block.mlp(block.ln_2(x)))
