"""Export: the files equal PyTorch, carry what they need, and work without this package's models."""

from __future__ import annotations

import importlib.machinery
import json
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image

from mobileclip2_lite import emoji_world, recipes
from mobileclip2_lite.deployment.export import export_onnx, table
from mobileclip2_lite.deployment.mobile import check_coreml, export_coreml, export_litert
from mobileclip2_lite.deployment.runtime import load_exported
from mobileclip2_lite.models.embedded import data_folder
from mobileclip2_lite.models.zoo import create_model

onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra `export`")
pytest.importorskip("onnxscript", reason="needs the extra `export`")


def pictures(count):
    """Smooth random pictures of odd sizes."""
    for seed in range(count):
        random = np.random.default_rng(seed)
        small = random.integers(0, 256, (5, 7, 3), dtype=np.uint8)
        yield Image.fromarray(small).resize((60 + 9 * seed, 71), Image.Resampling.BICUBIC)


def settle_batch_norms(loaded) -> None:
    """Batch norm statistics as after training: the lite towers' first weights are small, and eval mode shows it."""
    norms = [module for module in loaded.model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    loaded.model.train()
    with torch.no_grad():
        loaded.model.encode_image(torch.stack([loaded.preprocess(picture) for picture in pictures(12)]))
    loaded.model.eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    torch.manual_seed(0)
    loaded = create_model("lite-mci-s")
    settle_batch_norms(loaded)
    folder = tmp_path_factory.mktemp("export")
    before = {key: value.clone() for key, value in loaded.model.state_dict().items()}
    rows = export_onnx(loaded, folder, precisions=("fp16", "int8"), images=list(pictures(12)), name="test")
    assert all(torch.equal(value, before[key]) for key, value in loaded.model.state_dict().items())
    return loaded, folder, rows


def test_int8_of_a_trained_model_keeps_its_directions(tmp_path):
    loaded = create_model(data_folder() / "teachers" / "lite-teacher-conv")
    scenes = emoji_world.retrieval_set(recipes.lite().world, 24)
    images = [Image.fromarray(pixels) for pixels in scenes.images]
    rows = export_onnx(loaded, tmp_path, precisions=("int8",), images=images, texts=[c[0] for c in scenes.captions])
    assert all(row.cosine > 0.9 for row in rows), rows


def test_every_file_is_close_and_smaller(exported):
    _, folder, rows = exported
    assert [(row.tower, row.precision) for row in rows] == [
        (tower, precision) for tower in ("image", "text") for precision in ("fp32", "fp16", "int8")
    ]
    for row in rows:
        assert (folder / row.file).stat().st_size / 1e6 == pytest.approx(row.megabytes, abs=1e-3)
        if row.precision == "fp32":
            assert row.difference < 1e-5
        # int8 of random weights is coarse; a trained model has its own test
        assert row.cosine > {"fp32": 0.99999, "fp16": 0.9999, "int8": 0.4}[row.precision]
    for tower in ("image", "text"):
        sizes = [row.megabytes for row in rows if row.tower == tower]
        assert sizes[0] > 1.7 * sizes[1] > 1.7 * 1.4 * sizes[2]
    saved = json.loads((folder / "export.json").read_text("utf-8"))
    assert saved["files"][0]["file"] == "image.onnx"
    assert table(rows).count("\n") == 1 + len(rows)


def test_towers_run_from_their_files_alone(exported):
    loaded, folder, _ = exported
    towers = load_exported(folder, threads=1)
    assert towers.preprocess == loaded.preprocess
    assert towers.logit_scale == pytest.approx(float(loaded.model.logit_scale.detach().exp()))
    images, texts = list(pictures(5)), ["a cat", "", "three green bicycles " * 20]
    with torch.no_grad():
        pixels = torch.stack([loaded.preprocess(image) for image in images])
        wanted_images = loaded.model.encode_image(pixels, normalize=True).numpy()
        wanted_texts = loaded.model.encode_text(loaded.tokenizer(texts), normalize=True).numpy()
    np.testing.assert_allclose(towers.embed_images(images), wanted_images, atol=1e-5)
    np.testing.assert_allclose(towers.embed_texts(texts), wanted_texts, atol=1e-5)
    for count in (1, 3):
        np.testing.assert_allclose(towers.embed_images(images[:count]), wanted_images[:count], atol=1e-5)


def test_metadata_says_how_to_use_the_file(exported):
    loaded, folder, _ = exported
    for precision in ("", ".fp16", ".int8"):
        session = onnxruntime.InferenceSession(folder / f"image{precision}.onnx", providers=["CPUExecutionProvider"])
        meta = session.get_modelmeta().custom_metadata_map
        assert json.loads(meta["preprocess"]) == loaded.preprocess.to_config()
        assert meta["model"] == "test"
        assert session.get_inputs()[0].name == "pixels"
        assert session.get_inputs()[0].shape[1:] == [3, loaded.preprocess.image_size, loaded.preprocess.image_size]
        assert isinstance(session.get_inputs()[0].shape[0], str), "a dynamic batch"
        assert session.get_outputs()[0].name == "features"
    session = onnxruntime.InferenceSession(folder / "text.onnx", providers=["CPUExecutionProvider"])
    tokenizer = json.loads(session.get_modelmeta().custom_metadata_map["tokenizer"])
    assert tokenizer == {"vocab_size": 4096, "context_length": loaded.model.context_length}


def test_wrong_requests_are_refused(exported, tmp_path, monkeypatch):
    loaded, _, _ = exported
    with pytest.raises(ValueError, match="unknown precisions"):
        export_onnx(loaded, tmp_path, precisions=("int4",))
    with pytest.raises(ValueError, match="int8 needs images"):
        export_onnx(loaded, tmp_path, precisions=("int8",))
    with pytest.raises(FileNotFoundError, match="export the model first"):
        load_exported(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"mobileclip2_lite\[export\]"):
        export_onnx(loaded, tmp_path)


def test_a_wrong_export_is_not_kept(exported, tmp_path, monkeypatch):
    import mobileclip2_lite.deployment.export as module

    loaded, _, _ = exported
    write = module.write_onnx

    def wrong(tower, *args):
        with torch.no_grad():
            tower.visual.trunk.head.fc.bias += 1
        write(tower, *args)

    monkeypatch.setattr(module, "write_onnx", wrong)
    with pytest.raises(ValueError, match="image tower's export differs"):
        export_onnx(loaded, tmp_path)
    assert not (tmp_path / "image.onnx").exists()


@pytest.mark.slow
def test_core_ml_has_fixed_and_flexible_shapes_and_carries_the_metadata(exported, tmp_path):
    coremltools = pytest.importorskip("coremltools", reason="needs the extra `coreml`")
    loaded, _, _ = exported
    paths = export_coreml(loaded, tmp_path, "test", flexible=True)
    assert [path.name for path in paths] == [
        f"{tower}{suffix}.mlpackage" for tower in ("image", "text") for suffix in ("", ".flexible")
    ]
    for path in paths:
        description = coremltools.utils.load_spec(str(path)).description
        assert description.metadata.userDefined["model"] == "test"
        (given,) = description.input
        assert given.name == ("pixels" if path.name.startswith("image") else "tokens")
        batch = given.type.multiArrayType.shapeRange.sizeRanges
        wanted = [(1, 64)] if "flexible" in path.name else []
        assert [(one.lowerBound, one.upperBound) for one in batch[:1]] == wanted
        assert given.type.multiArrayType.shape[0] == 1
    meta = coremltools.utils.load_spec(str(paths[0])).description.metadata.userDefined
    assert json.loads(meta["preprocess"]) == loaded.preprocess.to_config()


class OnMac:
    """In place of coremltools' model, which predicts on macOS alone: what a tower says in half precision."""

    def __init__(self, say):
        self.say = say

    def get_spec(self):
        return types.SimpleNamespace(description=types.SimpleNamespace(input=[types.SimpleNamespace(name="tokens")]))

    def predict(self, given):
        return {"features": self.say(torch.from_numpy(given["tokens"])).detach().half().numpy()}


def test_a_core_ml_tower_that_differs_is_refused_where_it_can_run():
    table_of = torch.nn.Embedding(50, 8)
    tower = torch.nn.Sequential(table_of, torch.nn.Flatten(), torch.nn.Linear(24, 6))
    tokens = torch.randint(0, 50, (5, 3), dtype=torch.int32)
    check_coreml(OnMac(tower), tower, tokens, "text")
    with pytest.raises(ValueError, match=r"the text tower's Core ML export differs from PyTorch: cosine"):
        check_coreml(OnMac(lambda given: tower(given.flip(1))), tower, tokens, "text")
    with pytest.raises(ValueError, match="cosine nan"):
        check_coreml(OnMac(lambda given: tower(given) * torch.nan), tower, tokens, "text")


@pytest.mark.slow
def test_litert_equals_pytorch(exported, tmp_path):
    pytest.importorskip("litert_torch", reason="needs the extra `litert`")
    loaded, _, _ = exported
    rows = export_litert(loaded, tmp_path, "test")
    assert [(row.tower, row.precision, row.file) for row in rows] == [
        ("image", "litert", "image.tflite"),
        ("text", "litert", "text.tflite"),
    ]
    assert max(row.difference for row in rows) < 1e-5
    facts = json.loads((tmp_path / "litert.json").read_text("utf-8"))
    assert json.loads(facts["image"]["preprocess"]) == loaded.preprocess.to_config()


def test_litert_is_given_no_weight_that_it_would_copy(tmp_path, monkeypatch):
    """Of a weight in another layout the converter makes a copy, whose address it takes for the weight's name."""
    seen = []

    def convert(module, inputs):
        seen.append({name: weight.is_contiguous() for name, weight in module.state_dict().items()})
        raise RuntimeError("stop here")

    fake = types.ModuleType("litert_torch")
    fake.__spec__, fake.convert = importlib.machinery.ModuleSpec("litert_torch", None), convert
    monkeypatch.setitem(sys.modules, "litert_torch", fake)
    loaded = create_model("lite-mci-s")
    laid_out = [weight.is_contiguous() for weight in loaded.model.visual.state_dict().values()]
    assert not all(laid_out), "the towers are channels-last"
    with pytest.raises(RuntimeError, match="stop here"):
        export_litert(loaded, tmp_path)
    assert all(seen[0].values())
    assert [weight.is_contiguous() for weight in loaded.model.visual.state_dict().values()] == laid_out


def test_a_missing_converter_names_its_extra(exported, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for export, extra in ((export_coreml, "coreml"), (export_litert, "litert")):
        with pytest.raises(ModuleNotFoundError, match=rf"mobileclip2_lite\[{extra}\]"):
            export(exported[0], tmp_path)


@pytest.mark.slow
def test_a_whole_mobileclip2_exports(tmp_path):
    loaded = create_model("MobileCLIP2-S0")
    rows = export_onnx(loaded, tmp_path, images=list(pictures(2)))
    assert max(row.difference for row in rows) < 1e-4


def test_the_tokenizers_settings_travel_into_the_export(monkeypatch, tmp_path):
    """SigLIP's tokenizer cleans texts otherwise: an export that forgot it would embed other tokens."""
    import open_clip

    from mobileclip2_lite.deployment.export import tower_metadata
    from mobileclip2_lite.deployment.runtime import _tokenizer
    from mobileclip2_lite.models.tokenizer import tokenizer_of

    loaded = create_model("lite-mci-s")
    plain, text = loaded.tokenizer, dict(loaded.model.model_cfg["text_cfg"], tokenizer_kwargs={"clean": "canonicalize"})
    loaded.model.model_cfg = {**loaded.model.model_cfg, "text_cfg": text}
    metadata = json.loads(tower_metadata(loaded, "text", "x")["tokenizer"])
    texts = ["A Photo, of a Cat!"]
    wanted = tokenizer_of(loaded.model.model_cfg, "x")(texts)
    assert torch.equal(_tokenizer(metadata, tmp_path)(texts), wanted)
    assert not torch.equal(plain(texts), wanted)

    asked = []
    monkeypatch.setattr(open_clip.tokenizer, "HFTokenizer", lambda name, **options: asked.append((name, options)))
    text |= {"hf_tokenizer_name": "owner/name", "tokenizer_mode": "clips"}
    _tokenizer(json.loads(tower_metadata(loaded, "text", "x")["tokenizer"]), tmp_path)
    tokenizer_of(loaded.model.model_cfg, "x")
    options = {"context_length": text["context_length"], "tokenizer_mode": "clips", "clean": "canonicalize"}
    assert asked == [("owner/name", options)] * 2


def test_a_sigmoid_models_bias_travels_into_the_export():
    loaded = create_model("lite-mci-s")
    from mobileclip2_lite.deployment.export import tower_metadata

    loaded.model.logit_bias = torch.nn.Parameter(torch.tensor(-12.93))
    assert float(tower_metadata(loaded, "image", "x")["logit_bias"]) == pytest.approx(-12.93)


def test_the_command_shows_int8_the_images_that_are_named(tmp_path, monkeypatch, capsys):
    import mobileclip2_lite.deployment.export as module
    from mobileclip2_lite.cli import main

    seen = []
    monkeypatch.setattr(module, "export_onnx", lambda *_, images, **__: seen.append([one.size for one in images]) or [])
    (tmp_path / "own" / "below").mkdir(parents=True)
    for number in range(70):
        Image.new("RGB", (9, 10 + number)).save(tmp_path / "own" / "below" / f"{number:02d}.png")
    (tmp_path / "own" / "broken.jpg").write_bytes(b"no image")
    words = ["export", str(data_folder() / "teachers" / "lite-teacher-conv"), str(tmp_path / "out")]
    main([*words, "--precisions", "int8", "--images", str(tmp_path / "own")])
    assert seen[0][0] == (9, 10)
    assert 20 <= len(seen[0]) <= 32
    assert seen[0][-1][1] > 70, "from all over the folder"
    main(words)
    assert set(seen[1]) == {(256, 256)}
    with pytest.raises(SystemExit):
        main([*words, "--images", str(tmp_path / "nowhere")])
    assert "is not a folder" in capsys.readouterr().err
