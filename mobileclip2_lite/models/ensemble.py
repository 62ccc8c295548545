"""An ensemble of teachers: CLIP models, each with its own input size, normalisation, tokenizer, type and logit scale.

Paper: MobileCLIP2's section on teachers. Embeddings go by the teacher's name, never by position, and a teacher stays
frozen and in eval mode whatever is asked. Differs from the official generator, which feeds all teachers from one
preprocess. `teachers` loads and saves them. Taught by notebooks/10_teacher_ensemble.ipynb.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobileclip2_lite.models.card import TeacherCard, digest
from mobileclip2_lite.models.loaded import DTYPES, LoadedModel, autocast, many
from mobileclip2_lite.models.packing import encode_text
from mobileclip2_lite.models.tokenizer import tokenizer_settings


@dataclass(frozen=True)
class Teacher:
    """What defines one teacher."""

    name: str
    """How its embeddings are called; `model@pretrained` by convention."""
    model: str
    """Name or path for `create_model`."""
    pretrained: str | None = None
    """Tag, file or folder for `create_model`."""
    logit_scale: float | None = None
    """Inverse temperature of its targets; None takes its card's or its own learned one, which is cut at 100 unless the
    teacher has a logit bias, which was learned together with it."""
    dtype: str = "fp32"
    """`fp32`, or `bf16` or `fp16` autocast."""


class TeacherEnsemble(nn.Module):
    """Frozen teachers, always in eval mode, moved and saved together.

    Args:
        teachers: definitions, one a name.
        loaded: the models, in the same order.
        cards: what is known of each beside its definition (`sha256`, `logit_scale`, `source`, ...).

    Raises:
        ValueError: no teacher, a name twice, an unknown dtype, or a logit scale that is not a positive number.
    """

    def __init__(
        self, teachers: Sequence[Teacher], loaded: Sequence[LoadedModel], cards: Sequence[dict[str, Any]] = ()
    ) -> None:
        super().__init__()
        self.names = tuple(teacher.name for teacher in teachers)
        if not teachers or len(set(self.names)) != len(self.names) or len(loaded) != len(teachers):
            raise ValueError(f"an ensemble needs teachers of different names, one model each: {self.names}")
        self.models = nn.ModuleList(item.model for item in loaded)
        self.teachers = dict(zip(self.names, teachers, strict=True))
        self.preprocesses = {name: item.preprocess for name, item in zip(self.names, loaded, strict=True)}
        self.tokenizers = {name: item.tokenizer for name, item in zip(self.names, loaded, strict=True)}
        self.given = dict(zip(self.names, cards or [{}] * len(teachers), strict=True))
        self.logit_biases = {name: self._bias(name) for name in self.names}
        self.logit_scales = {name: self._scale(name, self.given[name]) for name in self.names}
        for name in self.names:
            if self.teachers[name].dtype not in DTYPES:
                raise ValueError(f"teacher {name}: dtype {self.teachers[name].dtype!r} is not one of {sorted(DTYPES)}")
        self.cards = {name: self._card(name, self.given[name]) for name in self.names}
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> TeacherEnsemble:
        """Stay in eval mode, whatever is asked: a teacher's batch norm must never see a batch's statistics."""
        return super().train(False)

    def loaded(self, name: str) -> LoadedModel:
        """One teacher as `create_model` gives it (the same module, not a copy)."""
        return LoadedModel(self._model(name), self.preprocesses[name], self.tokenizers[name])

    def image_size(self, name: str) -> int:
        """Side of the images that `embed_images` takes, in pixels."""
        self._model(name)
        return self.preprocesses[name].image_size

    def interpolation(self, name: str) -> str:
        """How images should be resized to that side."""
        self._model(name)
        return self.preprocesses[name].interpolation

    @torch.no_grad()
    def embed_images(self, name: str, images: Tensor) -> Tensor:
        """uint8 (N, 3, S, S) at the teacher's own size to L2-normalised float32 (N, D), on the teacher's device.

        Raises:
            KeyError: no teacher of that name.
            ValueError: the images are not uint8 or of another size.
        """
        model, size = self._model(name), self.image_size(name)
        if images.dtype != torch.uint8 or images.ndim != 4 or tuple(images.shape[1:]) != (3, size, size):
            raise ValueError(
                f"teacher {name} takes uint8 images (N, 3, {size}, {size}), not {images.dtype} {tuple(images.shape)}"
            )
        pixels = self.preprocesses[name].normalize(images.to(self._device(model)))
        with self._autocast(name, pixels.device):
            features = model.encode_image(pixels)
        return F.normalize(features.float(), dim=-1)

    @torch.no_grad()
    def embed_texts(self, name: str, texts: Sequence[str]) -> Tensor:
        """N texts to L2-normalised float32 (N, D), on the teacher's device; no text gives (0, D).

        Raises:
            KeyError: no teacher of that name.
            ValueError: `texts` is one string.
        """
        model, texts = self._model(name), many(texts, "texts")
        device = self._device(model)
        if not texts:
            return torch.zeros(0, self.cards[name].dimension, device=device)
        tokens = self.tokenizers[name](texts).to(device)
        with self._autocast(name, device):
            features = encode_text(model, tokens)
        return F.normalize(features.float(), dim=-1)

    def logits(self, name: str, images: Tensor, texts: Tensor) -> Tensor:
        """A teacher's logits (N, M) of embeddings (N, D) and (M, D): scale times cosine, plus a bias if it has one."""
        return self.logit_scales[name] * images @ texts.T + (self.logit_biases[name] or 0.0)

    def _model(self, name: str) -> nn.Module:
        if name not in self.names:
            raise KeyError(f"no teacher {name!r}; there are {', '.join(self.names)}")
        return self.models[self.names.index(name)]

    @staticmethod
    def _device(model: nn.Module) -> torch.device:
        return next(model.parameters()).device

    def _autocast(self, name: str, device: torch.device) -> contextlib.AbstractContextManager:
        """The teacher's own type; with `fp32` that of who asks, as reinforcement in `bf16` does."""
        dtype = self.teachers[name].dtype
        return contextlib.nullcontext() if DTYPES[dtype] is None else autocast(dtype, device)

    def _scale(self, name: str, card: dict[str, Any]) -> float:
        scale = self.teachers[name].logit_scale or card.get("logit_scale")
        if scale is None:
            scale = float(self._model(name).logit_scale.detach().exp().max())
            scale = scale if self.logit_biases[name] is not None else min(100.0, scale)
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"teacher {name}: logit scale {scale} is not a positive number")
        return float(scale)

    def _bias(self, name: str) -> float | None:
        bias = getattr(self._model(name), "logit_bias", None)
        return None if bias is None else float(bias.detach().reshape(-1)[0])

    def _card(self, name: str, card: dict[str, Any]) -> TeacherCard:
        """What a manifest needs to know of a teacher."""
        model, preprocess = self._model(name), self.preprocesses[name]
        text = getattr(model, "model_cfg", {}).get("text_cfg", {})
        always = {key: text.get(key) for key in ("vocab_size", "context_length", "hf_tokenizer_name")}
        return TeacherCard(
            name,
            logit_scale=self.logit_scales[name],
            logit_bias=self.logit_biases[name],
            dimension=getattr(model, "model_cfg", {}).get("embed_dim"),
            image_size=preprocess.image_size,
            interpolation=preprocess.interpolation,
            sha256=card.get("sha256") or digest(model),
            mean=tuple(preprocess.mean),
            std=tuple(preprocess.std),
            tokenizer=always | tokenizer_settings(text),
            dtype=self.teachers[name].dtype,
            source=card.get("source"),
        )
