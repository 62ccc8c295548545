"""Teachers: several CLIP models together, each with its own input size, normalisation, tokenizer, type and logit scale.

Paper: MobileCLIP2 section on teachers (two DFN2B ViT-L/14 at logit scales 70 and 60); MobileCLIP used OpenAI's and
DataComp's ViT-L/14 at 100. Embeddings go by the teacher's name, never by position. The embedded world's teachers are
read from `data/teachers/` (weights and `card.json`), all others through `create_model`; `save_teachers` writes an
ensemble as one folder. Differs from the official generator, which feeds all teachers from one preprocess.
Taught by notebooks/10_teacher_ensemble.ipynb.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobileclip2_lite import recipes
from mobileclip2_lite.models.card import TeacherCard, digest, read_card
from mobileclip2_lite.models.folders import PHOTO, data_folder, photo_folder
from mobileclip2_lite.models.loaded import LoadedModel, many
from mobileclip2_lite.models.packing import encode_text
from mobileclip2_lite.models.tokenizer import tokenizer_settings
from mobileclip2_lite.models.zoo import create_model, save_model
from mobileclip2_lite.work.files import pretty, read_object, write_atomic

_TYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


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


PAPER_PAIR = (
    Teacher("ViT-L-14@dfn2b", "ViT-L-14", "dfn2b", 70.0),
    Teacher("ViT-L-14@dfn2b_s39b", "ViT-L-14", "dfn2b_s39b", 60.0),
)
"""MobileCLIP2's pair (paper): dimension 768 each, 224 pixels."""

V1_PAIR = (
    Teacher("ViT-L-14@openai", "ViT-L-14", "openai", 100.0),
    Teacher("ViT-L-14@datacomp_xl_s13b_b90k", "ViT-L-14", "datacomp_xl_s13b_b90k", 100.0),
)
"""MobileCLIP's pair (paper): dimension 768 each, 224 pixels."""

EMBEDDED_PAIR = tuple(Teacher(name, name) for name in recipes.Reinforce().teachers)
"""The embedded world's pair (ours): that of the recipes."""

READY = {"paper": PAPER_PAIR, "v1": V1_PAIR, "embedded": EMBEDDED_PAIR}

_KNOWN = {teacher.name: teacher for pair in READY.values() for teacher in pair}


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
            if self.teachers[name].dtype not in _TYPES:
                raise ValueError(f"teacher {name}: dtype {self.teachers[name].dtype!r} is not one of {sorted(_TYPES)}")
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
        dtype = _TYPES[self.teachers[name].dtype]
        return torch.autocast(device.type, dtype) if dtype is not None else contextlib.nullcontext()

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


def load_teachers(names: str | os.PathLike | Sequence[str | Teacher]) -> TeacherEnsemble:
    """An ensemble by names.

    Args:
        names: `paper`, `v1` or `embedded`; a folder written by `save_teachers`; or a sequence of `Teacher` definitions,
            names of ready-made teachers, folders with a `card.json`, and names for `create_model` with `@TAG` for a tag
            (`ViT-L-14@dfn2b`). The embedded world's names are read from `data_folder() / "teachers"`.

    Raises:
        FileNotFoundError: an embedded teacher's folder is missing (the message names the command that makes it).
        ValueError: as `create_model`, or the weights of a teacher are not those that its card names.
    """
    if isinstance(names, str) and names in READY:
        names = READY[names]
    elif isinstance(names, (str, os.PathLike)) and (Path(names) / "ensemble.json").is_file():
        return _load_saved(Path(names))
    elif isinstance(names, (str, os.PathLike)):
        names = (os.fspath(names),)
    teachers = [name if isinstance(name, Teacher) else _define(os.fspath(name)) for name in names]
    found = [_load(teacher) for teacher in teachers]
    return TeacherEnsemble(teachers, [loaded for loaded, _ in found], [card for _, card in found])


def _define(name: str) -> Teacher:
    if name in _KNOWN:
        return _KNOWN[name]
    if Path(name).is_dir():
        return Teacher(Path(name).resolve().name, name)
    model, _, tag = name.partition("@")
    if model.startswith("hf-hub:"):  # there @ is a revision, and create_model's business
        return Teacher(name, name)
    return Teacher(name, model, tag or None)


def _load(teacher: Teacher) -> tuple[LoadedModel, dict[str, Any]]:
    """A teacher's model and, where there is one, its card."""
    folder = Path(teacher.model)
    if teacher.model.startswith("lite-teacher-") and teacher.pretrained is None:
        folder = data_folder() / "teachers" / teacher.model
        if not (folder / "model.safetensors").is_file():
            raise FileNotFoundError(
                f"the embedded teacher {teacher.model} is not in {folder}: make it with `python data/train_teacher.py`"
            )
    if teacher.model.startswith(PHOTO) and not folder.is_dir():
        folder = photo_folder(teacher.model)
    card = read_card(folder)
    if Path(teacher.model).is_dir():  # its name alone would not find it
        card = {**card, "source": str(folder.resolve())}
    return create_model(folder if folder.is_dir() else teacher.model, teacher.pretrained), card


def load_live(cards: Sequence[TeacherCard]) -> TeacherEnsemble:
    """The very teachers whose embeddings are stored, by a manifest's cards.

    Raises:
        FileNotFoundError: a teacher's folder is not where it was.
        ValueError: the weights found under a name are not those that embedded.
    """
    teachers = []
    for card in cards:
        if card.source and not Path(card.source).is_dir():
            raise FileNotFoundError(
                f"teacher {card.name} was loaded from {card.source}, which does not exist any more: put it back there, "
                "or distil from the stored embeddings (online=False)"
            )
        found = _define(card.source or card.name)
        teachers.append(dataclasses.replace(found, name=card.name, logit_scale=card.logit_scale, dtype=card.dtype))
    ensemble = load_teachers(teachers)
    for card in cards:
        if card.sha256 not in (None, ensemble.cards[card.name].sha256):
            raise ValueError(
                f"teacher {card.name} is not the one whose embeddings are stored: SHA-256 "
                f"{ensemble.cards[card.name].sha256}, the manifest says {card.sha256}. Reinforce with this one, or "
                "distil from the stored embeddings (online=False)"
            )
    return ensemble


def save_teachers(ensemble: TeacherEnsemble, folder: str | os.PathLike) -> Path:
    """Write an ensemble as one folder that `load_teachers` reads: a model folder each, and `ensemble.json`."""
    folder = Path(folder)
    entries = []
    for number, name in enumerate(ensemble.names):
        place = f"teacher-{number}"
        card = {**ensemble.given[name], **ensemble.cards[name].to_json()}
        card = {key: value for key, value in card.items() if key not in ("name", "source")}
        save_model(ensemble.loaded(name), folder / place, name=name, card=card)
        entries.append({**dataclasses.asdict(ensemble.teachers[name]), "folder": place})
    write_atomic(folder / "ensemble.json", pretty({"teachers": entries}))
    return folder


def _load_saved(folder: Path) -> TeacherEnsemble:
    entries = read_object(folder / "ensemble.json")["teachers"]
    teachers = [Teacher(**{key: value for key, value in entry.items() if key != "folder"}) for entry in entries]
    found = [_load(Teacher(entry["name"], str(folder / entry["folder"]))) for entry in entries]
    return TeacherEnsemble(teachers, [loaded for loaded, _ in found], [card for _, card in found])
