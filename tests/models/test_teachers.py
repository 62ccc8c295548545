"""Teachers: each by its own rules, together in one module."""

from __future__ import annotations

import json
import math

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from mobileclip2_lite.models import embedded
from mobileclip2_lite.models.ensemble import Teacher, TeacherEnsemble
from mobileclip2_lite.models.preprocess import Preprocess
from mobileclip2_lite.models.teachers import EMBEDDED_PAIR, PAPER_PAIR, V1_PAIR, load_teachers, save_teachers
from mobileclip2_lite.models.zoo import create_model, save_model

FIRST, SECOND = (teacher.name for teacher in EMBEDDED_PAIR)
SIDE = create_model(FIRST).preprocess.image_size
CLIP = Preprocess(SIDE, interpolation="bilinear")
"""OpenAI's normalisation."""
PLAIN = CLIP.replace(mean=(0.0,) * 3, std=(1.0,) * 3)


@pytest.fixture(scope="module")
def ensemble():
    torch.manual_seed(0)
    definitions = [Teacher("plain", FIRST, None, 50.0), Teacher("clip", SECOND, None, 80.0)]
    loaded = [create_model(teacher.model, image_size=SIDE) for teacher in definitions]
    loaded = [loaded[0]._replace(preprocess=PLAIN), loaded[1]._replace(preprocess=CLIP)]
    for item in loaded:
        for layer in item.model.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.running_mean.normal_(0, 0.2)
    return TeacherEnsemble(definitions, loaded)


@pytest.fixture(scope="module")
def images():
    return torch.randint(0, 256, (5, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_each_teacher_sees_its_own_normalisation(ensemble, images):
    picture = Image.fromarray(images[0].permute(1, 2, 0).numpy())
    for name in ensemble.names:
        model, preprocess, _ = ensemble.loaded(name)
        with torch.no_grad():
            alone = F.normalize(model.encode_image(preprocess(picture)[None]), dim=-1)
        torch.testing.assert_close(ensemble.embed_images(name, images[:1]), alone, atol=2e-6, rtol=1e-4)
    assert ensemble.preprocesses["plain"] != ensemble.preprocesses["clip"]


def test_embeddings_are_unit_float32_and_detached(ensemble, images):
    for name in ensemble.names:
        rows = ensemble.embed_images(name, images), ensemble.embed_texts(name, ["a cat", "", "two red apples " * 30])
        for row in rows:
            assert row.dtype == torch.float32
            assert not row.requires_grad
            torch.testing.assert_close(row.norm(dim=-1), torch.ones(len(row)))
        assert ensemble.embed_texts(name, []).shape == (0, rows[0].shape[1])


def test_texts_do_not_depend_on_their_neighbours(ensemble):
    texts = ["a cat", "a very long caption about a green bicycle left of a red tomato on a striped background"]
    together = ensemble.embed_texts("clip", texts)
    torch.testing.assert_close(together[:1], ensemble.embed_texts("clip", texts[:1]), atol=2e-6, rtol=1e-4)


def test_training_mode_never_reaches_a_teacher(ensemble, images):
    student = torch.nn.ModuleDict({"student": torch.nn.Linear(2, 2), "teachers": ensemble})
    before = ensemble.embed_images("plain", images)
    student.train()
    assert not any(layer.training for layer in ensemble.modules())
    assert not any(parameter.requires_grad for parameter in ensemble.parameters())
    assert torch.equal(ensemble.embed_images("plain", images), before)


def test_moves_and_saves_as_one(ensemble, images, tmp_path):
    folder = save_teachers(ensemble, tmp_path / "pair")
    again = load_teachers(folder)
    assert again.names == ensemble.names
    assert again.logit_scales == {"plain": 50.0, "clip": 80.0}
    for name in again.names:
        assert torch.equal(again.embed_images(name, images), ensemble.embed_images(name, images))
        assert torch.equal(again.embed_texts(name, ["a"]), ensemble.embed_texts(name, ["a"]))
    state = ensemble.state_dict()
    again.load_state_dict(state)
    assert again.double().models[0].logit_scale.dtype == torch.float64


def test_wrong_pictures_and_names_are_refused(ensemble, images):
    with pytest.raises(ValueError, match=rf"uint8 images \(N, 3, {SIDE}, {SIDE}\)"):
        ensemble.embed_images("plain", images.float())
    with pytest.raises(ValueError, match=f"{SIDE}, {SIDE}"):
        ensemble.embed_images("plain", images[..., 1:, 1:])
    with pytest.raises(KeyError, match=r"there are plain, clip"):
        ensemble.embed_images("other", images)
    with pytest.raises(ValueError, match="different names"):
        TeacherEnsemble([Teacher("a", "x")] * 2, [ensemble.loaded("plain")] * 2)
    with pytest.raises(ValueError, match="dtype"):
        TeacherEnsemble([Teacher("a", "x", dtype="int4")], [ensemble.loaded("plain")])


def test_logit_scale_comes_from_definition_then_card_then_model(ensemble):
    loaded = ensemble.loaded("plain")
    scale = lambda teacher, card: TeacherEnsemble([teacher], [loaded], [card]).logit_scales["t"]  # noqa: E731
    assert scale(Teacher("t", "m", None, 33.0), {"logit_scale": 44.0}) == 33.0
    assert scale(Teacher("t", "m"), {"logit_scale": 44.0}) == 44.0
    assert scale(Teacher("t", "m"), {}) == pytest.approx(1 / 0.07, rel=1e-4)
    with pytest.raises(ValueError, match="positive"):
        scale(Teacher("t", "m"), {"logit_scale": math.inf})


def test_a_sigmoid_teacher_brings_its_bias(tmp_path):
    loaded = create_model("lite-mci-s")
    config = {**loaded.model.model_cfg, "init_logit_bias": -10.0, "init_logit_scale": math.log(10)}
    folder = tmp_path / "sigmoid"
    folder.mkdir()
    text = {"model_cfg": config, "preprocess_cfg": loaded.preprocess.to_config()}
    (folder / "config.json").write_text(json.dumps(text), "utf-8")
    from safetensors.torch import save_file

    from mobileclip2_lite.models.zoo import build

    save_file(
        {key: value.contiguous() for key, value in build(config).state_dict().items()}, folder / "model.safetensors"
    )
    teachers = load_teachers([str(folder)])
    assert teachers.logit_biases == {"sigmoid": -10.0}
    assert teachers.logit_scales["sigmoid"] == pytest.approx(10)
    logits = teachers.logits("sigmoid", torch.eye(2), torch.eye(2))
    torch.testing.assert_close(logits, 10 * torch.eye(2) - 10)


def test_half_precision_teachers_stay_close(ensemble, images):
    fast = TeacherEnsemble([Teacher("t", "m", dtype="bf16")], [ensemble.loaded("plain")])
    slow = ensemble.embed_images("plain", images)
    assert F.cosine_similarity(fast.embed_images("t", images), slow).min() > 0.995
    assert not torch.equal(fast.embed_images("t", images), slow)


def test_embedded_names_load_from_the_data_folder_and_check_their_card(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "data_folder", lambda: tmp_path)
    with pytest.raises(FileNotFoundError, match="train_teacher"):
        load_teachers("embedded")
    for teacher in EMBEDDED_PAIR:
        loaded = create_model(teacher.name)
        save_model(loaded, tmp_path / "teachers" / teacher.name, name=teacher.name, card={"logit_scale": 42.0})
    names = tuple(teacher.name for teacher in EMBEDDED_PAIR)[::-1]
    pair = load_teachers(names)
    assert pair.names == names
    assert set(pair.logit_scales.values()) == {42.0}
    assert all(len(card.sha256) == 64 and card.dimension for card in pair.cards.values())
    weights = tmp_path / "teachers" / names[0] / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ValueError, match=r"not the file that card\.json"):
        load_teachers("embedded")


def test_any_embedded_model_teaches_with_its_own_weights(repository):
    """Of `data/`, whatever its kind: a name that is an architecture's, too, must not become random weights."""
    weak = load_teachers(("lite-dfn",))
    card = json.loads((repository / "data" / "scorers" / "lite-dfn" / "card.json").read_text("utf-8"))
    assert weak.cards["lite-dfn"].sha256 == card["sha256"]
    assert weak.logit_scales["lite-dfn"] == card["logit_scale"]
    with pytest.raises(ValueError, match=r"teacher 'lite-mci-s' names an architecture, whose weights would be random"):
        load_teachers(("lite-mci-s",))


def test_ready_made_pairs_are_the_papers():
    assert [(t.model, t.pretrained, t.logit_scale) for t in PAPER_PAIR] == [
        ("ViT-L-14", "dfn2b", 70.0),
        ("ViT-L-14", "dfn2b_s39b", 60.0),
    ]
    assert [(t.pretrained, t.logit_scale) for t in V1_PAIR] == [("openai", 100.0), ("datacomp_xl_s13b_b90k", 100.0)]
    import open_clip

    for teacher in PAPER_PAIR + V1_PAIR:
        assert open_clip.get_pretrained_cfg(teacher.model, teacher.pretrained), teacher
