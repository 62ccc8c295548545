"""What a training starts from: published weights, another size, a teacher's text tower, towers that stay."""

from __future__ import annotations

import json

import pytest
import torch
from doubles.tiny_training import settings, write_model
from safetensors.torch import load_file, save_file

from mobileclip2_lite.models.trimming import trim
from mobileclip2_lite.models.zoo import create_model
from mobileclip2_lite.recipes import Train
from mobileclip2_lite.training.identity import weights_hash
from mobileclip2_lite.training.loop import train
from mobileclip2_lite.training.start import lock, new_model, training_mode, with_text_tower


def weights(folder) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def moved(before: dict, after: dict) -> set[str]:
    """The towers whose tensors have changed."""
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    return {"image" if name.startswith("visual.") else "text" for name in changed - {"logit_scale"}}


def test_the_student_works_at_another_size_and_is_saved_with_it(data, model, tmp_path):
    out = train(settings(model, image_size=24, start=str(model)), data, tmp_path / "out", 0, progress=False)
    loaded = create_model(out)
    assert loaded.preprocess.image_size == 24
    assert loaded.model.encode_image(torch.zeros(1, 3, 24, 24)).shape == (1, 16)


@pytest.mark.parametrize("chunk", [0, 4])
@pytest.mark.parametrize(("locked", "free"), [("image", "text"), ("text", "image")])
def test_a_locked_tower_stays_as_it_was(data, model, tmp_path, locked, free, chunk):
    change = {"start": str(model), "lock": (locked,), "forward_chunk": chunk, "learning_rate": 1e-2}
    out = train(settings(model, **change), data, tmp_path / "out", 0, progress=False)
    assert moved(weights(model), weights(out)) == {free}


def test_a_locked_towers_batch_norms_keep_their_statistics():
    loaded = create_model("lite-mci-s")
    lock(loaded.model, ("image",))
    training_mode(loaded.model, ("image",))
    before = {name: value.clone() for name, value in loaded.model.visual.state_dict().items()}
    loaded.model.encode_image(torch.randn(4, 3, 48, 48))
    assert all(torch.equal(value, before[name]) for name, value in loaded.model.visual.state_dict().items())
    assert loaded.model.text.training
    training_mode(loaded.model, ())
    loaded.model.encode_image(torch.randn(4, 3, 48, 48))
    assert not all(torch.equal(value, before[name]) for name, value in loaded.model.visual.state_dict().items())


@pytest.mark.parametrize(
    ("locked", "says"),
    [(("image", "text"), "nothing would be left"), (("visual",), "lock names visual: a tower is image or text")],
)
def test_impossible_locks_are_refused(data, model, tmp_path, locked, says):
    with pytest.raises(ValueError, match=says):
        train(settings(model, lock=locked), data, tmp_path / "out", 0, progress=False)


def test_the_text_tower_of_another_model_is_taken_over_with_its_tokenizer(data, model, tmp_path):
    other = write_model(tmp_path / "other", seed=5, width=48, context_length=20)
    change = {"text_from": str(other), "lock": ("text",)}
    out = train(settings(model, **change), data, tmp_path / "out", 0, progress=False)
    given, found = create_model(other), create_model(out)
    texts = ["text of 3", "a longer text of 17 or so"]
    assert torch.equal(found.tokenizer(texts), given.tokenizer(texts))
    with torch.inference_mode():
        rows = [one.model.encode_text(one.tokenizer(texts)) for one in (found, given)]
    assert torch.equal(*rows)


def test_a_model_with_anothers_text_tower_trains_on_a_cpu(data, model, tmp_path):
    """Its image tower is built anew: where nothing is done about strided convolutions the process dies of them."""
    loaded = with_text_tower(create_model("lite-mci-s"), str(model))
    pointwise = [one for one in loaded.model.modules() if getattr(one, "kernel_size", 0) == (1, 1) and one.groups == 1]
    strided = [one for one in pointwise if max(one.stride) > 1]
    assert strided
    assert all("_conv_forward" in vars(one) for one in strided)
    texts = ["a dog", "a long text about a dog and a cat on a sofa"]
    tokens = loaded.tokenizer(texts)
    short = trim(loaded.model, tokens[:1])
    assert short.shape[1] < tokens.shape[1]
    with torch.inference_mode():
        assert torch.allclose(loaded.model.encode_text(short), loaded.model.encode_text(tokens)[:1], atol=1e-5)
    change = {"text_from": str(model), "lock": ("text",), "samples": 32}
    out = train(settings("lite-mci-s", **change), data, tmp_path / "out", 0, progress=False)
    assert torch.equal(create_model(out).tokenizer(texts), create_model(model).tokenizer(texts))


def test_settings_at_their_defaults_leave_a_trainings_key(data, model, tmp_path):
    out = train(settings(model), data, tmp_path / "out", 0, progress=False)
    known = json.loads((out / "manifest.json").read_text("utf-8"))["settings"]["train"]
    assert not {"image_size", "text_from", "lock"} & set(known)


def test_a_size_that_leaves_a_vits_pixels_out_is_refused(model):
    with pytest.raises(ValueError, match=r"image_size 30 is no multiple of .*'s patches of 8 pixels: take 24 or 32"):
        new_model(settings(model, image_size=30))
    with pytest.raises(ValueError, match=r"take 8$"):
        new_model(settings(model, image_size=5))
    with pytest.raises(ValueError, match=r"image_size -8 is no size in pixels: .*own is 16"):
        new_model(settings(model, image_size=-8))


def test_another_model_and_missing_weights_are_named(data, model, tmp_path):
    with pytest.raises(ValueError, match=r"does not hold a lite-mci-s but .*--model"):
        new_model(Train(model="lite-mci-s", start=str(model)))
    with pytest.raises(ValueError, match="would be random"):
        weights_hash("lite-mci-s")


@pytest.mark.slow
def test_published_weights_in_their_own_layout_at_another_size(tmp_path):
    """MobileCLIP2-S0's folder as the hub has it (`open_clip_config.json`), with random weights."""
    import open_clip

    made = create_model("MobileCLIP2-S0").model
    config = {"model_cfg": open_clip.get_model_config("MobileCLIP2-S0"), "preprocess_cfg": {"size": 256}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    save_file(made.state_dict(), tmp_path / "open_clip_model.safetensors")
    assert len(weights_hash(str(tmp_path))) == 64
    loaded = new_model(Train(model="MobileCLIP2-S0", start=str(tmp_path), image_size=64))
    assert loaded.preprocess.image_size == 64
    assert loaded.preprocess.mean == (0, 0, 0)
    given = made.state_dict()
    assert all(torch.equal(value, given[name]) for name, value in loaded.model.state_dict().items())
