"""A step keeps the pairs that the student finds hard and the teachers easy, and only those."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from doubles.tiny_training import TEACHERS, settings, write_data, write_model

from mobileclip2_lite.training.distributed import Processes
from mobileclip2_lite.training.feeding import REAL, PreparedBatch, TextGroup, Tokens, feed
from mobileclip2_lite.training.log import read
from mobileclip2_lite.training.loop import Run, train
from mobileclip2_lite.training.selection import best, chosen, joined, learnability


def test_learnability_by_hand():
    """Two pairs: the student guesses, the teacher is sure of the first and against the second."""
    student = torch.zeros(2, 2)
    teacher = torch.tensor([[4.0, 0.0], [3.0, 0.0]])
    found = learnability(student, [teacher])

    def away(first, second):  # -log softmax of the first
        return math.log(1 + math.exp(second - first))

    by_hand = [math.log(2) - (away(4, 0) + away(4, 3)) / 2, math.log(2) - (away(0, 3) + away(0, 0)) / 2]
    assert found.tolist() == pytest.approx(by_hand, rel=1e-5)


def test_two_teachers_are_averaged_as_probabilities():
    one, two = torch.randn(2, 5, 5, generator=torch.Generator().manual_seed(0))
    student = torch.zeros(5, 5)
    forth = (one.softmax(1) + two.softmax(1)) / 2
    back = (one.softmax(0) + two.softmax(0)) / 2
    by_hand = math.log(5) + (forth.diagonal().log() + back.diagonal().log()) / 2
    assert torch.allclose(learnability(student, [one, two]), by_hand, atol=1e-5)


def test_what_is_learned_and_what_is_wrong_are_left():
    """Of three pairs one is known to both, one is wrong to both, and one only the teacher knows: that is kept."""
    teacher = torch.tensor([[9.0, 0, 0], [0, 9, 0], [9, 0, 0]])
    student = torch.tensor([[9.0, 0, 0], [0, 0, 0], [9, 0, 0]])
    assert best(learnability(student, [teacher]), 1).tolist() == [1]


def test_the_best_keep_their_order():
    assert best(torch.tensor([0.1, 0.9, 0.5, 0.9, 0.2]), 3).tolist() == [1, 2, 3]
    assert best(torch.zeros(4), 2).tolist() == [0, 1]


def batch_of(first: int, count: int, length: int) -> PreparedBatch:
    """A batch whose every value names its sample."""
    numbers = torch.arange(first, first + count)
    rows, texts = numbers[:, None].float(), [f"text {number}" for number in numbers.tolist()]
    return PreparedBatch(
        uids=[str(number) for number in numbers.tolist()],
        images=numbers.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2).clone(),
        groups=[TextGroup(REAL, texts, numbers[:, None].expand(-1, length).clone(), {"t": rows.clone()})],
        teacher_images={"t": rows.clone()},
        live_images=[numbers.clone()],
        dropped={"bad": 1},
        image_ids=numbers.clone(),
        wrong_tokens=numbers[1:, None].clone(),
        wrong_rows=torch.arange(1, count),
    )


def test_joining_and_choosing_keep_every_part_of_a_sample_together():
    whole = joined([batch_of(0, 3, 2), batch_of(3, 4, 5)])
    assert whole.uids == [str(number) for number in range(7)]
    assert whole.groups[0].tokens.shape == (7, 5)
    assert whole.dropped == {"bad": 2}
    assert whole.wrong_rows.tolist() == [1, 2, 4, 5, 6]
    some = chosen(whole, torch.tensor([0, 2, 5]))
    expected = torch.tensor([0, 2, 5])
    assert some.uids == ["0", "2", "5"]
    assert some.groups[0].texts == ["text 0", "text 2", "text 5"]
    for found in (some.images[:, 0, 0, 0], some.groups[0].tokens[:, 0], some.live_images[0], some.image_ids):
        assert torch.equal(found.long(), expected)
    for table in (some.teacher_images, some.groups[0].teachers):
        assert torch.equal(table["t"][:, 0].long(), expected)
    assert some.wrong_rows.tolist() == [1, 2]
    assert torch.equal(some.wrong_tokens[:, 0], expected[some.wrong_rows])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("selection")
    return write_model(folder / "model"), write_data(folder / "data")


@pytest.mark.parametrize("changes", [{"captioners": ("short",)}, {"distill": 0.0}])
def test_a_step_trains_on_the_most_learnable_half(made, changes):
    """The scores are those of the features that the loss sees, summed over texts; the best half has the gradients."""
    model, data = made
    run = Run(settings(model, samples=32, candidates=2, **changes), data, Path("unused"), 0, Processes())
    stepper = run.stepper
    parts = list(feed(run.stream(), Tokens(stepper.loaded.tokenizer, stepper.cut), torch.device("cpu")))
    assert len(parts) == 4, "two batches of candidates a step"
    whole = joined(parts[:2])
    images = stepper.image_features(stepper.loaded.preprocess.normalize(whole.images))
    scores = torch.zeros(32)
    for group in whole.groups:
        logits = stepper.model.logit_scale.exp() * images @ stepper.text_features(group.tokens).T
        teachers = [(10.0 + size) * whole.teacher_images[t] @ group.teachers[t].T for t, size in TEACHERS.items()]
        scores += learnability(logits.detach(), teachers)
    kept = stepper.select(parts[:2])
    cut = scores.sort(descending=True).values[15:17].mean()
    assert kept.uids == [uid for uid, score in zip(whole.uids, scores, strict=True) if score > cut]
    assert stepper(0, parts[:2]) is not None
    few = joined([chosen(part, torch.arange(5)) for part in parts[:2]])
    assert stepper.select([few]).uids == few.uids, "fewer than a batch are all kept"


def test_a_resumed_training_reads_on_where_it_was(made, tmp_path):
    model, data = made
    chosen_settings = settings(model, candidates=2, checkpoint_every=2)
    whole = train(chosen_settings, data, tmp_path / "whole", seed=0, progress=False)
    run = Run(chosen_settings, data, tmp_path / "cut", 0, Processes())
    run.step = 3
    assert run.stream().start == 6
    lines = [line for line in read(whole / "log.jsonl") if "loss" in line]
    assert [line["samples"] for line in lines] == [16, 32, 48, 64, 80], "those that were trained on"
    plain = train(dataclasses.replace(chosen_settings, candidates=1), data, tmp_path / "plain", seed=0, progress=False)
    assert [line["loss"] for line in read(plain / "log.jsonl") if "loss" in line] != [line["loss"] for line in lines]


def test_weak_views_have_nothing_to_select_by(made, tmp_path):
    model, data = made
    with pytest.raises(ValueError, match="to select by"):
        train(settings(model, candidates=2, distill=0.0, views="weak"), data, tmp_path / "out", seed=0)
