"""The program that trains the embedded teachers, two steps of it; and the teachers that are committed."""

from __future__ import annotations

import argparse
import importlib.util
import json

import numpy as np
import pytest
import torch

from mobileclip2_lite import recipes
from mobileclip2_lite.models.zoo import create_model
from mobileclip2_lite.work.files import sha256_file


@pytest.fixture(scope="module")
def program(repository):
    spec = importlib.util.spec_from_file_location("train_teacher", repository / "data" / "train_teacher.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_two_steps_change_the_model_and_are_kept(program, tmp_path):
    args = argparse.Namespace(samples=32, batch=16, learning_rate=1e-3, workers=0, out=tmp_path, start=None)
    loaded, facts = program.train("lite-teacher-conv", args)
    torch.manual_seed(facts["seed"])
    start = create_model("lite-teacher-conv").model
    assert facts["samples"] == 32
    assert not torch.equal(start.text.text_projection, loaded.model.text.text_projection)
    folder = program.keep(loaded, tmp_path, "lite-teacher-conv", facts)
    card = json.loads((folder / "card.json").read_text("utf-8"))
    assert card["sha256"] == sha256_file(folder / "model.safetensors")
    assert card["command"].startswith("python data/train_teacher.py lite-teacher-conv --samples 32")
    tokens = loaded.tokenizer(["a dog"])
    with torch.no_grad():
        kept = create_model(folder).model.encode_text(tokens, normalize=True)
        torch.testing.assert_close(kept, loaded.model.encode_text(tokens, normalize=True), atol=5e-3, rtol=0)


def test_the_second_part_goes_on_on_scenes_that_were_not_seen(program, repository, tmp_path, monkeypatch):
    asked = []
    stream = program.emoji_world.training_stream
    monkeypatch.setattr(
        program.emoji_world, "training_stream", lambda world, *rest: asked.append(rest) or stream(world, *rest)
    )
    start = repository / "data" / "teachers" / "lite-teacher-conv"
    before = json.loads((start / "card.json").read_text("utf-8"))
    args = argparse.Namespace(samples=32, batch=16, learning_rate=1e-3, workers=0, out=tmp_path, start=start)
    loaded, facts = program.train("lite-teacher-conv", args)
    first = before["samples"]
    assert [rest[:2] for rest in asked] == [(first, first + 16), (first + 16, first + 32)]
    assert {rest[3] for rest in asked} == {facts["worded"]} == {program.WORDED}
    assert facts["start"]["sha256"] == before["sha256"]
    trained, given = loaded.model.text.text_projection, create_model(start).model.text.text_projection
    assert not torch.equal(trained, given)
    assert torch.nn.functional.cosine_similarity(trained.flatten(), given.flatten(), dim=0) > 0.9


def test_batches_do_not_depend_on_workers(program):
    tokenizer, plan = create_model("lite-teacher-conv").tokenizer, program.PLANS["lite-teacher-conv"]
    stream = program.Stream(plan, 0.0, 48, tokenizer, 4, range(3))
    batches = [(images.numpy(), tokens.numpy()) for images, tokens in stream]
    assert len(batches) == 3
    again = list(program.Stream(plan, 0.0, 48, tokenizer, 4, range(1, 3)))
    assert np.array_equal(again[0][0].numpy(), batches[1][0])
    assert np.array_equal(again[1][1].numpy(), batches[2][1])
    assert not np.array_equal(batches[0][0], batches[1][0])


def test_a_teacher_of_all_names_goes_on_from_one_of_few(program, repository, tmp_path, monkeypatch):
    asked = []
    stream = program.emoji_world.training_stream
    monkeypatch.setattr(
        program.emoji_world,
        "training_stream",
        lambda world, *rest: asked.append((world, *rest)) or stream(world, *rest),
    )
    start = repository / "data" / "teachers" / "lite-teacher-se"
    args = argparse.Namespace(samples=32, batch=16, learning_rate=1e-3, workers=0, out=tmp_path, start=start)
    loaded, facts = program.train("emoji-teacher-se", args)
    assert [rest[1:3] for rest in asked] == [(0, 16), (16, 32)], "another stream begins at its first scene"
    assert {rest[0].names for rest in asked} == {0}
    card = json.loads((program.keep(loaded, tmp_path, "emoji-teacher-se", facts) / "card.json").read_text("utf-8"))
    assert card["command"].endswith("--start data/teachers/lite-teacher-se")
    assert (
        json.loads((tmp_path / "emoji-teacher-se" / "config.json").read_text("utf-8"))["architecture"]
        == "lite-teacher-se"
    )


@pytest.mark.parametrize(
    ("name", "recipe", "zero_shot"),
    [
        (name, recipe, 0.85 if recipe == "lite" else 0.75)
        for recipe in ("lite", "emoji")
        for name in recipes.named(recipe).reinforce.teachers
    ],
)
def test_committed_teachers_are_what_their_cards_say(name, recipe, zero_shot, repository):
    folder = repository / "data" / "teachers" / name
    card = json.loads((folder / "card.json").read_text("utf-8"))
    assert card["sha256"] == sha256_file(folder / "model.safetensors")
    assert (folder / "model.safetensors").stat().st_size < 12e6
    assert card["world"]["names"] == recipes.named(recipe).world.names
    assert card["metrics"]["zero_shot"] > zero_shot
    assert card["world"]["seed"] != recipes.named(recipe).world.seed, "teachers and students never share a scene"


@pytest.mark.parametrize(
    "folder",
    [
        "teachers/lite-teacher-conv",
        "teachers/lite-teacher-se",
        "teachers/emoji-teacher-conv",
        "teachers/emoji-teacher-se",
    ],
)
def test_the_data_card_says_what_a_teachers_card_measured(folder, repository):
    card = json.loads((repository / "data" / folder / "card.json").read_text("utf-8"))
    text, found = (repository / "data" / "README.md").read_text("utf-8"), card["metrics"]
    assert f"{100 * found['zero_shot']:.1f} %" in text
    assert f"{100 * found['retrieval_i2t_r1']:.1f} % and {100 * found['retrieval_t2i_r1']:.1f} %" in text
    assert f"{card['samples']:,}" in text


@pytest.mark.parametrize("name", ["lite-dfn", "emoji-dfn"])
def test_the_data_card_says_what_a_scorers_card_measured(name, repository):
    card = json.loads((repository / "data" / "scorers" / name / "card.json").read_text("utf-8"))
    text = " ".join((repository / "data" / "README.md").read_text("utf-8").split())
    wrong, left = (100 * card["removal"][key] for key in ("wrong", "wrong_kept"))
    assert f"{wrong:.1f} % of them wrong, it leaves {left:.1f} % wrong" in text
    assert f"{card['samples']:,} seen samples" in text
