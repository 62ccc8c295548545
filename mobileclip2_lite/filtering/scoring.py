"""Scores of pairs: the cosine of image and text of one CLIP model, shard by shard, the same for any batch size.

Paper: Data Filtering Networks (arXiv 2309.17425) judge the web like this, and MobileCLIP2 (arXiv 2508.20691) is trained
on what they kept. Reads pair shards; writes one record a shard, from which a killed run goes on. Differs from embedding
for reinforcement in that an image is seen once, whole, by the scorer's own preprocess. Several texts score their mean.
Taught by notebooks/20_captioner_finetuning.ipynb.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mobileclip2_lite.models.embedded import Travelling
from mobileclip2_lite.models.loaded import GPU_PIECE, PIECE, Queue, autocast, inference
from mobileclip2_lite.shards.tars import count_lost
from mobileclip2_lite.shards.usable import Usable, usable

if TYPE_CHECKING:
    from torch import Tensor

    from mobileclip2_lite.models.loaded import LoadedModel

SCORES = ".scores.json"
"""End of the name of a scored shard's record."""
DIGITS = 6
"""Decimals of a score; pairs closer than that are ties."""


def describe(loaded: LoadedModel, name: str) -> dict:
    """What the manifest says of a scorer: its name's last part, SHA-256 over its tensors, and how it sees and reads."""
    from mobileclip2_lite.models.card import digest

    text = getattr(loaded.model, "model_cfg", {}).get("text_cfg", {})
    tokenizer = {key: text.get(key) for key in ("vocab_size", "context_length", "hf_tokenizer_name") if key in text}
    facts = {"name": Path(name).name, "sha256": digest(loaded.model)}
    return facts | {"preprocess": loaded.preprocess.to_config(), "tokenizer": tokenizer}


class Scored(NamedTuple):
    """The scores of one shard."""

    name: str
    places: list[int]
    """Which samples of the tar were scored, counted from 0."""
    uids: list[str]
    scores: np.ndarray
    """float64, rounded to `DIGITS` decimals."""
    dropped: dict[str, int]
    """Samples without a score, by reason."""

    @classmethod
    def of(cls, record: Mapping) -> Scored:
        """From the record of a shard."""
        return cls(**{**{key: record[key] for key in cls._fields}, "scores": np.array(record["scores"], np.float64)})


class ShardScorer:
    """Scores one shard after another; the passes' shape does not depend on the batch size (see `embedder`)."""

    def __init__(
        self,
        scorer: Travelling,
        pairs: Path,
        expected: Mapping[str, int | None],
        batch_size: int,
        precision: str = "fp32",
    ) -> None:
        self.loaded, self.pairs, self.expected, self.precision = scorer.here(), pairs, expected, precision
        self.device = next(self.loaded.model.parameters()).device
        piece = PIECE.get(self.device.type, GPU_PIECE)
        self.images, self.texts = (Queue(embed, piece, batch_size) for embed in (self._images, self._texts))

    def _images(self, images: list[np.ndarray]) -> Tensor:
        import torch

        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(self.device)
        return self._normal(self.loaded.model.encode_image, self.loaded.preprocess.normalize(pixels))

    def _texts(self, texts: list[str]) -> Tensor:
        from mobileclip2_lite.models.trimming import trim

        tokens = trim(self.loaded.model, self.loaded.tokenizer(texts)).to(self.device)
        return self._normal(self.loaded.model.encode_text, tokens)

    def _normal(self, encode: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
        import torch

        with inference(self.loaded.model), autocast(self.precision, self.device):
            return torch.nn.functional.normalize(encode(batch).float(), dim=-1).cpu()

    def __call__(self, target: Path) -> dict:
        """Score the shard of a name; the content of its record."""
        import torch

        name = target.name
        for queue in (self.images, self.texts):  # also after a shard that failed
            queue.items.clear()
            queue.rows.clear()
        dropped: Counter = Counter()
        places, uids, counts = [], [], []
        for item in usable(self.pairs / name, dropped, prepare=self.resized):
            places.append(item.index)
            uids.append(item.sample.uid)
            counts.append(len(item.sample.texts))
            self.images.push([item.prepared])
            self.texts.push(item.sample.texts)
        self.images.flush()
        self.texts.flush()
        scores = np.zeros(0)
        if uids:
            repeated = self.images.pop(len(uids)).repeat_interleave(torch.tensor(counts), dim=0)
            rows = (repeated * self.texts.pop(sum(counts))).double().sum(dim=1)
            scores = np.array([some.mean().item() for some in rows.split(counts)])
            scores = np.round(scores, DIGITS) + 0.0  # no minus zero
        if not np.isfinite(scores).all():
            raise ValueError(f"{self.pairs / name}: the scorer gives scores that are not finite; take another scorer")
        count_lost(dropped, self.expected[name], len(uids))
        lost = dict(sorted((+dropped).items()))
        return {"places": places, "uids": uids, "scores": scores.tolist(), "dropped": lost}

    def resized(self, item: Usable) -> np.ndarray:
        """The scorer's pixels (S, S, 3) of an image."""
        from PIL import Image

        return np.asarray(self.loaded.preprocess.resize(Image.fromarray(item.pixels)))
