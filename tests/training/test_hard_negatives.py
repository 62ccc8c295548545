"""Wrong captions are wrong in one place, and a student that is asked about them learns to tell them apart."""

import dataclasses
import math

import pytest
import torch
from doubles import tiny_training

from mobileclip2_lite.training.hard_negatives import negated, negatives, preference
from mobileclip2_lite.training.log import read
from mobileclip2_lite.training.loop import train


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("a red dog and a blue cat", "a blue dog and a red cat"),
        ("a red dog, a blue cat and a red hat", "a blue dog, a red cat and a blue hat"),
        ("a red dog above a blue cat", "a blue dog above a red cat"),
        ("a dog to the left of a cat", "a dog to the right of a cat"),
        ("a dog above a cat and a cat below a hat", "a dog below a cat and a cat above a hat"),
        ("Red dog and a blue cat", "Blue dog and a red cat"),
        ("A RED dog and a Blue cat", "A BLUE dog and a Red cat"),
        ("Above a red cat sits a dog", "Below a red cat sits a dog"),
        ("To the Left of the dog", "To the right of the dog"),
        ("a grey dog on red, Gray and red again", "a red dog on grey, Red and grey again"),
        ("a grey dog and a gray cat", None),
        ("a red dog", None),
        ("a red dog on red", None),
        ("a coloured bird with aboveboard ideas", None),
    ],
)
def test_one_thing_is_wrong(text, wrong):
    assert negated(text) == wrong


def test_places_of_the_right_captions():
    wrong, rows = negatives(["a dog", "a dog above a cat", "sand", "a red cat on blue"])
    assert wrong == ["a dog below a cat", "a blue cat on red"]
    assert rows.tolist() == [1, 3]
    assert negatives(["a dog"])[1].shape == (0,)


def test_preference_by_hand():
    image, right, wrong = torch.tensor([[1.0, 0]]), torch.tensor([[0.8, 0.6]]), torch.tensor([[0.6, 0.8]])
    found = preference(image, right, wrong, torch.tensor(5.0))
    assert found.item() == pytest.approx(-math.log(math.exp(4) / (math.exp(4) + math.exp(3))))


@pytest.fixture(scope="module")
def coloured(tmp_path_factory):
    """A model and 40 samples, half of whose captions name two colours."""
    folder = tmp_path_factory.mktemp("coloured")
    plain = tiny_training.sample

    def sample(number):
        text = "a red thing and a blue one" if number % 2 else f"number {number}"
        return dataclasses.replace(plain(number), text=text)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_training, "sample", sample)
        data = tiny_training.write_data(folder / "data")
    return tiny_training.write_model(folder / "model"), data


def losses(coloured, out, **changes):
    model, data = coloured
    chosen = tiny_training.settings(model, samples=320, distill=0.0, views="weak", **changes)
    train(chosen, data, out, seed=0, progress=False)
    return [line for line in read(out / "log.jsonl") if "loss" in line]


def test_a_student_learns_which_caption_is_right(coloured, tmp_path):
    lines = losses(coloured, tmp_path / "asked", hard_negatives=1.0, learning_rate=3e-3)
    assert lines[0]["hard_negatives"] > 0.3, "from new weights it is a guess"
    assert lines[-1]["hard_negatives"] < 0.5 * lines[0]["hard_negatives"]
    first = lines[0]
    assert first["loss"] == pytest.approx(first["contrastive"] + first["hard_negatives"], rel=1e-3)
    assert "hard_negatives" not in losses(coloured, tmp_path / "not-asked")[0]


def test_gradient_caching_changes_nothing(coloured, tmp_path):
    whole, cached = (
        losses(coloured, tmp_path / str(chunk), hard_negatives=0.5, forward_chunk=chunk) for chunk in (0, 5)
    )
    assert [line["loss"] for line in cached] == pytest.approx([line["loss"] for line in whole], rel=1e-4)
