"""Captioners: CoCa models, open_clip's and the lite one, in the parts that training and generation need.

Paper: MobileCLIP2 (arXiv 2508.20691) captions with CoCa ViT-L/14 (arXiv 2205.01917): an image tower that gives tokens,
a causal text tower, and a decoder whose every layer also looks at the image. All are open_clip's classes; the lite one
has a convolutional image tower in place of the transformer. Differs from open_clip's forward pass in work, not in
result: token rows may be cut to the longest text. Taught by notebooks/20_captioner_finetuning.ipynb.

Shapes: B images or texts, E embedding dimension, Q image tokens, T text tokens, W the decoder's width, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mobileclip2_lite.models.trimming import text_lengths

if TYPE_CHECKING:
    from mobileclip2_lite.models.loaded import LoadedModel


def is_captioner(model: nn.Module) -> bool:
    """Whether a model can write: it has a text decoder."""
    return getattr(model, "text_decoder", None) is not None


def special_tokens(loaded: LoadedModel) -> tuple[int, int, int]:
    """Ids of start of text, end of text, padding."""
    tokenizer = loaded.tokenizer
    return int(tokenizer.sot_token_id), int(tokenizer.eot_token_id), int(loaded.model.pad_id)


def image_states(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Embedding (B, E), not normalised, and tokens (B, Q, W) of normalised images (B, 3, S, S)."""
    return model.visual(images)


def text_states(model: nn.Module, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Embedding (B, E), not normalised, and token states (B, T, W), equal to open_clip's at the full context.

    Args:
        tokens: int64 (B, context), or cut to T columns of which the last may only hold padding: the class token, which
            open_clip puts after the context's last place, keeps the position and the mask that it has there.
    """
    text = model.text
    length, context = tokens.shape[1], text.context_length
    x = torch.cat([text.token_embedding(tokens), text.cls_emb.expand(len(tokens), 1, -1)], 1)
    x = x + torch.cat([text.positional_embedding[:length], text.positional_embedding[context:]])
    x = text.transformer(x, attn_mask=_mask(text, tokens, x.dtype))
    pooled = text.ln_final(x[:, -1])
    projection = text.text_projection
    if projection is not None:
        pooled = projection(pooled) if isinstance(projection, nn.Linear) else pooled @ projection
    return pooled, x[:, :-1]


def _mask(text: nn.Module, tokens: Tensor, dtype: torch.dtype) -> Tensor:
    """open_clip's additive mask (B * heads, T + 1, T + 1): causal, and no looking at padding.

    In the published weights the mask of padding stands one place too far right: the first padding token is seen, the
    class token does not see itself unless the text fills the context. Weights trained that way need it that way.
    """
    length = tokens.shape[1]
    seen = tokens != text.pad_id
    if text.correct_cls_mask:
        keys = torch.cat([seen, seen.new_ones(len(tokens), 1)], 1)
    else:
        keys = torch.cat([seen.new_ones(len(tokens), 1), seen], 1)
        if length < text.context_length:
            keys[:, -1] = False
    causal = torch.ones(length + 1, length + 1, dtype=torch.bool, device=tokens.device).tril()
    allowed = keys[:, None, :] & causal
    mask = torch.zeros(allowed.shape, dtype=dtype, device=tokens.device).masked_fill_(~allowed, float("-inf"))
    return mask.repeat_interleave(text.heads, 0)


def cut(tokens: Tensor, pad: int) -> Tensor:
    """Token rows (B, context) cut to the longest text and one padding, which is all that `text_states` looks at."""
    longest = int(text_lengths(tokens, pad).max()) if len(tokens) else 0
    return tokens[:, : longest + 1]


def decode(model: nn.Module, images: Tensor, texts: Tensor) -> Tensor:
    """Decoder states (B, T, W) of image tokens (B, Q, W) and text token states (B, T, W), after the last norm."""
    decoder = model.text_decoder
    mask = decoder.attn_mask[: texts.shape[1], : texts.shape[1]]
    for own, cross in zip(decoder.resblocks, decoder.cross_attn, strict=True):
        texts = own(texts, attn_mask=mask)
        texts = cross(texts, k_x=images, v_x=images)
    return decoder.ln_final(texts)


def next_token_logits(model: nn.Module, images: Tensor, texts: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (n, V) and targets (n,) of all tokens that follow another and are not padding.

    Args:
        images: image tokens (B, Q, W).
        texts: text token states (B, T, W).
        tokens: (B, T) token ids.
    """
    targets = tokens[:, 1:]
    written = targets != model.pad_id
    hidden = decode(model, images, texts[:, :-1])
    return hidden[written] @ model.text_decoder.text_projection, targets[written]
