"""A loaded model and how it embeds: images and texts to unit features, in passes of one shape, in one precision.

A model never travels without its preprocess and tokenizer (`LoadedModel`). `Queue` gives every forward pass the same
number of items, because libraries for matrices round differently at other shapes and stored rows must not depend on
the batch size.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from mobileclip2_lite.models.preprocess import Preprocess

PIECE = {"cpu": 32}
"""Images or texts in one forward pass, always padded to this number: libraries for matrices round differently at other
shapes, so a shape that depended on the settings would make the stored bytes depend on them."""

TEXT_PIECE = {"cpu": 128}
"""Texts in one forward pass: more than images, so that those of one length come together (models/packing.py)."""

GPU_PIECE = 256


class Queue:
    """Items of one teacher waiting for a forward pass, and the rows that came out of it."""

    def __init__(self, embed: Callable[[list], Tensor], piece: int, batch_size: int) -> None:
        self.embed, self.piece, self.batch_size = embed, piece, max(piece, batch_size)
        self.items: list = []
        self.rows: deque = deque()
        self.width = 0

    def push(self, items: Sequence) -> None:
        """Add items; with `batch_size` of them, embed all whole pieces."""
        self.items += items
        if len(self.items) >= self.batch_size:
            self._run(len(self.items) // self.piece)

    def flush(self) -> None:
        """Embed all items; the last piece is filled up with copies of its last item."""
        if self.items:
            count = len(self.items)
            rest = -count % self.piece
            self.items += [self.items[-1]] * rest
            self._run(len(self.items) // self.piece)
            for _ in range(rest):
                self.rows.pop()

    def _run(self, pieces: int) -> None:
        for _ in range(pieces):
            piece, self.items = self.items[: self.piece], self.items[self.piece :]
            rows = self.embed(piece)
            if rows.ndim != 2 or len(rows) != self.piece:
                raise ValueError(f"a teacher gave rows of shape {tuple(rows.shape)} for {self.piece} items")
            self.width = rows.shape[1]
            self.rows.extend(rows.unbind())

    def pop(self, count: int) -> Tensor:
        """The oldest `count` rows as (count, D)."""
        return torch.stack([self.rows.popleft() for _ in range(count)])


@contextlib.contextmanager
def inference(model: torch.nn.Module) -> Iterator[torch.device]:
    """Evaluation mode without gradients; the training mode that was is put back. Yields the model's device."""
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield next(model.parameters()).device
    finally:
        model.train(training)


def parameter_count(module: nn.Module) -> int:
    """Numbers that a module learns, or has learned."""
    return sum(parameter.numel() for parameter in module.parameters())


def batches(items: Iterable[Any], size: int) -> Iterator[list]:
    """Lists of `size` items; the last may be shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def encode_images(loaded: LoadedModel, images: Iterable[Any], batch_size: int = 256) -> Tensor:
    """Image features (N, D), L2-normalised float32 on the CPU.

    Args:
        loaded: model, preprocess and tokenizer together.
        images: PIL images or uint8 arrays (H, W, 3), in any number: they are taken a batch at a time.
        batch_size: images a forward pass; it does not change the result.

    Raises:
        ValueError: `images` is empty; BadImage: one of them cannot be read.
    """
    from mobileclip2_lite.views.images import read_image

    def pixels(image: Any) -> Tensor:
        return torch.from_numpy(np.array(loaded.preprocess.resize(read_image(image)))).permute(2, 0, 1)

    features = []
    with inference(loaded.model) as device:
        for batch in batches(images, batch_size):
            normalised = loaded.preprocess.normalize(torch.stack([pixels(image) for image in batch])).to(device)
            features.append(loaded.model.encode_image(normalised, normalize=True).float().cpu())
    if not features:
        raise ValueError("encode_images was given no image")
    return torch.cat(features)


def encode_texts(loaded: LoadedModel, texts: Iterable[str], batch_size: int = 256) -> Tensor:
    """Text features (N, D), L2-normalised float32 on the CPU; a text that occurs twice is encoded once.

    Texts go in order of length, so that a batch is cut to its own longest text where the tower allows it exactly.

    Raises:
        ValueError: `texts` is empty, or is one string.
    """
    from mobileclip2_lite.models.packing import encode_text

    texts = many(texts, "texts")
    if not texts:
        raise ValueError("encode_texts was given no text")
    unique = sorted(dict.fromkeys(texts), key=len)
    features = []
    with inference(loaded.model) as device:
        for batch in batches(unique, batch_size):
            tokens = loaded.tokenizer(batch).to(device)
            features.append(encode_text(loaded.model, tokens, normalize=True).float().cpu())
    row = {text: index for index, text in enumerate(unique)}
    return torch.cat(features)[[row[text] for text in texts]]


def many(texts: Iterable[str], what: str) -> list[str]:
    """`texts` as a list.

    Raises:
        ValueError: it is one string, whose characters would each be taken for a text, or holds something else.
    """
    if isinstance(texts, (str, bytes)):
        raise ValueError(f"{what} is one string, {texts[:40]!r}: give a list of strings, [{texts[:40]!r}]")
    texts = list(texts)
    if wrong := next((text for text in texts if not isinstance(text, str)), None):
        raise ValueError(f"{what} holds {wrong!r:.80}, which is no string: give a list of strings")
    return texts


class LoadedModel(NamedTuple):
    """A model with what it needs to be used: never pass one on without the others."""

    model: nn.Module
    """`encode_image(x, normalize=False)`, `encode_text(tokens, normalize=False)`, `logit_scale` (log), `logit_bias`."""
    preprocess: Preprocess
    """PIL image to float32 (3, S, S)."""
    tokenizer: Callable[[list[str]], torch.LongTensor]
    """N strings to int64 (N, context length)."""


Features = TypeVar("Features", Tensor, np.ndarray)


def first_dimensions(features: Features, dimensions: int, normalize: bool = True) -> Features:
    """Embeddings (N, D) cut to their first dimensions: (N, dimensions), rows of length 1 again unless told otherwise.

    Every cut is made here: in the nested loss, in measures, in a search index (Matryoshka, arXiv 2205.13147).

    Raises:
        ValueError: the embeddings do not have so many dimensions.
    """
    if not 0 < dimensions <= features.shape[1]:
        raise ValueError(f"{dimensions} dimensions of embeddings that have {features.shape[1]}: name 1 to that many")
    kept = features[:, :dimensions]
    if not normalize:
        return kept
    if isinstance(kept, np.ndarray):
        return kept / np.maximum(np.linalg.norm(kept, axis=1, keepdims=True), 1e-12)
    return nn.functional.normalize(kept, dim=-1)


class FirstDimensions(nn.Module):
    """A model whose embeddings keep their first dimensions alone (Matryoshka, arXiv 2205.13147).

    Args:
        model: with `encode_image`, `encode_text`, `logit_scale` and `logit_bias`.
        dimensions: how many are kept.
    """

    def __init__(self, model: nn.Module, dimensions: int) -> None:
        super().__init__()
        self.model, self.dimensions = model, dimensions

    def encode_image(self, images: Tensor, normalize: bool = False) -> Tensor:
        """The model's image features, cut: (B, dimensions).

        Raises:
            ValueError: the embeddings do not have so many.
        """
        return first_dimensions(self.model.encode_image(images, normalize=normalize), self.dimensions, normalize)

    def encode_text(self, tokens: Tensor, normalize: bool = False) -> Tensor:
        """The model's text features, cut: (B, dimensions); raises as `encode_image`."""
        from mobileclip2_lite.models.packing import encode_text

        return first_dimensions(encode_text(self.model, tokens, normalize), self.dimensions, normalize)


DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Autocast type of each precision."""


def usable_precision(precision: str, device: torch.device) -> str:
    """`precision`, or `fp32` for `bf16` on a CPU without bf16 instructions, where emulating them is many times slower.

    Raises:
        ValueError: `precision` is unknown.
    """
    if precision not in DTYPES:
        raise ValueError(f"precision {precision!r} is unknown: one of {', '.join(DTYPES)}")
    if precision == "bf16" and device.type == "cpu" and not cpu_has_bf16():
        return "fp32"
    return precision


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies in bf16 (AVX512-BF16 or AMX), as far as torch says."""
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(check is not None and check() for check in checks)


@contextlib.contextmanager
def autocast(precision: str, device: torch.device) -> Iterator[None]:
    """Run matrix products in `bf16` or `fp16`, or everything in `fp32`."""
    dtype = DTYPES[precision]
    with torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None, cache_enabled=True):
        yield


@contextlib.contextmanager
def attention(precision: str, device: torch.device, tokens: int) -> Iterator[None]:
    """Take torch's plain attention where its fused one is the slower.

    That is on a CPU, in bf16, for short sequences: there the fused backward pass takes 2 to 10 times as long
    (docs/lab_log.md).
    """
    if device.type == "cpu" and precision == "bf16" and tokens <= 128:
        from torch.nn.attention import SDPBackend, sdpa_kernel

        with sdpa_kernel(SDPBackend.MATH):
            yield
    else:
        yield
