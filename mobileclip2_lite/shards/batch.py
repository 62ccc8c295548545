"""What a training step is given: a batch of samples as tensors and lists.

Made from what `sample_reader` read; on which device it is used is the step's affair.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from mobileclip2_lite.shards.sample_reader import Item, SampleReader
from mobileclip2_lite.work.randomness import pick

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Batch:
    """What a training step needs. Images are uint8 and not normalised: (x / 255 - mean) / std is the model's."""

    uids: list[str]
    images: Tensor
    """uint8 (B, 3, S, S)"""
    texts: list[str]
    syn_texts: list[str] | None
    image_embeddings: dict[str, Tensor]
    """teacher -> float32 (B, D), of the very view in `images`"""
    text_embeddings: dict[str, Tensor]
    """teacher -> float32 (B, D)"""
    syn_text_embeddings: dict[str, Tensor] | None
    dropped: dict[str, int] = field(default_factory=dict)
    """Samples of this batch that could not be used, by reason."""
    image_ids: Tensor | None = None
    """int64 (B,), equal where two samples hold the same image; None where that is not known."""


def collate(items: list[Item], images: np.ndarray, reader: SampleReader, dropped: Mapping[str, int]) -> Batch:
    """Put samples that `reader` has read together with their images, uint8 (B, S, S, 3)."""
    import torch

    def rows(kind: str) -> dict[str, Tensor]:
        return {t: torch.from_numpy(np.stack([item.rows[kind, t] for item in items])) for t in reader.teachers if items}

    captions = [item.text if item.caption is None else item.caption[2] for item in items]
    alone = reader.texts != "sum"  # the captions are the batch's only texts
    return Batch(
        uids=[item.uid for item in items],
        images=torch.from_numpy(images).permute(0, 3, 1, 2),
        texts=captions if alone else [item.text for item in items],
        syn_texts=captions if reader.captioners and not alone else None,
        image_embeddings=rows("image"),
        text_embeddings=rows("syn_text" if alone else "text"),
        syn_text_embeddings=rows("syn_text") if reader.captioners and not alone else None,
        dropped=dict(dropped),
        image_ids=torch.tensor([pick(1 << 62, "image", item.image) for item in items], dtype=torch.long),
    )
