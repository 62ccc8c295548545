"""Weights as trainers and hubs leave them: loaded, or refused with what to do."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from doubles.tiny_training import write_model
from safetensors.torch import save_file

from mobileclip2_lite.models.hub import snapshot
from mobileclip2_lite.models.resolve import resolve
from mobileclip2_lite.models.weights import read_state
from mobileclip2_lite.models.zoo import create_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def state(folder):
    return read_state(folder / "model.safetensors")


@pytest.fixture
def beside(folder, tmp_path):
    """A folder with the model's config alone."""
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    return tmp_path


def loads(path, state) -> bool:
    found = create_model(path).model.state_dict()
    return all(torch.equal(found[key], value) for key, value in state.items())


@pytest.mark.parametrize(
    "prefix",
    ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model.", "model.module._orig_mod.", ""],
)
@pytest.mark.parametrize("wrapper", ["state_dict", "model", None])
def test_what_trainers_put_around_weights_is_taken_off(beside, state, prefix, wrapper):
    content = {prefix + key: value for key, value in state.items()}
    torch.save({wrapper: content, "epoch": 3} if wrapper else content, beside / "last.pt")
    assert loads(beside / "last.pt", state)


@pytest.mark.parametrize("key", ["state_dict_ema", "model_ema", "ema"])
@pytest.mark.parametrize("nested", [False, True])
def test_a_moving_average_beside_the_raw_weights_is_taken_and_said(beside, state, key, nested):
    raw = {name: torch.zeros_like(value) for name, value in state.items()}
    average = {"module." + name: value for name, value in state.items()}
    torch.save({"state_dict": raw, key: {"state_dict": average} if nested else average}, beside / "last.pth")
    with pytest.warns(UserWarning, match=f"moving average.*{key}.*the average is taken"):
        assert loads(beside / "last.pth", state)


def test_one_key_that_is_no_models_is_named_and_the_others_fit(beside, state):
    torch.save(
        {**{f"module.{key}": value for key, value in state.items()}, "teacher.w": torch.zeros(1)}, beside / "a.pt"
    )
    with pytest.raises(ValueError, match=r"1 unknown: teacher\.w$"):
        create_model(beside / "a.pt")
    torch.save({**state, "module.logit_scale": torch.zeros(())}, beside / "b.pt")
    with pytest.raises(ValueError, match="holds logit_scale twice"):
        create_model(beside / "b.pt")


@pytest.mark.parametrize("index", [False, True])
def test_weights_in_parts_are_read_whole(beside, state, index):
    keys, names = sorted(state), [f"model-{number:05d}-of-00003.safetensors" for number in (1, 2, 3)]
    for number, name in enumerate(names):
        save_file({key: state[key] for key in keys[number::3]}, beside / name)
    if index:
        (beside / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {}}), "utf-8")
    assert loads(beside, state)
    assert loads(beside / names[1], state)
    (beside / names[2]).unlink()
    with pytest.raises(FileNotFoundError, match="one of 3 parts; not beside it: model-00003-of-00003"):
        create_model(beside)


def test_all_parts_are_fetched_from_the_hub(monkeypatch, tmp_path):
    import huggingface_hub

    files = ["config.json", "README.md", *(f"model-0000{n}-of-00002.safetensors" for n in (1, 2)), "other.bin"]
    fetched = []

    def missing(*_, **__):
        raise OSError("not there")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", missing)
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda *_, **__: files)
    monkeypatch.setattr(
        huggingface_hub, "hf_hub_download", lambda _, file, **__: fetched.append(file) or str(tmp_path / file)
    )
    assert snapshot("owner/name") == tmp_path
    assert fetched == ["config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


def test_torchscript_is_not_run_and_the_error_says_what_to_take(beside):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(beside / "ViT-B-32.pt"))
    with pytest.raises(ValueError, match=r'TorchScript.*not run here.*create_model\("ViT-B-32", "openai"\)'):
        create_model(beside / "ViT-B-32.pt")


def test_a_transformers_folder_is_recognised(tmp_path, beside):
    place = tmp_path / "clip-vit-base-patch32"
    place.mkdir()
    config = {"architectures": ["CLIPModel"], "model_type": "clip", "vision_config": {}}
    (place / "config.json").write_text(json.dumps(config), "utf-8")
    save_file({"vision_model.embeddings.class_embedding": torch.zeros(8)}, place / "model.safetensors")
    for named in (place, f"local-dir:{place}"):
        with pytest.raises(ValueError, match=r"library transformers.*by name and tag"):
            create_model(named)
    save_file({"text_model.final_layer_norm.weight": torch.zeros(8)}, beside / "model.safetensors")
    with pytest.raises(ValueError, match=r"library transformers.*by name and tag"):
        create_model(beside)


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt", "model-00001-of-00001.safetensors"])
def test_a_git_lfs_pointer_is_recognised(beside, name):
    (beside / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 605000000\n", "utf-8")
    with pytest.raises(ValueError, match=r"Git LFS pointer.*git lfs pull"):
        create_model(beside)


def test_names_as_people_write_them(folder, state, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.setenv("USERPROFILE", str(folder.parent))
    assert loads(f"~/{folder.name}", state)
    with pytest.raises(ValueError, match=r"open_clip calls it 'ViT-B-32'"):
        resolve("ViT-B/32")
    with pytest.raises(ValueError, match="has no weights 'nothing'"):
        resolve("ViT-B-32@nothing")
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        resolve("local-dir:~/nothing")
