"""How the embedded teachers err: each one's zero-shot, that of both together, and where only one of them is right.

    python -m mobileclip2_lite.studies.teacher_errors

Two teachers are worth more than one where they err differently: "together" is the name with the highest mean of the
teachers' probabilities, each at its own logit scale, as distillation hears them. Measured on the test split; writes the
table of data/README.md, which a test makes again. Ours. Taught by notebooks/10_teacher_ensemble.ipynb.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from mobileclip2_lite import emoji_world, recipes
from mobileclip2_lite.evaluation.measures import zero_shot_classifier
from mobileclip2_lite.evaluation.suite import zero_shot_images
from mobileclip2_lite.models.ensemble import TeacherEnsemble
from mobileclip2_lite.models.loaded import encode_images
from mobileclip2_lite.models.teachers import load_teachers
from mobileclip2_lite.work.files import write_atomic
from mobileclip2_lite.work.tables import between_marks, markdown_table

BEGIN, END = "<!-- teachers: python -m mobileclip2_lite.studies.teacher_errors -->", "<!-- end of teachers -->"
"""Around the table in the data card."""
OF = ("lite", "emoji")
"""Recipes whose teachers are measured."""


class Errors(NamedTuple):
    """What an ensemble gets right among N pictures, shares between 0 and 1."""

    pictures: int
    names: int
    """Names to choose from."""
    zero_shot: dict[str, float]
    """Teacher -> top-1."""
    together: float
    """Top-1 of the mean probability."""
    only: dict[str, float]
    """Teacher -> share that it alone gets right."""


def errors(ensemble: TeacherEnsemble, world: recipes.World, renders: int, *, split: str = "test") -> Errors:
    """Measure on `renders` pictures of every name of a world.

    Args:
        ensemble: one teacher or more, each with its own preprocess and logit scale.
        split: `test` or `val`.
    """
    images, labels, names = zero_shot_images(world, renders, None, split)
    truth = torch.as_tensor(labels)
    probabilities = {}
    for name in ensemble.names:
        loaded = ensemble.loaded(name)
        cosines = encode_images(loaded, images) @ zero_shot_classifier(loaded, names, emoji_world.TEMPLATES).T
        probabilities[name] = (cosines * ensemble.logit_scales[name]).softmax(dim=1)
    return of_probabilities(probabilities, truth)


def of_probabilities(probabilities: Mapping[str, torch.Tensor], truth: torch.Tensor) -> Errors:
    """`errors`, of what each teacher thinks.

    Args:
        probabilities: teacher -> (N, C).
        truth: (N,) right columns.
    """
    right = {name: found.argmax(dim=1) == truth for name, found in probabilities.items()}
    mean = torch.stack(list(probabilities.values())).mean(dim=0)
    votes = torch.stack(list(right.values())).sum(dim=0)
    return Errors(
        len(truth),
        mean.shape[1],
        {name: float(hits.double().mean()) for name, hits in right.items()},
        float((mean.argmax(dim=1) == truth).double().mean()),
        {name: float((hits & (votes == 1)).double().mean()) for name, hits in right.items()},
    )


def table(found: Mapping[str, Errors]) -> str:
    """Recipe -> its teachers' errors, as Markdown."""
    head = ["recipe", "names", "pictures", "conv", "se", "both together", "conv alone right", "se alone right"]
    rows = []
    for recipe, one in found.items():
        shares = [*one.zero_shot.values(), one.together, *one.only.values()]
        rows.append([recipe, str(one.names), f"{one.pictures:,}", *(f"{100 * share:.1f} %" for share in shares)])
    return markdown_table(head, rows)


def measured(recipe: str) -> Errors:
    """`errors` of a recipe's teachers on its own test pictures."""
    settings = recipes.named(recipe)
    return errors(load_teachers(settings.reinforce.teachers), settings.world, settings.evaluate.renders)


def main() -> None:
    """Measure, print, and write the data card."""
    text = table({recipe: measured(recipe) for recipe in OF})
    print(text)
    card = Path(__file__).parents[2] / "data" / "README.md"
    inside = between_marks(card.read_text("utf-8"), BEGIN, END, text, f"{card} has no marks for the teachers' table")
    write_atomic(card, inside.encode())


if __name__ == "__main__":
    main()
