"""Teachers by name: the papers' pairs, the embedded world's, a folder's, anything `create_model` knows; read and saved.

Paper: MobileCLIP2 section on teachers (two DFN2B ViT-L/14 at logit scales 70 and 60); MobileCLIP used OpenAI's and
DataComp's ViT-L/14 at 100. The embedded world's teachers are read from `data/teachers/` (weights and `card.json`), all
others through `create_model`; `save_teachers` writes an ensemble as one folder. Taught by
notebooks/10_teacher_ensemble.ipynb.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mobileclip2_lite import recipes
from mobileclip2_lite.models.card import TeacherCard, read_card
from mobileclip2_lite.models.embedded import PREFIXES, check_trained, find
from mobileclip2_lite.models.ensemble import Teacher, TeacherEnsemble
from mobileclip2_lite.models.folders import PHOTO, checked_name, photo_folder
from mobileclip2_lite.models.loaded import LoadedModel
from mobileclip2_lite.models.zoo import create_model, save_model
from mobileclip2_lite.work.files import pretty, read_object, write_atomic

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


def load_teachers(names: str | os.PathLike | Sequence[str | Teacher]) -> TeacherEnsemble:
    """An ensemble by names.

    Args:
        names: `paper`, `v1` or `embedded`; a folder written by `save_teachers`; or a sequence of `Teacher` definitions,
            names of ready-made teachers, folders with a `card.json`, and names for `create_model` with `@TAG` for a tag
            (`ViT-L-14@dfn2b`). The embedded world's names are read from `data_folder() / "teachers"`.

    Raises:
        FileNotFoundError: an embedded teacher's folder is missing (the message names the command that makes it).
        ValueError: as `create_model`; a bare name is an architecture's, whose weights would be random; or the weights
            of a teacher are not those that its card names.
    """
    if isinstance(names, str) and names in READY:
        names = READY[names]
    elif isinstance(names, (str, os.PathLike)) and (Path(names) / "ensemble.json").is_file():
        return _load_saved(Path(names))
    elif isinstance(names, (str, os.PathLike)):
        names = (os.fspath(names),)
    teachers = [name if isinstance(name, Teacher) else _define(checked_name(name, "teacher")) for name in names]
    found = [_load(teacher) for teacher in teachers]
    return TeacherEnsemble(teachers, [loaded for loaded, _ in found], [card for _, card in found])


def _define(name: str) -> Teacher:
    if name in _KNOWN:
        return _KNOWN[name]
    if Path(name).is_dir():
        return Teacher(Path(name).resolve().name, name)
    check_trained(name, "teacher")
    model, _, tag = name.partition("@")
    if model.startswith("hf-hub:"):  # there @ is a revision, and create_model's business
        return Teacher(name, name)
    return Teacher(name, model, tag or None)


def _load(teacher: Teacher) -> tuple[LoadedModel, dict[str, Any]]:
    """A teacher's model and, where there is one, its card."""
    folder = Path(teacher.model)
    if teacher.model.startswith(PREFIXES) and teacher.pretrained is None and not folder.is_dir():
        folder = Path(find(teacher.model, "teacher")[0])
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
