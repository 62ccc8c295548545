"""Each stage puts its models and inputs on the device it was told, on a GPU that is none (`doubles.accelerator`)."""

from __future__ import annotations

import dataclasses
import pickle

import pytest
import torch
from doubles.accelerator import OnGpu, accelerator
from doubles.fake_teachers import sample, write_pairs
from doubles.tiny_training import write_captioner, write_model

from mobileclip2_lite import recipes
from mobileclip2_lite.captioning.stage import caption
from mobileclip2_lite.evaluation.suite import evaluate
from mobileclip2_lite.filtering.stage import filter_pairs
from mobileclip2_lite.models.embedded import Travelling, load, pick_device
from mobileclip2_lite.reinforcement.stage import reinforce
from mobileclip2_lite.reports.captions import caption_report
from mobileclip2_lite.work.files import sha256_file


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {"clip": write_model(folder / "clip"), "captioner": write_captioner(folder / "captioner")}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("pairs") / "pairs", [[sample(i, captions=0) for i in range(3)]])


STAGES = {
    "filter": lambda models, pairs, out, **how: filter_pairs(
        recipes.Filter(scorer=str(models["clip"]), keep=0.7), pairs, out, **how
    ),
    "caption": lambda models, pairs, out, **how: caption(
        recipes.Caption(captioners=(str(models["captioner"]),), generate=recipes.Generate(captions=2, max_length=8)),
        pairs,
        out,
        **how,
    ),
    "reinforce": lambda models, pairs, out, **how: reinforce(
        recipes.Reinforce(teachers=(str(models["clip"]),), views=2), pairs, out, **how
    ),
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("device", [None, "cuda", "cpu"])
def test_a_stage_works_where_it_was_told(stage, device, models, pairs, tmp_path, monkeypatch):
    with accelerator(monkeypatch) as gpu:
        manifest = STAGES[stage](models, pairs, tmp_path / "out", device=device)
    assert manifest["samples"] >= 2
    assert (gpu.operations > 50) == (device != "cpu"), "where there is a GPU it is taken, unless another is named"


def test_a_model_that_is_evaluated_is_on_the_device(models, monkeypatch):
    world = recipes.tiny().world
    settings = dataclasses.replace(recipes.tiny().evaluate, scenes=8)
    with accelerator(monkeypatch) as gpu:
        evaluate(load(models["clip"], device="cuda"), world, settings, only=("retrieval",))
    assert gpu.operations > 50


@pytest.mark.parametrize("device", [None, "cuda", "cpu"])
def test_teachers_that_judge_captions_are_on_the_device(device, models, tmp_path, monkeypatch):
    captioned = write_pairs(tmp_path / "captioned", [[sample(i, captions=2) for i in range(3)]])
    with accelerator(monkeypatch) as gpu:
        report = caption_report(captioned, teachers=(str(models["clip"]),), device=device)
    assert all(row[f"clip_{report['teachers'][0]}"] is not None for row in report["rows"].values())
    assert (gpu.operations > 50) == (device != "cpu")


def test_no_tensor_of_a_gpu_is_sent_to_another_process(models, monkeypatch):
    with accelerator(monkeypatch):
        loaded = load(models["clip"], device="cuda")
        assert all(isinstance(tensor, OnGpu) for tensor in loaded.model.parameters())
        state = Travelling(loaded, None).__getstate__()
        assert not any(isinstance(tensor, OnGpu) for tensor in state["model"].model.parameters())
        assert all(isinstance(tensor, OnGpu) for tensor in loaded.model.parameters()), "the sender's stays"
    assert state["device"] == "cuda", "and is put on such a device again"
    again = pickle.loads(pickle.dumps(Travelling(state["model"].model, None))).here()
    assert torch.equal(next(again.parameters()), next(state["model"].model.parameters()))


def test_a_device_that_is_not_there_is_an_error_with_a_remedy():
    assert pick_device("cpu").type == "cpu"
    with pytest.raises(ValueError, match="none of cpu, cuda"):
        pick_device("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match=r"torch sees 0 GPUs here.*--device cpu"):
            pick_device("cuda")


@pytest.mark.parametrize("stage", STAGES)
def test_precision_is_other_work_only_where_it_changes_bytes(stage, models, pairs, tmp_path):
    plain = STAGES[stage](models, pairs, tmp_path / "plain", device="cpu")
    assert STAGES[stage](models, pairs, tmp_path / "plain", precision="fp32") == plain
    half = STAGES[stage](models, pairs, tmp_path / "half", precision="bf16")
    assert half["key"] != plain["key"]
    assert sha256_file(tmp_path / "plain" / "shard-000000.tar") == plain["shards"][0]["sha256"]
