"""What a teacher is travels whole: real ensemble, reinforcement, manifest, cards, loss; and back to live teachers."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil

import pytest
import torch
from doubles import tiny_training
from doubles.tiny_training import settings

from mobileclip2_lite import recipes
from mobileclip2_lite.models.card import TeacherCard
from mobileclip2_lite.models.ensemble import Teacher, TeacherEnsemble
from mobileclip2_lite.models.teachers import load_live, load_teachers
from mobileclip2_lite.models.zoo import create_model, save_model
from mobileclip2_lite.reinforcement.stage import reinforce
from mobileclip2_lite.shards import samples as shards
from mobileclip2_lite.shards.dataset import ReinforcedDataset
from mobileclip2_lite.training.contrast import pair_loss
from mobileclip2_lite.training.feeding import Stream, Tokens, feed
from mobileclip2_lite.training.losses import Rows
from mobileclip2_lite.training.teachers import LiveTeachers, teacher_cards
from mobileclip2_lite.work.folder import StageMismatch, Work, read_manifest

SCALE, BIAS = 117.33, -12.93
"""SigLIP-B/16's (hub, timm/ViT-B-16-SigLIP): beyond the 100 at which CLIP's scales are cut."""
COUNT = 6


def write_sigmoid(folder):
    """A model with a scale and a bias as the sigmoid loss leaves them, and another eye than the student's."""
    loaded = create_model(tiny_training.write_model(folder, seed=7), interpolation="bicubic")
    loaded.model.model_cfg = {**loaded.model.model_cfg, "init_logit_bias": BIAS, "init_logit_scale": math.log(SCALE)}
    loaded.model.logit_scale.data.fill_(math.log(SCALE))
    loaded.model.logit_bias = torch.nn.Parameter(torch.tensor(BIAS))
    return save_model(loaded, folder, name="sigmoid")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_sigmoid(folder / "sigmoid")
    tiny_training.write_model(folder / "softmax", seed=1)
    tiny_training.write_model(folder / "student")
    return folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    items = [tiny_training.sample(number) for number in range(COUNT)]
    items = [shards.Pair(item.uid, item.image, item.ext, f"{item.text} !:)", item.meta) for item in items]
    info = shards.write_shard(folder / "shard-000000.tar", items)
    record = {"name": "shard-000000.tar", **info._asdict(), "dropped": {}}
    Work(folder, "pairs", 1, {}).commit(shards=[record], samples=COUNT)
    return folder


@pytest.fixture(scope="module")
def data(models, pairs, tmp_path_factory):
    """Pairs reinforced by both teachers, given as folders, as a user would."""
    folder = tmp_path_factory.mktemp("reinforced")
    names = (str(models / "softmax"), str(models / "sigmoid"))
    reinforce(recipes.Reinforce(teachers=names, views=1, storage="fp32"), pairs, folder)
    return folder


def stored(data, teachers):
    """All samples' rows, as the training reads them."""
    dataset = ReinforcedDataset(data, 16, COUNT, teachers=teachers)
    return dataset.batch(0)


def probabilities(cards, batch):
    """The teachers' mean probability of each (image, text), written down anew."""
    found = []
    for name, card in cards.items():
        logits = card.logit_scale * batch.image_embeddings[name] @ batch.text_embeddings[name].T
        if card.logit_bias is None:
            found.append((logits.softmax(1) + logits.softmax(0)) / 2)
        else:
            found.append(torch.sigmoid(logits + card.logit_bias))
    return torch.stack(found).mean(0)


def test_the_manifest_says_all_that_the_teachers_are(data, models):
    manifest = {card["name"]: card for card in read_manifest(data)["teachers"]}
    assert manifest["sigmoid"]["logit_scale"] == pytest.approx(SCALE, rel=1e-6)
    assert manifest["sigmoid"]["logit_bias"] == pytest.approx(BIAS, rel=1e-6)
    assert {name: card["interpolation"] for name, card in manifest.items()} == {
        "sigmoid": "bicubic",
        "softmax": "bilinear",
    }
    assert {card["image_size"] for card in manifest.values()} == {tiny_training.SIZE}
    assert manifest["sigmoid"]["source"] == str((models / "sigmoid").resolve())
    assert "logit_bias" not in manifest["softmax"]
    assert not {"dtype"} & (set(manifest["softmax"]) | set(manifest["sigmoid"]))
    for card in manifest.values():
        assert TeacherCard.from_json(card).to_json() == card
    assert TeacherCard.from_json({**manifest["softmax"], "a key of later": 1}).to_json() == manifest["softmax"]
    with pytest.raises(ValueError, match="no `name`"):
        TeacherCard.from_json({"logit_scale": 1.0})


@pytest.mark.parametrize("teachers", [("sigmoid",), ("softmax",), ("softmax", "sigmoid")])
def test_the_students_optimum_is_the_teachers_probability(data, models, teachers):
    """Through the whole seam: the sigmoid loss is 0, and its gradient too, where the student says what they say."""
    chosen = settings(models / "student", loss="sigmoid", teachers=teachers)
    cards, batch = teacher_cards(data, chosen), stored(data, teachers)
    loss = pair_loss(chosen, cards)
    wanted = probabilities(cards, batch)
    logits = torch.logit(wanted.double()).float().requires_grad_()
    image, text = Rows.alone(torch.eye(COUNT)), Rows.alone(logits.T)
    sides = [{n: Rows.alone(rows[n]) for n in teachers} for rows in (batch.image_embeddings, batch.text_embeddings)]
    found = loss(image, text, torch.tensor(1.0), *sides, torch.tensor(0.0))
    assert found.total.item() == pytest.approx(0, abs=1e-4)
    (gradient,) = torch.autograd.grad(found.total, logits)
    assert gradient.abs().max() < 1e-5
    other = loss(image, Rows.alone(logits.detach().T + 1), torch.tensor(1.0), *sides, torch.tensor(0.0))
    assert other.total > 0.01


def test_a_scale_beyond_100_with_its_bias_says_what_the_teacher_says(data):
    """Cut at 100, SigLIP-B/16 would say 0.28 at cosine 0.12, where it says 0.76."""
    cards = teacher_cards(data, settings("unused", teachers=("sigmoid",), loss="sigmoid"))
    assert torch.sigmoid(torch.tensor(cards["sigmoid"].logit_scale * 0.12 + cards["sigmoid"].logit_bias)) > 0.75


def test_a_softmax_scale_is_still_cut_at_100(models):
    loaded = create_model(models / "softmax")
    loaded.model.logit_scale.data.fill_(math.log(150))
    assert TeacherEnsemble([Teacher("t", "m")], [loaded]).logit_scales == {"t": 100.0}


def test_teachers_given_as_folders_run_live_and_say_what_is_stored(data, models):
    chosen = settings(models / "student", online=True, batch_size=COUNT, samples=COUNT)
    cards = teacher_cards(data, chosen)
    live = LiveTeachers(cards, torch.device("cpu"), (16, "bilinear"))
    assert live.wants == {"softmax": (16, "bilinear"), "sigmoid": (16, "bicubic")}
    datasets = [
        ReinforcedDataset(data, size, COUNT, interpolation=how) for size, how in ((16, "bilinear"), *live.sizes)
    ]
    stream = feed(Stream(datasets, 0, 1), Tokens(create_model(models / "student").tokenizer, True), torch.device("cpu"))
    fed = next(stream)
    stream.close()
    stored = live.embed(fed)
    for name in cards:
        torch.testing.assert_close(stored.teacher_images[name], fed.teacher_images[name], atol=2e-5, rtol=1e-3)
        torch.testing.assert_close(stored.groups[0].teachers[name], fed.groups[0].teachers[name], atol=2e-5, rtol=1e-3)


def test_another_model_under_a_teachers_name_is_refused(data, models, tmp_path):
    (card,) = teacher_cards(data, settings("unused", teachers=("softmax",))).values()
    moved = dataclasses.replace(card, source=str(tmp_path / "gone"))
    with pytest.raises(FileNotFoundError, match="put it back there, or distil from the stored"):
        load_live([moved])
    other = tiny_training.write_model(tmp_path / "other", seed=9)
    with pytest.raises(ValueError, match="not the one whose embeddings are stored"):
        load_live([dataclasses.replace(card, source=str(other))])


def test_precision_is_part_of_what_is_stored_and_bias_and_scale_are_not(data, models, pairs, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(data, out)
    names = (str(models / "softmax"), str(models / "sigmoid"))
    chosen = recipes.Reinforce(teachers=names, views=1, storage="fp32")
    teachers = [dataclasses.replace(t, dtype="bf16") for t in load_teachers(names).teachers.values()]
    with pytest.raises(StageMismatch, match=r"teachers\[0\]\.dtype: None there, bf16"):
        reinforce(chosen, pairs, out, ensemble=load_teachers(teachers))
    manifest = read_manifest(out)
    old = json.loads(json.dumps(manifest))
    for card in old["teachers"]:  # a folder made when the bias was not written
        card.pop("logit_bias", None)
        card["logit_scale"] = 100.0
    (out / "manifest.json").write_text(json.dumps(old), "utf-8")
    assert reinforce(chosen, pairs, out) == manifest
    assert read_manifest(out) == manifest
