"""The teachers of a training: what the data says of them, and, by choice, running them live on the same views.

Paper: MobileCLIP compares stored embeddings with teachers online; stored is the point, live is for comparing
and for data that is used once. Reads the manifest of a reinforced folder; writes nothing. A live teacher sees the very
view that the student sees, replayed at the teacher's own size with its own interpolation, so that its embeddings are
the stored ones up to their storage. Taught by notebooks/40_reinforced_training.ipynb.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mobileclip2_lite.models.card import TeacherCard
from mobileclip2_lite.recipes import Train
from mobileclip2_lite.shards.shrinking import TUNED
from mobileclip2_lite.work.files import read_object
from mobileclip2_lite.work.folder import read_manifest

if TYPE_CHECKING:
    from mobileclip2_lite.models.ensemble import TeacherEnsemble
    from mobileclip2_lite.training.feeding import PreparedBatch


def teacher_cards(data: Path, settings: Train) -> dict[str, TeacherCard]:
    """Teacher -> what it is, for the teachers that `settings` takes from `data`.

    A scale is, first found: that of `settings.logit_scales`, that of the folder's own search (`temperature.json` beside
    the manifest), that of the manifest. `reinforce` writes the teacher's card's into the manifest, also into that of a
    folder it finds finished: a scale tuned later holds for folders made before.

    Raises:
        ValueError: a teacher of `settings.teachers` or `settings.logit_scales` is not in the data, there is none though
            `distill` is above 0 or `candidates` above 1, or no logit scale is known for one.
    """
    if not settings.distill and settings.candidates == 1:
        return {}
    cards = stored_cards(data)
    names = settings.teachers or tuple(cards)
    tuned = read_object(data / TUNED) if (data / TUNED).is_file() else {}
    scales = dict(settings.logit_scales)
    if not names:
        raise ValueError(
            f"{data} holds no teachers, and distill is {settings.distill}, candidates {settings.candidates}: reinforce "
            "it, or set distill=0 and candidates=1"
        )
    if missing := sorted(set(names) - set(cards)):
        raise ValueError(f"teachers {missing} are not in {data}, which has {sorted(cards)}: reinforce with them first")
    if extra := sorted(set(scales) - set(names)):
        raise ValueError(f"logit_scales names {extra}, but the teachers are {sorted(names)}")
    for name in names:
        cards[name] = replace(cards[name], logit_scale=scales.get(name, tuned.get(name, cards[name].logit_scale)))
        if cards[name].logit_scale is None:
            raise ValueError(f"{data} knows no logit scale of {name}: set logit_scales=(({name!r}, 70.0),)")
    return {name: cards[name] for name in names}


def stored_cards(data: Path) -> dict[str, TeacherCard]:
    """Teacher -> what the manifest of a reinforced folder says of it."""
    found = read_manifest(data).get("teachers") or []
    if isinstance(found, dict):
        found = [{"name": name, **card} for name, card in found.items()]
    return {card["name"]: TeacherCard.from_json(card) for card in found}


class LiveTeachers:
    """Teachers that embed each batch during training.

    Args:
        cards: as `teacher_cards` gives them.
        device: where they run.
        ensemble: loaded teachers; None loads those whose embeddings are stored (`models.teachers.load_live`).
        student: (image size, interpolation) of the student, whose pixels serve the teachers that want the same.
    """

    def __init__(
        self,
        cards: Mapping[str, TeacherCard],
        device: torch.device,
        student: tuple[int, str],
        ensemble: TeacherEnsemble | None = None,
    ) -> None:
        if ensemble is None:
            from mobileclip2_lite.models.teachers import load_live

            ensemble = load_live(tuple(cards.values()))
        self.ensemble, self.names = ensemble.to(device).eval(), tuple(cards)
        self.wants = {name: (ensemble.image_size(name), ensemble.interpolation(name)) for name in self.names}
        self.sizes = sorted({want for want in self.wants.values() if want != student})
        """(image size, interpolation) to be loaded beside the student's."""

    @torch.no_grad()
    def embed(self, batch: PreparedBatch) -> PreparedBatch:
        """The batch with every teacher's embeddings of its views and of each group of its texts."""
        pixels = {
            name: batch.live_images[self.sizes.index(want)] if want in self.sizes else batch.images
            for name, want in self.wants.items()
        }
        images = {name: self.ensemble.embed_images(name, pixels[name]) for name in self.names}
        groups = [
            group._replace(teachers={name: self.ensemble.embed_texts(name, group.texts) for name in self.names})
            for group in batch.groups
        ]
        return replace(batch, teacher_images=images, groups=groups)
