"""Captioners: their parts equal open_clip's, they train in the one loop, and early stopping keeps the best."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from doubles import tiny_training
from doubles.tiny_training import settings, write_captioner, write_data, write_model
from open_clip.loss import CoCaLoss
from torch.nn import functional as F

from mobileclip2_lite.models import coca
from mobileclip2_lite.models.coca import image_states, next_token_logits, special_tokens, text_states
from mobileclip2_lite.models.embedded import load_captioner
from mobileclip2_lite.models.tokenizer import prefix_tokenizer
from mobileclip2_lite.models.zoo import build, create_model, save_model
from mobileclip2_lite.training import checkpoints
from mobileclip2_lite.training.captioner_step import HeldOut
from mobileclip2_lite.training.log import read
from mobileclip2_lite.work.folder import StageMismatch, read_manifest

TEXTS = ["a fox", "an apple and a cat", "x", "word " * 40]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("captioner")
    write_captioner(place / "model")
    write_data(place / "data")
    return place


def go(chosen, folder, out, **keywords):
    return tiny_training.go(chosen, folder / "data", out, **keywords)


def chosen(folder, **changes):
    changes = {"distill": 0.0, "views": "weak", "captioning": 2.0, **changes}
    return settings(folder / "model", **changes)


def step(folder, **changes):
    """A stepper and a batch for it."""
    stepper, [batch] = tiny_training.first_batches(chosen(folder, **changes), folder / "data")
    return stepper, batch


@pytest.mark.parametrize("correct", [False, True])
@pytest.mark.parametrize("texts", [TEXTS[:3], TEXTS], ids=["short", "full context"])
def test_text_states_equal_open_clips_at_any_cut(texts, correct):
    torch.manual_seed(1)
    model = build(tiny_training.captioner_config())
    model.text.correct_cls_mask = correct
    tokens = prefix_tokenizer(600, 24)(texts)
    with torch.no_grad():
        wanted, states = model._encode_text(tokens, normalize=False)
        cut = coca.cut(tokens, model.pad_id)
        assert cut.shape[1] == 24 if len(texts) == 4 else cut.shape[1] < 24
        for rows in (tokens, cut):
            found, mine = text_states(model, rows)
            assert torch.allclose(found, wanted, atol=1e-5)
            assert torch.allclose(mine, states[:, : rows.shape[1]], atol=1e-5)


def test_logits_equal_open_clips_and_leave_padding_out():
    torch.manual_seed(1)
    model = build(tiny_training.captioner_config())
    images, tokens = torch.rand(4, 3, 16, 16), prefix_tokenizer(600, 24)(TEXTS)
    with torch.no_grad():
        out = model(images, tokens)
        _, image_tokens = image_states(model, images)
        _, states = text_states(model, tokens)
        logits, targets = next_token_logits(model, image_tokens, states, tokens)
    written = out["labels"] != 0
    assert torch.equal(targets, out["labels"][written])
    assert torch.allclose(logits, out["logits"][written], atol=1e-5)


@pytest.mark.parametrize("contrast", [1.0, 0.0])
def test_loss_and_gradients_equal_open_clips(folder, contrast):
    stepper, batch = step(folder, contrast=contrast)
    losses = stepper.backward(batch)
    found = {name: p.grad.clone() for name, p in stepper.model.named_parameters() if p.grad is not None}
    model = create_model(folder / "model").model.train()
    out = model(stepper.loaded.preprocess.normalize(batch.images), batch.groups[0].tokens)
    parts = CoCaLoss(caption_loss_weight=2.0, clip_loss_weight=contrast)(
        out["image_features"], out["text_features"], out["logits"], out["labels"], out["logit_scale"]
    )
    sum(parts).backward()
    assert losses["loss"].item() == pytest.approx(sum(parts).item(), rel=1e-5)
    assert losses["captioning"].item() * 2 == pytest.approx(parts[1].item(), rel=1e-5)
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and (contrast or parameter.grad.abs().max() > 0):
            assert torch.allclose(found[name], parameter.grad, atol=1e-5), name


def test_real_and_synthetic_captions_are_both_predicted(folder):
    stepper, batch = step(folder, captioners=("long",))
    losses = stepper.backward(batch)
    assert {"contrastive", "contrastive_captions", "captioning"} <= losses.keys()
    rows = torch.cat([F.pad(group, (0, 24 - group.shape[1])) for group in (group.tokens for group in batch.groups)])
    model = create_model(folder / "model").model.train()
    pixels = stepper.loaded.preprocess.normalize(batch.images)
    with torch.no_grad():
        out = model(torch.cat([pixels, pixels]), rows)
    wanted = F.cross_entropy(out["logits"].permute(0, 2, 1), out["labels"], ignore_index=0)
    assert losses["captioning"].item() == pytest.approx(wanted.item(), rel=1e-5)


def test_lite_captioners_first_weights_repeat_and_its_tower_gives_tokens():
    """Uninitialised memory is what open_clip leaves in the vocabulary projection."""
    made = []
    for _ in range(2):
        torch.manual_seed(5)
        made.append(create_model("lite-coca").model)
    one, other = (model.text_decoder.text_projection for model in made)
    assert torch.equal(one, other)
    assert one.std().item() == pytest.approx(160**-0.5, rel=0.05)
    latent, tokens = made[0].visual(torch.rand(2, 3, 48, 48))
    assert latent.shape == (2, 160)
    assert tokens.shape == (2, 36, 160)


def test_training_learns_resumes_and_saves(folder, tmp_path):
    learn = chosen(folder, samples=16 * 30, learning_rate=3e-3, checkpoint_every=5, evaluate_every=10)
    held = HeldOut(folder / "data", count=40, batch_size=16)
    whole = go(learn, folder, tmp_path / "whole", evaluate=held)
    lines = [line["evaluation"]["caption_loss"] for line in read(whole / "log.jsonl") if "evaluation" in line]
    assert lines[-1] < 0.7 * held(create_model(folder / "model"))["caption_loss"]
    assert lines[-1] == pytest.approx(held(create_model(whole))["caption_loss"], rel=1e-5)

    def broken(loaded, calls=[]):  # noqa: B006 (counts the calls)
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return held(loaded)

    with pytest.raises(KeyboardInterrupt):
        go(learn, folder, tmp_path / "again", evaluate=broken)
    assert checkpoints.list_steps(tmp_path / "again" / "checkpoints")
    again = go(learn, folder, tmp_path / "again", evaluate=held)
    one, other = (create_model(place).model.state_dict() for place in (whole, again))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_early_stopping_keeps_the_best_weights(folder, tmp_path):
    stop = chosen(folder, samples=16 * 10, evaluate_every=1, stop_on="caption_loss", patience=2, checkpoint_every=1)
    seen, values = [], [3.0, 2.0, 2.5, 2.1, 1.0]

    def evaluate(loaded):
        seen.append({key: value.clone() for key, value in loaded.model.state_dict().items()})
        return {"caption_loss": values[len(seen) - 1]}

    out = go(stop, folder, tmp_path / "stopped", evaluate=evaluate)
    assert len(seen) == 4  # two without a better one
    saved = create_model(out).model.state_dict()
    assert all(torch.equal(saved[name], seen[1][name]) for name in saved)
    manifest = read_manifest(out)
    assert (manifest["steps"], manifest["samples"]) == (4, 64)
    assert json.loads((out / "card.json").read_text("utf-8"))["best_step"] == 2

    interrupted = list(seen)
    seen.clear()

    def stumble(loaded):
        if len(seen) == 3:
            raise KeyboardInterrupt
        return evaluate(loaded)

    with pytest.raises(KeyboardInterrupt):
        go(stop, folder, tmp_path / "stumbled", evaluate=stumble)
    again = create_model(go(stop, folder, tmp_path / "stumbled", evaluate=evaluate)).model.state_dict()
    assert len(seen) == 4
    assert all(torch.equal(again[name], interrupted[1][name]) for name in again)


def test_fine_tuning_starts_from_a_folder_and_knows_it(folder, tmp_path):
    start = write_captioner(tmp_path / "start", seed=7)
    tune = chosen(folder, start=str(start), samples=16, learning_rate=1e-9)
    out = go(tune, folder, tmp_path / "tuned")
    before, after = (create_model(place).model.state_dict() for place in (start, out))
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)
    write_captioner(tmp_path / "start", seed=8)
    with pytest.raises(StageMismatch):
        go(tune, folder, out)
    with pytest.raises(ValueError, match="nothing at that path"):
        go(dataclasses.replace(tune, start=str(tmp_path / "nothing")), folder, tmp_path / "other")
    other = write_captioner(tmp_path / "other-start", context=20)
    with pytest.raises(ValueError, match="does not hold"):
        go(dataclasses.replace(tune, start=str(other)), folder, tmp_path / "other")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"forward_chunk": 4}, "does not know forward_chunk"),
        ({"compile": True}, "does not know compile"),
        ({"stop_on": "caption_loss"}, "set evaluate_every"),
        ({"stop_on": "zero_shot", "evaluate_every": 1}, "no 'zero_shot' to stop on, only caption_loss"),
    ],
)
def test_wrong_settings_are_named(folder, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        go(chosen(folder, **changes), folder, tmp_path / "out", evaluate=HeldOut(folder / "data", 8, 8))


def test_a_model_without_a_decoder_cannot_write(folder, tmp_path):
    plain = write_model(tmp_path / "plain")
    with pytest.raises(ValueError, match="no text decoder"):
        go(dataclasses.replace(chosen(folder), model=str(plain)), folder, tmp_path / "out")
    with pytest.raises(ValueError, match="no text decoder"):
        load_captioner(plain)
    with pytest.raises(ValueError, match="pass `evaluate`"):
        go(chosen(folder, stop_on="caption_loss", evaluate_every=1), folder, tmp_path / "out")


def test_captioner_with_another_cards_weights_is_refused(folder, tmp_path):
    loaded = load_captioner(folder / "model")
    place = save_model(loaded, tmp_path / "carded", name="tiny", card={"seed": 0})
    assert load_captioner(place).model is not None
    card = json.loads((place / "card.json").read_text("utf-8"))
    (place / "card.json").write_text(json.dumps({**card, "sha256": "0" * 64}), "utf-8")
    with pytest.raises(ValueError, match="not the file that"):
        load_captioner(place)
    with pytest.raises(FileNotFoundError, match="train_captioners"):
        load_captioner("lite-captioner-nothing")


@pytest.mark.parametrize("wrapped", [False, True])
def test_captioner_in_the_layout_of_the_published_ones(tmp_path, wrapped):
    """A repository of Apple's: PyTorch weights and the bare model config, with a context of its own."""
    folder = tmp_path / "mobileclip2_coca_dfn2b_s13b_docci_s12m_context36"
    folder.mkdir()
    config = tiny_training.captioner_config(context=36)
    made = build(config)
    torch.save(made.state_dict(), folder / "mobileclip2_coca.pt")
    (folder / "config.json").write_text(json.dumps({"model_cfg": config} if wrapped else config), "utf-8")
    loaded = load_captioner(folder)
    assert all(torch.equal(value, made.state_dict()[name]) for name, value in loaded.model.state_dict().items())
    assert loaded.tokenizer(["a fox"]).shape == (1, 36)
    assert loaded.preprocess.image_size == 16
    start, end, _ = special_tokens(loaded)
    assert loaded.tokenizer([""])[0, :2].tolist() == [start, end]


def test_held_out_takes_exactly_as_many_pairs_as_asked(folder, monkeypatch):
    seen = []
    loaded = create_model(folder / "model")
    held = HeldOut(folder / "data", count=10, batch_size=4)
    monkeypatch.setattr(
        "mobileclip2_lite.training.captioner_step.cut", lambda tokens, pad: seen.append(len(tokens)) or tokens
    )
    assert held(loaded)["caption_loss"] > 0
    assert seen == [4, 4, 2]
