"""Weights as trainers and hubs leave them: loaded, or refused with what to do."""

from __future__ import annotations

import json
import pickle
import warnings
import zipfile
from fractions import Fraction

import pytest
import torch
from doubles.tiny_training import write_model
from safetensors.torch import save, save_file

from mobileclip2_lite.models.hub import snapshot
from mobileclip2_lite.models.resolve import resolve
from mobileclip2_lite.models.weight_files import read_state
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
    ["module.", "_orig_mod.", "_orig_mod.module.", "model.module._orig_mod.", "net.", "module.student.clip.", ""],
)
@pytest.mark.parametrize("wrapper", ["state_dict", "model", "network", None])
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


def test_of_several_models_one_is_to_be_saved_alone(beside, state):
    both = {f"{name}.{key}": value for name in ("student", "teacher") for key, value in state.items()}
    torch.save({"state_dict": both}, beside / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt: it holds several models, student\., teacher\.: save one alone"):
        create_model(beside / "a.pt")
    torch.save({"generator": state, "discriminator": state}, beside / "b.pt")
    with pytest.raises(ValueError, match=r"several sets of weights, \['generator', 'discriminator'\]: save one alone"):
        create_model(beside / "b.pt")


def test_the_count_of_torchs_averaged_model_is_no_weight(beside, state):
    assert "n_averaged" in torch.optim.swa_utils.AveragedModel(torch.nn.Linear(2, 2)).state_dict()
    averaged = {f"module.{key}": value for key, value in state.items()}
    torch.save({**averaged, "n_averaged": torch.tensor(7)}, beside / "a.pt")
    assert loads(beside / "a.pt", state)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_not_finite_are_refused(beside, state, value):
    broken = {key: tensor.clone() for key, tensor in state.items()}
    broken["text.ln_final.weight"].view(-1)[3] = value
    save_file(broken, beside / "a.safetensors")
    with pytest.raises(
        ValueError, match=r"not finite, in 1 of \d+ tensors \(text.ln_final.weight\).*earlier checkpoint"
    ):
        create_model(beside / "a.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        lambda tensor: tensor.to(torch.int8),
        lambda tensor: tensor.to(torch.complex64),
        lambda tensor: tensor.to_sparse(),
        lambda tensor: tensor.to("meta"),
    ],
    ids=["int8", "complex", "sparse", "meta"],
)
def test_tensors_of_another_kind_are_refused(beside, state, change):
    key = "text.token_embedding.weight"
    torch.save({**state, key: change(state[key])}, beside / "a.pt")
    with pytest.raises(ValueError, match=f"1 quantised, complex, sparse or without content: {key}"):
        create_model(beside / "a.pt")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions_are_read(beside, state, dtype):
    save_file({key: value.to(dtype) for key, value in state.items()}, beside / "a.safetensors")
    assert loads(beside / "a.safetensors", {key: value.to(dtype).float() for key, value in state.items()})


def test_safetensors_may_begin_with_any_length(beside, state):
    """The file begins with the length of its header, which may look like another kind of file: here like a zip."""
    data = save(state)
    length = int.from_bytes(data[:8], "little")
    more = (int.from_bytes(b"PK", "little") - length) % 0x10000
    (beside / "a.safetensors").write_bytes(
        (length + more).to_bytes(8, "little") + data[8 : 8 + length] + b" " * more + data[8 + length :]
    )
    assert loads(beside / "a.safetensors", state)


def test_a_file_is_read_as_what_it_is(beside, state):
    torch.save(state, beside / "torch.safetensors")
    assert loads(beside / "torch.safetensors", state)
    save_file(state, beside / "safe.pt")
    assert loads(beside / "safe.pt", state)


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt", "pytorch_model.bin"])
@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"\n<!DOCTYPE html><html>404</html>" + b" " * 900, "a web page or a server's answer"),
        (b'{"error":"Repository not found"}', "it is JSON, a server's answer perhaps: fetch it again"),
        (b"\x1f\x8b\x08" + bytes(99), "compressed with gzip: unpack it"),
        (b"", "not a whole safetensors file|truncated"),
        (b"PK\x03\x04" + bytes(99), "truncated"),
        (pickle.dumps({"a": Fraction(1, 2)}), "not a whole safetensors file|refused"),
    ],
)
def test_what_is_no_weights_file_is_named(beside, name, content, match):
    (beside / name).write_bytes(content)
    with pytest.raises(ValueError, match=match) as caught:
        create_model(beside)
    assert "weights_only" not in str(caught.value), "no word of how to switch the guard off"


def test_a_zip_of_other_things_is_named(beside):
    with zipfile.ZipFile(beside / "model.pt", "w") as archive:
        archive.writestr("inside/model.safetensors", b"x")
    with pytest.raises(ValueError, match=r"zip file of other things \(inside/model.safetensors\): unpack it"):
        create_model(beside)


def test_an_index_names_the_parts(beside, state):
    keys, names = sorted(state), ["a.safetensors", "b.safetensors"]
    for number, name in enumerate(names):
        save_file({key: state[key] for key in keys[number::2]}, beside / name)
    places = {key: names[number % 2] for number, key in enumerate(keys)}
    (beside / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}), "utf-8")
    assert loads(beside, state)
    (beside / "a.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"one of 2 parts; not beside it: a.safetensors"):
        create_model(beside)
    (beside / "b.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"an index, but none of the 2 parts"):
        create_model(beside)


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
    fetched.clear()
    files[:] = ["config.json", "model.safetensors.index.json", "a.safetensors", "b.safetensors", "other.bin"]
    index = {"weight_map": {"x": "a.safetensors", "y": "b.safetensors", "z": "nowhere.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    snapshot("owner/name")
    assert fetched == ["config.json", "model.safetensors.index.json", "a.safetensors", "b.safetensors"]


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
