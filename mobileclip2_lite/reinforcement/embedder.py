"""All teachers' embeddings of a stream of samples, the same whatever the batch size.

Paper: MobileCLIP (arXiv 2311.17049) section 4. Takes pixels and texts, gives rows; reads and writes no files.
Differs from the official generator, which forwards whatever a batch happens to hold and pads captions with empty
texts: here every pass has one shape. Taught by notebooks/00_start_here.ipynb.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from mobileclip2_lite.models.loaded import GPU_PIECE, PIECE, TEXT_PIECE, Queue
from mobileclip2_lite.shards.keys import IMAGE, TEXT, caption_key, embedding_key
from mobileclip2_lite.shards.samples import Sample
from mobileclip2_lite.work.memory import LARGE, give_back

if TYPE_CHECKING:
    from torch import Tensor

    from mobileclip2_lite.models.ensemble import TeacherEnsemble

FLOAT = 4
"""Bytes of a channel of a pixel in a forward pass."""


class Embedder:
    """All teachers' rows of a stream of samples, from forward passes of one fixed shape.

    Images and texts queue up per teacher, and leave in pieces of `PIECE` and `TEXT_PIECE`, counted from the start of
    the shard; only the last is padded. So a row's neighbours in its pass, and with them its bits, do not depend on the
    batch size.
    """

    def __init__(
        self, ensemble: TeacherEnsemble, batch_size: int, precision: str = "fp32", compile: bool = False
    ) -> None:
        import torch

        if precision not in ("fp32", "bf16"):
            raise ValueError(f"precision {precision!r} is not fp32 or bf16")
        self.ensemble, self.precision = ensemble, precision
        parameter = next(iter(ensemble.parameters()), None) if isinstance(ensemble, torch.nn.Module) else None
        self.device = parameter.device.type if parameter is not None else "cpu"
        piece, texts = PIECE.get(self.device, GPU_PIECE), TEXT_PIECE.get(self.device, GPU_PIECE)
        if isinstance(ensemble, torch.nn.Module):
            ensemble.eval().to(memory_format=torch.channels_last)
        embed_images = torch.compile(ensemble.embed_images) if compile else ensemble.embed_images
        self.queues = {}
        for name in ensemble.names:
            self.queues["image", name] = Queue(functools.partial(self._images, embed_images, name), piece, batch_size)
            self.queues["text", name] = Queue(functools.partial(self._texts, name), texts, batch_size)

    @property
    def dimensions(self) -> dict[str, int]:
        """Teacher -> dimension, of the teachers that have embedded something."""
        return {name: queue.width for (kind, name), queue in self.queues.items() if kind == "image" and queue.width}

    def _images(self, embed: Callable, name: str, images: list[np.ndarray]) -> Tensor:
        import torch

        pixels = np.stack(images)
        rows = self._pass(embed, name, torch.from_numpy(pixels).permute(0, 3, 1, 2))
        if self.device == "cpu" and pixels.size * FLOAT >= LARGE:
            give_back()
        return rows

    def _texts(self, name: str, texts: list[str]) -> Tensor:
        return self._pass(self.ensemble.embed_texts, name, texts)

    def _pass(self, embed: Callable, name: str, batch: Any) -> Tensor:
        import torch

        with torch.inference_mode(), torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16"):
            return embed(name, batch).float().cpu()

    def clear(self) -> None:
        """Forget everything: a shard's rows depend on that shard alone, also after one that failed."""
        for queue in self.queues.values():
            queue.items.clear()
            queue.rows.clear()
            queue.width = 0

    def push(self, sample: Sample, images: dict[str, list[np.ndarray]]) -> None:
        """Queue a sample's images and texts."""
        texts = [*sample.texts, *(text for name in sorted(sample.syn_texts) for text in sample.syn_texts[name])]
        for (kind, name), queue in self.queues.items():
            queue.push(images[name] if kind == "image" else texts)

    def ready(self, sample: Sample) -> bool:
        """Whether all rows of the sample, the oldest in the queues, are there."""
        texts = len(sample.texts) + sum(map(len, sample.syn_texts.values()))
        return all(
            len(queue.rows) >= (len(sample.views) if kind == "image" else texts)
            for (kind, _), queue in self.queues.items()
        )

    def pop(self, sample: Sample) -> dict[str, Tensor]:
        """The rows of the oldest sample, by the names of the sample's schema."""
        out = {}
        for (kind, name), queue in self.queues.items():
            if kind == "image":
                if sample.views:
                    out[embedding_key(IMAGE, name)] = queue.pop(len(sample.views))
                continue
            out[embedding_key(TEXT, name)] = queue.pop(len(sample.texts))
            for captioner in sorted(sample.syn_texts):
                if sample.syn_texts[captioner]:
                    key = embedding_key(caption_key(captioner), name)
                    out[key] = queue.pop(len(sample.syn_texts[captioner]))
        return out

    def flush(self) -> None:
        """Embed what is left, padded."""
        for queue in self.queues.values():
            queue.flush()
