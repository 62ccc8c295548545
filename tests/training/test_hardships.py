"""What a training must come through: gradients that are no numbers, broken samples, many processes."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from doubles.tiny_training import first_batches, go, settings, write_captioner, write_data, write_model
from doubles.train_processes import come_through, hard, norms, start

from mobileclip2_lite import recipes
from mobileclip2_lite.models.zoo import create_model
from mobileclip2_lite.training import checkpoints
from mobileclip2_lite.training import step as step_module
from mobileclip2_lite.training.distributed import Processes
from mobileclip2_lite.training.log import read
from mobileclip2_lite.training.loop import Run
from mobileclip2_lite.training.optimizer import Ema, learning_rate
from mobileclip2_lite.training.stopping import Diverged, Stopped
from mobileclip2_lite.work.folder import StageMismatch, read_manifest
from mobileclip2_lite.work.place import place_of


def stepper_and_batch(data, model, **changes):
    stepper, [batch] = first_batches(settings(model, **changes), data)
    return stepper, batch


def break_images(data: Path, shard: int, samples: slice = slice(None)) -> None:
    """Overwrite the first bytes of a shard's images."""
    path = data / f"shard-{shard:06d}.tar"
    content, places = bytearray(path.read_bytes()), []
    place = content.find(b"\x89PNG")
    while place >= 0:
        places.append(place)
        place = content.find(b"\x89PNG", place + 1)
    for place in places[samples]:
        content[place : place + 8] = b"broken.."
    path.write_bytes(content)


# --- numbers that are none ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("log_every", "every", "good"), [(1, 1, [1, 2]), (100, 1, [1, 2]), (100, 2, [2])])
def test_where_looking_costs_time_a_nan_is_never_kept(data, model, tmp_path, monkeypatch, log_every, every, good):
    """As on a GPU, where a step's norm is looked at only where it is logged: a gradient NaN, the loss finite."""
    real, steps = step_module.clip_, []

    def poisoned(module, most):
        steps.append(1)
        if len(steps) == 3:
            next(module.parameters()).grad.view(-1)[0] = torch.nan
        return real(module, most)

    monkeypatch.setattr(step_module, "clip_", poisoned)
    chosen = settings(model, samples=16 * 8, checkpoint_every=every, log_every=log_every)
    run = Run(chosen, data, tmp_path, 0, Processes())
    run.stepper.looks = False
    with pytest.raises(Diverged, match=rf"The checkpoint of step {good[-1]} is from before"):
        run.go(None, False)
    assert checkpoints.list_steps(tmp_path / "checkpoints") == good
    kept = checkpoints.load_latest(tmp_path / "checkpoints")
    assert all(value.isfinite().all() for value in kept["model"].values())


def test_fp16_leaves_out_steps_that_overflow_but_no_more(data, model):
    stepper, batch = stepper_and_batch(data, model, precision="fp16")
    before = {name: value.clone() for name, value in stepper.model.state_dict().items()}
    stepper.scaler = torch.amp.GradScaler("cpu", init_scale=1e30)
    _, norm = stepper(0, [batch])
    assert not math.isfinite(norm)
    assert stepper.sound(norm)  # the scaler has left the step out
    assert all(torch.equal(value, before[name]) for name, value in stepper.model.state_dict().items())
    stepper.scaler = torch.amp.GradScaler("cpu", init_scale=0.5)
    stepper.scaler.scale(torch.ones(()))
    assert not stepper.sound(torch.tensor(torch.nan))  # overflow is not the reason any more


# --- samples that cannot be used ------------------------------------------------------------------------------------


@pytest.mark.parametrize("accumulate", [1, 2])
def test_batches_without_a_usable_sample_do_not_end_a_training(model, tmp_path, accumulate):
    data = write_data(tmp_path / "data", count=16)
    break_images(data, 0)
    chosen = settings(model, samples=16 * 4, batch_size=2 * accumulate, accumulate=accumulate, captioners=("short",))
    with pytest.warns(UserWarning, match="samples are left out"):
        out = go(chosen, data, tmp_path / "out")
    manifest, lines = read_manifest(out), read(tmp_path / "out" / "log.jsonl")
    assert manifest["dropped"] == {"not_an_image": 32}
    assert manifest["steps"] == 32 // accumulate
    assert all(math.isfinite(line["loss"]) for line in lines)


def test_a_training_without_any_usable_sample_says_so(model, tmp_path):
    data = write_data(tmp_path / "data", count=8)
    for shard in (0, 1):
        break_images(data, shard)
    with (
        pytest.warns(UserWarning, match="left out"),
        pytest.raises(ValueError, match=r"no batch held a sample.*'not_an_image': 16"),
    ):
        go(settings(model, samples=16, batch_size=4), data, tmp_path / "out")


# --- starts, schedules, weights ---------------------------------------------------------------------------------------


def test_a_sigmoid_trained_model_can_be_started_from(data, model, tmp_path):
    first = go(settings(model, loss="sigmoid"), data, tmp_path / "first")
    known = create_model(first).model
    chosen = settings(model, loss="sigmoid", start=str(first), samples=16, learning_rate=1e-9)
    again = create_model(go(chosen, data, tmp_path / "second")).model
    assert again.logit_bias.item() == pytest.approx(known.logit_bias.item(), abs=1e-5)
    assert again.logit_scale.item() == pytest.approx(known.logit_scale.item(), abs=1e-5)
    assert again.logit_bias.item() != -10.0
    other = write_model(tmp_path / "other", layers=2)
    with pytest.raises(ValueError, match="does not hold a"):
        go(settings(other, loss="sigmoid", start=str(first)), data, tmp_path / "third")


def test_the_cosine_ends_at_its_floor():
    rates = [learning_rate(step, 1_000, 1e-3, 1 / 30, 1e-6) for step in (32, 33, 999)]
    assert rates[:2] == pytest.approx([1e-3, 1e-3])
    assert rates[2] == pytest.approx(1e-6, rel=0.01)


def test_paper_recipes_have_the_published_schedule():
    """run_dfndr12m.sh warms up 1,000 of 30,000; the paper's 2B runs 2k to 10k of 200k, and S0, S2 and B end at 1e-6."""
    for recipe, warm in ((recipes.paper_12m(), 1_000), (recipes.paper_2b(), 10_000)):
        for chosen in (recipe.student, recipe.control):
            assert round(chosen.warmup * (chosen.samples // chosen.batch_size)) == warm
            assert chosen.final_learning_rate == 1e-6
    assert recipes.lite().student.final_learning_rate == 0


def test_a_step_decays_matrices_and_holds_the_scale(data, model):
    stepper, batch = stepper_and_batch(data, model, weight_decay=0.2, max_logit_scale=5.0)
    assert sorted(group["weight_decay"] for group in stepper.optimizer.param_groups) == [0.0, 0.2]
    name = "text.transformer.resblocks.0.mlp.c_fc.weight"
    plain, same = stepper_and_batch(data, model, weight_decay=0.0)
    before = stepper.model.get_parameter(name).detach().clone()
    stepper(0, [batch])
    plain(0, [same])
    rate = stepper.optimizer.param_groups[0]["lr"]
    difference = plain.model.get_parameter(name) - stepper.model.get_parameter(name)
    torch.testing.assert_close(difference, 0.2 * rate * before, rtol=0.02, atol=1e-7)
    assert stepper.model.logit_scale.exp().item() <= 5.0001
    assert plain.model.logit_scale.exp().item() > 10


def test_the_moving_average_has_the_models_buffers():
    module = torch.nn.BatchNorm1d(3)
    ema = Ema(module, 0.9)
    module(torch.randn(8, 3) + 5)
    ema.update(module, 1)
    assert torch.equal(ema.model.running_mean, module.running_mean)
    assert ema.model.num_batches_tracked == 1


@pytest.mark.parametrize(
    ("decay", "wanted"),
    [
        (0.1, [0.9, 1.89, -2.511]),
        (0.999, [9 / 11, 1.704545, -1.552448]),
    ],  # the first steps count more: 2/11, 3/12, 4/13
)
def test_the_moving_average_by_hand(decay, wanted):
    module = torch.nn.Linear(1, 1, bias=False)
    module.weight.data.fill_(0.0)
    ema = Ema(module, decay)
    for step, (value, mean) in enumerate(zip((1.0, 2.0, -3.0), wanted, strict=True), 1):
        module.weight.data.fill_(value)
        ema.update(module, step)
        assert ema.model.weight.item() == pytest.approx(mean, rel=1e-5)


def test_a_captioners_contrast_has_its_weight(data, tmp_path):
    write_captioner(tmp_path)
    losses = {}
    for weight in (0.0, 1.0, 3.0):
        changes = {"distill": 0.0, "views": "weak", "captioning": 2.0, "contrast": weight}
        stepper, batch = stepper_and_batch(data, tmp_path, **changes)
        losses[weight] = {name: value.item() for name, value in stepper.backward(batch).items()}
    contrastive = losses[1.0]["contrastive"]
    assert contrastive > 0.1
    for weight, found in losses.items():
        assert found["loss"] == pytest.approx(2 * found["captioning"] + weight * contrastive, rel=1e-5)


# --- many processes -------------------------------------------------------------------------------------------------


def batch_norm_model(folder: Path) -> Path:
    """The tiny model with a ResNet, whose batch norms see the samples of one process."""
    from doubles import tiny_training

    config = tiny_training.model_config()
    config["vision_cfg"] = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None}
    from mobileclip2_lite.models.loaded import LoadedModel
    from mobileclip2_lite.models.preprocess import Preprocess
    from mobileclip2_lite.models.tokenizer import prefix_tokenizer
    from mobileclip2_lite.models.zoo import build, save_model

    torch.manual_seed(0)
    eye = Preprocess(32, (0, 0, 0), (1, 1, 1), "bilinear")
    return save_model(LoadedModel(build(config), eye, prefix_tokenizer(600, 24)), folder, name="tiny-resnet")


def test_two_processes_come_through_what_one_comes_through(tmp_path, monkeypatch):
    """A broken sample, accumulation, a chunked loss, batch norm, shares without a sample, and a resume from one."""
    write_model(tmp_path / "model")
    batch_norm_model(tmp_path / "resnet")
    break_images(write_data(tmp_path / "data"), 0, slice(0, 1))
    break_images(write_data(tmp_path / "half", count=16), 1)
    with pytest.warns(UserWarning, match="left out"):
        go(hard(tmp_path), tmp_path / "data", tmp_path / "one")
    # one process is interrupted after its checkpoint, two go on from it
    real = checkpoints.save

    def interrupted(folder, step, state, keep=2):
        real(folder, step, state, keep)
        if step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", interrupted)
        with pytest.raises(KeyboardInterrupt), pytest.warns(UserWarning, match="left out"):
            go(hard(tmp_path), tmp_path / "data", tmp_path / "resumed")
    shutil.copytree(tmp_path / "resumed", tmp_path / "resumed in parts")
    start(come_through, 2, tmp_path)
    one = [line["loss"] for line in read(tmp_path / "one" / "log.jsonl")]
    for name in ("two", "resumed", "parts", "resumed in parts"):
        assert [line["loss"] for line in read(tmp_path / name / "log.jsonl")] == pytest.approx(one, rel=1e-4), name
        assert read_manifest(tmp_path / name)["dropped"] == read_manifest(tmp_path / "one")["dropped"] != {}
    go(norms(tmp_path), tmp_path / "data", tmp_path / "norms of one")
    found = {name: losses(tmp_path / f"norms {name}") for name in ("of one", "apart", "together")}
    assert found["together"] == pytest.approx(found["of one"], rel=1e-4)
    assert all(map(math.isfinite, found["apart"]))
    assert found["apart"] != pytest.approx(found["of one"], rel=1e-4), "each process's own batch norms"
    buffers = [dict(create_model(tmp_path / f"norms {name}").model.named_buffers()) for name in ("of one", "together")]
    for name, value in buffers[0].items():
        assert torch.allclose(value.float(), buffers[1][name].float(), rtol=1e-2, atol=1e-4), name
    half = read_manifest(tmp_path / "halved")
    assert half["dropped"] == {"not_an_image": 40}
    assert half["steps"] == 40


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in read(folder / "log.jsonl")]


def stopped_at(step: int):
    """An evaluation in the middle of which SIGTERM comes."""
    seen = []

    def evaluate(loaded) -> dict:
        seen.append(len(seen) + 1)
        if len(seen) == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return {"seen": len(seen)}

    return evaluate


@pytest.mark.skipif(os.name == "nt", reason="signals are sent otherwise there")
def test_asked_to_stop_a_training_writes_a_checkpoint_and_goes_on_from_there(data, model, tmp_path):
    chosen = settings(model, evaluate_every=1, checkpoint_every=100)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped, match="at step 2 of 5; the checkpoint stands"):
        go(chosen, data, tmp_path / "stopped", evaluate=stopped_at(2))
    assert signal.getsignal(signal.SIGTERM) == before
    assert checkpoints.list_steps(tmp_path / "stopped" / "checkpoints") == [2]
    go(chosen, data, tmp_path / "stopped", evaluate=stopped_at(0))
    go(chosen, data, tmp_path / "whole", evaluate=stopped_at(0))
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("stopped", "whole")]
    assert weights[0] == weights[1]


@pytest.mark.skipif(os.name == "nt", reason="signals are sent otherwise there")
def test_a_training_in_a_bucket_goes_on_on_another_machine(store, data, model, tmp_path, monkeypatch):
    chosen = settings(model, evaluate_every=1, checkpoint_every=1)
    with pytest.raises(Stopped):
        go(chosen, data, "s3://bucket/student", evaluate=stopped_at(3))
    assert "manifest.json" not in store.objects("student")
    with pytest.raises(StageMismatch, match="other settings"):
        go(settings(model, evaluate_every=1, checkpoint_every=1, weight_decay=0.0), data, "s3://bucket/student")
    monkeypatch.setenv("MOBILECLIP2_LITE_CACHE", str(tmp_path / "another machine"))
    seen = []
    out = go(chosen, data, "s3://bucket/student", evaluate=lambda loaded: seen.append(1) or {"seen": 0})
    assert len(seen) == 2, "steps 4 and 5"
    here = go(chosen, data, tmp_path / "here", evaluate=lambda loaded: {"seen": 0})
    objects = store.objects("student")
    assert objects["model.safetensors"] == (here / "model.safetensors").read_bytes()
    assert steps_of(objects["log.jsonl"]) == steps_of((here / "log.jsonl").read_bytes())
    assert read_manifest(out)["key"] == read_manifest(here)["key"]
    assert go(chosen, data, "s3://bucket/student") == place_of("s3://bucket/student"), "found finished"
    copy = create_model("s3://bucket/student").model.state_dict()
    assert all(torch.equal(value, copy[name]) for name, value in create_model(here).model.state_dict().items())
    assert not store.forbidden


def steps_of(log: bytes) -> list[int]:
    return [json.loads(line)["step"] for line in log.splitlines()]


def test_processes_that_see_different_checkpoints_are_told(data, model, tmp_path):
    class Two(Processes):
        def counts(self, rows: int) -> list[int]:
            return [rows, rows + 5]

    run = Run(settings(model), data, tmp_path / "out", 0, Two())
    with pytest.raises(ValueError, match=r"different steps \(\[0, 5\]"):
        run.resume()
