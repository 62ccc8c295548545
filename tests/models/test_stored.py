"""Models at addresses: a bucket's folder, a web server's, which lists nothing, or one weights file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from doubles.faulty_store import served
from doubles.tiny_training import write_model
from safetensors.torch import load_file, save_file

from mobileclip2_lite.deployment.runtime import towers_here
from mobileclip2_lite.models.embedded import find, load
from mobileclip2_lite.models.zoo import create_model
from mobileclip2_lite.work.place import place_of


@pytest.fixture(autouse=True)
def cached(tmp_path, monkeypatch) -> None:
    pytest.importorskip("obstore", reason="the extra 'scale' is not installed")
    monkeypatch.setenv("MOBILECLIP2_LITE_CACHE", str(tmp_path / "cache"))


def same(found, folder: Path) -> bool:
    wanted = load_file(folder / "model.safetensors")
    state = found.model.state_dict()
    return state.keys() == wanted.keys() and all(torch.equal(state[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("missing", [404, 403])
def test_a_models_folder_is_read_from_a_web_server(tmp_path, missing):
    """Networks that hide what they hold answer 403 for what is not there."""
    folder = write_model(tmp_path / "web" / "model")
    apart = shutil.copytree(folder, tmp_path / "web" / "apart")
    (apart / "config.json").rename(apart / "open_clip_config.json")
    state = load_file(apart / "model.safetensors")
    (apart / "model.safetensors").unlink()
    names = sorted(state)
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: state[name] for name in part}, apart / file)
        weight_map |= dict.fromkeys(part, file)
    (apart / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}), "utf-8")
    with served(tmp_path / "web", missing) as address:
        assert same(create_model(f"{address}/model"), folder)
        assert same(create_model(f"{address}/model/model.safetensors"), folder)
        assert same(create_model(f"{address}/apart"), folder)
        assert same(create_model(f"{address}/apart/model-00001-of-00002.safetensors"), folder)
        assert same(create_model(str(folder)), folder)
        assert same(load(f"{address}/model"), folder)
        assert Path(find(f"{address}/model")[0]).name == "model"


def test_weights_of_any_name_are_named_themselves(tmp_path, store):
    folder = write_model(tmp_path / "web" / "model")
    (folder / "model.safetensors").rename(folder / "epoch_9.safetensors")
    (folder / "epoch_8.pt").write_bytes(b"another one")
    for path in folder.iterdir():
        (place_of("s3://bucket/model") / path.name).store.create(path)
    with served(tmp_path / "web") as address:
        with pytest.raises(FileNotFoundError, match=r"no weights of a known name \(open_clip_model.*: name the"):
            create_model(f"{address}/model")
        with pytest.raises(FileNotFoundError, match="no weights of a known name"):
            create_model(f"{address}/nothing")
        for where in (f"{address}/model", "s3://bucket/model"):
            found = create_model(f"{where}/epoch_9.safetensors")
            (folder / "model.safetensors").write_bytes((folder / "epoch_9.safetensors").read_bytes())
            assert same(found, folder)


def test_the_weights_of_a_named_model_may_lie_at_an_address(tmp_path, store):
    lite = create_model("lite-mci-s")
    file = tmp_path / "web" / "weights.safetensors"
    file.parent.mkdir()
    save_file({name: value.contiguous() for name, value in lite.model.state_dict().items()}, file)
    place_of("s3://bucket/weights.safetensors").store.create(file)
    with served(tmp_path / "web") as address:
        for where in (address, "s3://bucket"):
            found = create_model("lite-mci-s", pretrained=f"{where}/weights.safetensors")
            assert torch.equal(found.model.logit_scale, lite.model.logit_scale)
            first, other = next(iter(found.model.parameters())), next(iter(lite.model.parameters()))
            assert torch.equal(first, other)


def test_a_model_that_a_bucket_does_not_list_yet_is_read(tmp_path, store):
    folder = write_model(tmp_path / "model")
    for path in folder.iterdir():
        (place_of("s3://bucket/model") / path.name).store.create(path)
    store.faults.deny = lambda request: "blind" if "list-type" in request.path else None
    assert same(create_model("s3://bucket/model"), folder)
    assert store.faults.done["blind"]
    with pytest.raises(FileNotFoundError, match="no weights of a known name"):
        create_model("s3://bucket/nothing")


def test_apples_own_names_are_asked_for(tmp_path):
    folder = tmp_path / "web" / "MobileCLIP2-S0"
    folder.mkdir(parents=True)
    (folder / "mobileclip2_s0.pt").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n")
    with served(tmp_path / "web") as address, pytest.raises(ValueError, match="Git LFS"):
        create_model(f"{address}/MobileCLIP2-S0")


def test_exported_towers_are_found_by_their_names(tmp_path):
    folder = tmp_path / "web" / "towers"
    folder.mkdir(parents=True)
    for name in ("image.onnx", "text.onnx", "image.int8.onnx", "text.int8.onnx", "export.json"):
        (folder / name).write_bytes(name.encode())
    with served(tmp_path / "web") as address:
        assert {path.name for path in towers_here(f"{address}/towers").iterdir()} == {
            *("image.onnx", "text.onnx", "export.json")
        }
        assert (towers_here(f"{address}/towers", "int8") / "text.int8.onnx").read_bytes() == b"text.int8.onnx"
