"""The program that trains the embedded captioners, a few steps of it; and the captioners that are committed."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import shutil

import pytest

from mobileclip2_lite import recipes
from mobileclip2_lite.models.embedded import load_captioner
from mobileclip2_lite.work.files import sha256_file


@pytest.fixture
def program(repository, monkeypatch):
    spec = importlib.util.spec_from_file_location("train_captioners", repository / "data" / "train_captioners.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ANNOTATED", {"lite": 48, "emoji": 48})
    monkeypatch.setattr(module, "HELD_OUT", 16)
    short = {"samples": 32, "batch_size": 16, "evaluate_every": 1, "checkpoint_every": 0}
    monkeypatch.setattr(module, "FINETUNE", dataclasses.replace(module.FINETUNE, **short))
    monkeypatch.setattr(module, "PRETRAIN", dataclasses.replace(module.PRETRAIN, **short))
    return module


def test_captioners_of_all_names_go_on_from_those_of_few(program, repository, tmp_path):
    out = tmp_path / "captioners"
    shutil.copytree(repository / "data" / "captioners" / "lite-captioner-web", out / "lite-captioner-web")
    args = argparse.Namespace(recipe="emoji", samples=32, pairs=48, work=tmp_path / "work", out=out)
    web = program.make("web", args)
    short = program.make("short", args)
    for place, start, name in ((web, "lite-captioner-web", "web"), (short, "emoji-captioner-web", "short")):
        card = json.loads((place / "card.json").read_text("utf-8"))
        assert place.name == f"emoji-captioner-{name}"
        assert card["start"] == card["settings"]["start"] == start, "a name, and no path of this machine"
        assert card["settings"]["optimizer"] == "nmuon"
        assert card["command"] == f"python data/train_captioners.py {name} --recipe emoji"
        assert load_captioner(place).model.text_decoder is not None
    assert json.loads((web / "card.json").read_text("utf-8"))["world"]["names"] == 0


def test_captioners_of_few_names_are_made_as_before(program, tmp_path):
    args = argparse.Namespace(recipe="lite", samples=32, pairs=48, work=tmp_path / "work", out=tmp_path / "captioners")
    program.make("web", args)
    card = json.loads((program.make("detailed", args) / "card.json").read_text("utf-8"))
    assert card["start"] == "lite-captioner-web"
    assert card["settings"]["optimizer"] == "adamw"


@pytest.mark.parametrize(
    "name", [name for recipe in ("lite", "emoji") for name in recipes.named(recipe).caption.captioners]
)
def test_committed_captioners_are_what_their_cards_say(name, repository):
    folder = repository / "data" / "captioners" / name
    card = json.loads((folder / "card.json").read_text("utf-8"))
    assert card["sha256"] == sha256_file(folder / "model.safetensors")
    assert (folder / "model.safetensors").stat().st_size < 12e6
    losses = [loss for _, loss in card["held_out_loss"]]
    assert min(losses) < losses[0], "it has learned"


@pytest.mark.parametrize("kind", ["web", "short", "relational", "detailed"])
@pytest.mark.parametrize("recipe", ["lite", "emoji"])
def test_the_data_card_says_what_a_captioners_card_measured(recipe, kind, repository):
    name = f"{recipe}-captioner-{kind}"
    card = json.loads((repository / "data" / "captioners" / name / "card.json").read_text("utf-8"))
    row = next(
        line for line in (repository / "data" / "README.md").read_text("utf-8").splitlines() if f"| `{name}` |" in line
    )
    assert f" {min(loss for _, loss in card['held_out_loss']):.3f}" in row
    assert f"{card['seconds']:,}" in row
