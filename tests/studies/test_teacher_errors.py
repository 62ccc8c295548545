"""Where teachers err differently: by hand, and the data card's table."""

from __future__ import annotations

import pytest
import torch

from mobileclip2_lite.studies import teacher_errors
from mobileclip2_lite.work.tables import between_marks


def test_errors_by_hand():
    first = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.8, 0.2]])
    second = torch.tensor([[0.8, 0.2], [0.1, 0.9], [0.6, 0.4], [0.7, 0.3]])
    found = teacher_errors.of_probabilities({"a": first, "b": second}, torch.tensor([0, 1, 1, 1]))
    assert found.zero_shot == {"a": 0.5, "b": 0.5}
    assert found.only == {"a": 0.25, "b": 0.25}, "a alone on the third, b alone on the second"
    assert found.together == 0.75, "each is sure where it alone is right"
    assert (found.pictures, found.names) == (4, 2)


@pytest.fixture(scope="module")
def measured():
    return {recipe: teacher_errors.measured(recipe) for recipe in teacher_errors.OF}


@pytest.mark.parametrize("recipe", teacher_errors.OF)
def test_the_data_card_says_what_the_teachers_get_right(recipe, measured, repository):
    found = measured[recipe]
    card = (repository / "data" / "README.md").read_text("utf-8")
    written = next(line for line in card.splitlines() if line.startswith(f"| {recipe} |"))
    cells = [float(cell.removesuffix(" %")) for cell in written.strip("| ").split(" | ")[3:]]
    shares = [*found.zero_shot.values(), found.together, *found.only.values()]
    assert cells == pytest.approx([100 * share for share in shares], abs=0.3), (
        "python -m mobileclip2_lite.studies.teacher_errors"
    )
    assert between_marks(card, teacher_errors.BEGIN, teacher_errors.END, "", "no marks")


def test_the_ensemble_of_all_names_is_worth_two_teachers(measured):
    """What an ensemble is for: the second is right on more than one in a hundred that the first gets wrong."""
    found = measured["emoji"]
    assert min(found.only.values()) > 0.01
    assert found.together > max(found.zero_shot.values())
