"""The loop: it learns, it goes on where it was killed, it equals itself in other arrangements, it stops loudly."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from doubles import tiny_training
from doubles.tiny_training import TEACHERS, first_batches, go, settings, write_data, write_model
from doubles.train_processes import train_slowly

from mobileclip2_lite.models import loaded as loaded_module
from mobileclip2_lite.models.loaded import usable_precision
from mobileclip2_lite.models.trimming import is_trimmable, text_lengths
from mobileclip2_lite.models.zoo import create_model
from mobileclip2_lite.training import checkpoints, gradient_cache
from mobileclip2_lite.training.distributed import Processes
from mobileclip2_lite.training.feeding import CAPTIONS, REAL, Tokens, feed
from mobileclip2_lite.training.log import read
from mobileclip2_lite.training.loop import Run
from mobileclip2_lite.training.losses import PairLoss, Rows
from mobileclip2_lite.training.optimizer import OPTIMIZERS, decay_groups, learning_rate, optimizer
from mobileclip2_lite.training.step import Stepper
from mobileclip2_lite.training.stopping import Diverged
from mobileclip2_lite.training.teachers import LiveTeachers, teacher_cards
from mobileclip2_lite.work.folder import StageMismatch, read_manifest


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return create_model(folder).model.state_dict()


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def batches(data: Path, model: Path, count: int = 1, **changes):
    """A stepper and its first batches."""
    return first_batches(settings(model, **changes), data, count)


def gradients(stepper: Stepper, fed) -> dict[str, torch.Tensor]:
    stepper.model.zero_grad()
    torch.manual_seed(0)
    stepper.backward(fed)
    return {name: p.grad.clone() for name, p in stepper.model.named_parameters()}


def assert_close(one: dict, other: dict, tolerance: float = 1e-5) -> None:
    for name in one:
        assert (one[name] - other[name]).norm() <= tolerance * other[name].norm() + 1e-6, name


def test_student_learns_and_leaves_a_model_with_log_and_manifest(data, model, tmp_path):
    seen = []

    def evaluate(loaded) -> dict:
        assert not loaded.model.training
        seen.append(loaded.model.logit_scale.item())
        torch.rand(3)  # an evaluation's random numbers do not matter
        return {"zero_shot": 0.5}

    chosen = settings(model, samples=480, captioners=("short", "long"), learning_rate=3e-3, evaluate_every=10)
    out = go(chosen, data, tmp_path / "out", evaluate=evaluate)
    lines = read(out / "log.jsonl")
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, 31))
    assert {"loss", "contrastive", "distillation", "contrastive_captions", "distillation_captions", "lr", "waiting",
            "samples_per_second", "grad_norm", "logit_scale"} <= steps[0].keys()  # fmt: skip
    first, last = steps[0], steps[-1]
    assert first["loss"] == pytest.approx(first["distillation"] + first["distillation_captions"], rel=1e-5)
    assert last["loss"] < 0.95 * first["loss"]
    assert [line["step"] for line in lines if "evaluation" in line] == [10, 20, 30]
    assert len(seen) == 3
    manifest = read_manifest(out)
    assert manifest["samples"] == 480
    assert manifest["teachers"]["first"]["logit_scale"] == 22.0
    assert not (out / "checkpoints").exists()
    assert create_model(out).preprocess.image_size == 16
    before = os.stat(out / "model.safetensors").st_mtime_ns
    assert go(chosen, data, out, evaluate=evaluate) == out  # finished work is found
    assert os.stat(out / "model.safetensors").st_mtime_ns == before
    with pytest.raises(StageMismatch, match="learning_rate"):
        go(dataclasses.replace(chosen, learning_rate=1.0), data, out)
    go(dataclasses.replace(chosen, workers=3, log_every=7), data, out)  # what does not change the model may change


def test_golden_losses(data, model, tmp_path):
    """The loss of every step is the one that was recorded: what changes the course of a training is meant to.

    After a change that is meant to, write the file again: UPDATE_GOLDEN=1 python -m pytest tests/training/test_loop.py
    """
    found = {}
    for name, changes in {
        "student": {"captioners": ("short", "long")},
        "mixed": {"distill": 0.5},
        "control": {"distill": 0.0, "views": "weak"},
        "sigmoid": {"loss": "sigmoid"},
        "muon": {"captioners": ("short", "long"), "optimizer": "nmuon", "distill": 0.7},
    }.items():
        lines = read(go(settings(model, **changes), data, tmp_path / name) / "log.jsonl")
        found[name] = [line["loss"] for line in lines]
    path = Path(__file__).parents[1] / "golden" / "training_losses.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        rows = (f"{name} {' '.join(f'{loss:.5f}' for loss in losses)}\n" for name, losses in found.items())
        path.write_text("".join(rows), "utf-8")
    golden = {name: losses for name, *losses in map(str.split, path.read_text("utf-8").splitlines())}
    assert golden.keys() == found.keys()
    for name, losses in found.items():
        # one machine repeats them to 2e-6; others round otherwise, and Muon's products are in bf16
        near = {"rel": 1e-3 if name == "muon" else 1e-4, "abs": 1e-5}
        assert losses == pytest.approx([float(loss) for loss in golden[name]], **near), name


def test_control_reads_no_embeddings(data, model, tmp_path):
    out = go(settings(model, distill=0.0, views="weak"), data, tmp_path / "out")
    assert {"contrastive"} == {key for key in read(out / "log.jsonl")[0] if key in ("contrastive", "distillation")}
    assert read_manifest(out)["teachers"] == {}


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_killed_and_resumed_equals_undisturbed_bit_for_bit(data, model, tmp_path):
    chosen = settings(model, samples=16 * 12, evaluate_every=1, checkpoint_every=2, ema=0.9, captioners=("short",))
    torch.set_num_threads(1)
    undisturbed = go(chosen, data, tmp_path / "undisturbed")
    out = tmp_path / "killed"
    process = multiprocessing.get_context("spawn").Process(target=train_slowly, args=(chosen, data, out))
    process.start()
    deadline = time.time() + 120
    while time.time() < deadline and not checkpoints.list_steps(out / "checkpoints"):
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    reached = checkpoints.list_steps(out / "checkpoints")
    assert reached
    assert reached[-1] < 12
    assert not (out / "manifest.json").exists()
    (out / "log.jsonl").write_text((out / "log.jsonl").read_text() + '{"step": 11, "lo', "utf-8")  # a torn line
    go(chosen, data, out)
    assert same(weights(undisturbed), weights(out))

    def losses(folder):
        return [(line["step"], line["loss"]) for line in read(folder / "log.jsonl") if "loss" in line]

    assert losses(out) == losses(undisturbed)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_interrupted_anywhere_with_other_workers(data, model, tmp_path, optimizer):
    chosen = settings(model, checkpoint_every=1, evaluate_every=1, captioners=("long",), optimizer=optimizer)
    undisturbed = weights(go(chosen, data, tmp_path / "undisturbed", evaluate=lambda loaded: {}))
    for stop, workers in ((2, 0), (4, 2)):
        out, calls = tmp_path / f"stopped-{stop}", []

        def evaluate(loaded, stop=stop, calls=calls):
            calls.append(1)
            if len(calls) == stop:
                raise KeyboardInterrupt
            return {}

        with pytest.raises(KeyboardInterrupt):
            go(chosen, data, out, evaluate=evaluate)
        assert checkpoints.list_steps(out / "checkpoints")[-1] == stop - 1
        again = dataclasses.replace(chosen, workers=workers)
        assert same(weights(go(again, data, out, evaluate=lambda loaded: {})), undisturbed)


def test_seeds_differ_and_repeat(data, tmp_path):
    """New weights follow from the seed, also for a model given by name."""
    chosen = settings("lite-mci-s", samples=16, distill=0.0)
    made = [Stepper(chosen, {}, 1, seed, Processes()).model.state_dict() for seed in (1, 1, 2)]
    assert same(made[0], made[1])
    assert not same(made[0], made[2])


def test_gradient_cache_equals_plain_step(data, model):
    stepper, (fed,) = batches(data, model, captioners=("short", "long"))
    plain = gradients(stepper, fed)
    for chunk in (4, 5, 16):
        stepper.settings = dataclasses.replace(stepper.settings, forward_chunk=chunk)
        assert_close(gradients(stepper, fed), plain)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_training_in_chunks_takes_the_same_course(data, model, tmp_path, optimizer):
    chosen = settings(model, optimizer=optimizer, captioners=("short",), learning_rate=3e-3)
    whole = read(go(chosen, data, tmp_path / "whole") / "log.jsonl")
    chunked = dataclasses.replace(chosen, forward_chunk=5, loss_chunk=3)
    parts = read(go(chunked, data, tmp_path / "chunks") / "log.jsonl")
    assert [line["loss"] for line in parts] == pytest.approx([line["loss"] for line in whole], rel=1e-3)
    assert abs(whole[-1]["loss"] / whole[0]["loss"] - 1) > 0.01  # the weights did move


def test_gradient_cache_repeats_dropout_and_counts_batch_norm_once():
    torch.manual_seed(0)
    tower = torch.nn.Sequential(
        torch.nn.Linear(6, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 3)
    )
    x, target = torch.randn(12, 6), torch.randn(12, 3)
    reference = torch.nn.ModuleList([tower])

    def loss(features):
        return ((features - target) ** 2).mean() + (features @ features.T).softmax(1).diagonal().log().mean()

    state = {name: value.clone() for name, value in tower.state_dict().items()}
    torch.manual_seed(1)
    gradient_cache.backward([(tower, x)], loss, 4, reference)
    cached = {name: p.grad.clone() for name, p in tower.named_parameters()}
    statistics = tower[1].running_mean.clone()
    after = torch.rand(1)
    tower.load_state_dict(state)
    tower.zero_grad()
    torch.manual_seed(1)
    loss(torch.cat([tower(piece) for piece in x.split(4)])).backward()
    assert torch.equal(after, torch.rand(1))  # chance goes on as if the first pass had been the only one
    assert_close(cached, {name: p.grad for name, p in tower.named_parameters()})
    assert torch.allclose(statistics, tower[1].running_mean)
    assert tower[1].num_batches_tracked == 3


def peak_activations(chunk: int) -> int:
    """Most bytes kept for the backward pass at one time, of a 6-layer tower with 512 samples."""
    torch.manual_seed(0)
    layers = [layer for _ in range(6) for layer in (torch.nn.Linear(64, 64), torch.nn.GELU())]
    tower, x = torch.nn.Sequential(*layers), torch.randn(512, 64)
    held, peak = {}, 0

    class Kept:
        def __init__(self, tensor):
            nonlocal peak
            self.tensor, self.key = tensor, tensor.untyped_storage().data_ptr()
            size, users = held.get(self.key, (tensor.untyped_storage().nbytes(), 0))
            held[self.key] = (size, users + 1)
            peak = max(peak, sum(size for size, _ in held.values()))

        def __del__(self):
            size, users = held.pop(self.key)
            if users > 1:
                held[self.key] = (size, users - 1)

    loss = PairLoss(chunk=chunk)

    def contrast(features):
        rows = Rows.alone(torch.nn.functional.normalize(features, dim=-1))
        return loss(rows, Rows.alone(rows.local.flip(1)), torch.tensor(10.0)).total

    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
        gradient_cache.backward([(tower, x)], contrast, chunk)
    return peak


def test_gradient_cache_needs_a_fraction_of_the_memory():
    """A chunk of an eighth: at most a quarter of the peak of activations."""
    assert peak_activations(64) < 0.25 * peak_activations(0)


def test_chunked_loss_and_recomputing_change_nothing(data, model):
    stepper, (fed,) = batches(data, model)
    plain = gradients(stepper, fed)
    chunked, _ = batches(data, model, loss_chunk=3, recompute=True)
    assert_close(gradients(chunked, fed), plain)


@pytest.mark.parametrize("chunk", [0, 8])
def test_recomputing_counts_batch_norm_once(data, chunk):
    """The lite student's batch norms see each batch once, however often it passes through them."""
    plain, found = batches(data, "lite-mci-s", forward_chunk=chunk)
    expected = gradients(plain, found[0])
    again, found = batches(data, "lite-mci-s", forward_chunk=chunk, recompute=True)
    assert_close(gradients(again, found[0]), expected, 1e-4)
    statistics = dict(plain.model.named_buffers())
    assert any(name.endswith("num_batches_tracked") for name in statistics)
    for name, value in again.model.named_buffers():
        assert torch.allclose(value.float(), statistics[name].float(), rtol=1e-4, atol=1e-6), name


def test_stream_travels_to_a_spawned_loader(data, model):
    import pickle

    run = Run(settings(model), data, Path("unused"), 0, Processes())
    stream = run.stream()
    copy = pickle.loads(pickle.dumps(stream))
    assert [batch.uids for batch in copy[4]] == [batch.uids for batch in stream[4]]


def test_broken_sample_is_counted_and_said(model, tmp_path):
    data = write_data(tmp_path / "data")
    path = data / "shard-000000.tar"
    content = path.read_bytes()
    place = content.index(b"\x89PNG")
    path.write_bytes(content[:place] + b"broken.." + content[place + 8 :])
    with pytest.warns(UserWarning, match="samples are left out"):
        out = go(settings(model), data, tmp_path / "out")
    assert sum(read_manifest(out)["dropped"].values()) >= 2  # once an epoch


def test_accumulation_is_the_mean_of_its_parts(data, model):
    stepper, (one, two) = batches(data, model, 2, accumulate=2)
    assert len(one.uids) == 8
    parts = [gradients(stepper, fed) for fed in (one, two)]
    stepper.model.zero_grad()
    for fed in (one, two):
        stepper.backward(fed, 0.5)
    mean = {name: (parts[0][name] + parts[1][name]) / 2 for name in parts[0]}
    assert_close({name: p.grad for name, p in stepper.model.named_parameters()}, mean)


def test_a_step_over_several_batches_has_the_mean_of_their_losses_and_gradients(data, model):
    stepper, both = batches(data, model, 2, accumulate=2)
    alone = [stepper.backward(batch)["loss"].item() for batch in both]
    parts = [gradients(stepper, batch) for batch in both]
    losses, norm = stepper(0, both)
    assert losses["loss"].item() == pytest.approx(sum(alone) / 2, rel=1e-5)
    mean = torch.cat([((parts[0][name] + parts[1][name]) / 2).flatten() for name in parts[0]])
    assert norm.item() == pytest.approx(mean.norm().item(), rel=1e-4)


def test_captions_are_summed(data, model):
    """The loss of both batches is the sum of each batch's own."""
    stepper, (fed,) = batches(data, model, captioners=("short",))
    losses = stepper.backward(fed)
    assert losses["loss"].item() == pytest.approx(
        losses["distillation"].item() + losses["distillation_captions"].item(), rel=1e-6
    )
    alone = dataclasses.replace(fed, groups=fed.groups[:1])
    assert stepper.backward(alone)["loss"].item() == pytest.approx(losses["distillation"].item(), rel=1e-5)


def test_a_caption_alone_is_the_second_part_of_the_sum(data, model):
    """Same views and weights: the synthetic loss and its gradients are what the sum has beside the real text's."""
    found = {}
    for name, changes in {"sum": {}, "synthetic": {"texts": "synthetic"}, "real": {"captioners": ()}}.items():
        stepper, (fed,) = batches(data, model, **{"captioners": ("short",), **changes})
        losses = stepper.backward(fed)
        found[name] = losses["loss"], torch.cat([p.grad.flatten() for p in stepper.model.parameters()])
    for whole, synthetic, real in zip(found["sum"], found["synthetic"], found["real"], strict=True):
        assert torch.allclose(whole, synthetic + real, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found["synthetic"][0], found["real"][0], rtol=1e-3)


def test_cutting_texts_is_exact_for_a_causal_tower(data, model):
    stepper, (fed,) = batches(data, model, captioners=("long",))
    assert fed.groups[0].tokens.shape[1] < 24
    whole, (long,) = batches(data, model, captioners=("long",), trim_text=False)
    assert long.groups[0].tokens.shape[1] == 24
    assert_close(gradients(stepper, fed), gradients(whole, long))


def test_cutting_texts_would_change_a_tower_that_attends_to_padding(data, tmp_path):
    attending = write_model(tmp_path / "no_mask", no_causal_mask=True)  # as MobileCLIP2's towers but B
    stepper, (fed,) = batches(data, attending)
    assert not stepper.cut
    assert fed.groups[0].tokens.shape[1] == 24
    short = fed.groups[0].tokens[:, : int(text_lengths(fed.groups[0].tokens).max())]
    tower = stepper.model.eval()
    assert not torch.allclose(tower.encode_text(short), tower.encode_text(fed.groups[0].tokens), atol=1e-3)
    tower.text.use_pad_mask = True  # the same tower, padding masked: now cutting is exact
    assert is_trimmable(tower)
    assert torch.allclose(tower.encode_text(short), tower.encode_text(fed.groups[0].tokens), atol=1e-5)


def test_tokens_are_made_once():
    calls = []

    def tokenizer(texts):
        calls.append(list(texts))
        return torch.tensor([[1, *map(len, text.split()), 9, 0, 0, 0][:6] for text in texts])

    tokens = Tokens(tokenizer, cut=True)
    assert tokens(["a b", "a", "a"]).tolist() == [[1, 1, 1, 9], [1, 1, 9, 0], [1, 1, 9, 0]]
    assert tokens(["a"]).tolist() == [[1, 1, 9]]
    assert calls == [["a b", "a"]]
    few = Tokens(tokenizer, cut=True, most=2)
    for texts in (["a", "b"], ["b", "c"], ["a", "a b", "c"], []):
        assert torch.equal(few(texts), Tokens(tokenizer, cut=True)(texts)), "also where not all can be kept"


class Ensemble(torch.nn.Module):
    """Teachers that look at pixels and letters, for the live path."""

    def __init__(self, sizes: dict[str, int]) -> None:
        super().__init__()
        self.sizes = sizes

    def image_size(self, name):
        return self.sizes[name]

    def interpolation(self, name):
        return "bicubic" if name == "second" else "bilinear"

    def embed_images(self, name, images):
        assert images.shape[-1] == self.sizes[name]
        rows = torch.nn.functional.adaptive_avg_pool2d(images.float(), 4).flatten(1)[:, : TEACHERS[name]]
        return torch.nn.functional.normalize(rows - rows.mean(dim=1, keepdim=True), dim=-1)

    def embed_texts(self, name, texts):
        rows = torch.tensor([[float(ord(text[i % len(text)])) for i in range(TEACHERS[name])] for text in texts])
        return torch.nn.functional.normalize(rows - rows.mean(dim=1, keepdim=True), dim=-1)


def test_live_teachers_see_the_students_views_at_their_own_size(data, model):
    """Live embeddings equal those of the stored views replayed at each teacher's size."""
    from mobileclip2_lite.shards import samples as shards
    from mobileclip2_lite.views.decoding import decode
    from mobileclip2_lite.views.replay import replay

    chosen = settings(model, online=True, captioners=("short",))
    cards = teacher_cards(data, chosen)
    ensemble = Ensemble({"first": 16, "second": 24})
    run = Run(dataclasses.replace(chosen, online=False), data, Path("unused"), 0, Processes())
    run.stepper.live = LiveTeachers(cards, torch.device("cpu"), run.stepper.eye, ensemble)
    assert run.stepper.live.sizes == [(24, "bicubic")]
    stream = feed(run.stream(), Tokens(run.stepper.loaded.tokenizer, True), torch.device("cpu"))
    fed = next(stream)
    stream.close()
    assert fed.teacher_images == {}
    stored = run.stepper.live.embed(fed)
    samples = {s.uid: s for path in sorted(data.glob("*.tar")) for s in shards.read_samples(path)}
    row = samples[fed.uids[3]]
    replayed = [
        torch.tensor(np.array(replay(decode(row.image), view, 24, "bicubic"))).permute(2, 0, 1) for view in row.views
    ]
    expected = ensemble.embed_images("second", torch.stack(replayed))
    assert (expected - stored.teacher_images["second"][3]).abs().amax(dim=1).min() < 1e-6
    assert torch.allclose(stored.groups[0].teachers["first"], ensemble.embed_texts("first", fed.groups[0].texts))
    assert [group.name for group in stored.groups] == [REAL, CAPTIONS]
    losses = run.stepper.backward(fed)
    run.stepper.live = None
    assert run.stepper.backward(stored)["loss"].item() == pytest.approx(losses["loss"].item(), rel=1e-6)


def test_live_teachers_equal_stored_embeddings(model, tmp_path):
    """From pairs through reinforcement by real teachers to the loss: online and offline say the same."""
    from mobileclip2_lite import recipes
    from mobileclip2_lite.models.ensemble import Teacher, TeacherEnsemble
    from mobileclip2_lite.reinforcement.stage import reinforce
    from mobileclip2_lite.shards import samples as shards
    from mobileclip2_lite.work.folder import Work

    items = [tiny_training.sample(number) for number in range(24)]
    items = [shards.Pair(item.uid, item.image, item.ext, item.text, item.meta) for item in items]
    info = shards.write_shard(tmp_path / "pairs" / "shard-000000.tar", items)
    record = {"name": "shard-000000.tar", **info._asdict(), "dropped": {}}
    Work(tmp_path / "pairs", "pairs", 1, {}).commit(shards=[record], samples=24)
    folders = {name: write_model(tmp_path / name, seed) for seed, name in enumerate(("first", "second"), 1)}
    second = create_model(folders["second"], interpolation="bicubic")  # another eye than the student's
    ensemble = TeacherEnsemble(
        [Teacher(name, str(folder), logit_scale=20.0) for name, folder in folders.items()],
        [create_model(folders["first"]), second],
    )
    chosen = recipes.Reinforce(teachers=("first", "second"), views=3, storage="fp32")
    data = tmp_path / "reinforced"
    reinforce(chosen, tmp_path / "pairs", data, ensemble=ensemble)
    losses = {}
    for online in (False, True):
        run = Run(settings(model), data, Path("unused"), 0, Processes())
        if online:
            run.stepper.live = LiveTeachers(run.teachers, torch.device("cpu"), run.stepper.eye, ensemble)
            assert run.stepper.live.sizes == [(16, "bicubic")]
        stream = feed(run.stream(), Tokens(run.stepper.loaded.tokenizer, True), torch.device("cpu"))
        losses[online] = run.stepper.backward(next(stream))["distillation"].item()
        stream.close()
    assert losses[True] == pytest.approx(losses[False], rel=1e-4)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_is_close(data, model, tmp_path, precision):
    full = read(go(settings(model), data, tmp_path / "fp32") / "log.jsonl")
    low = read(go(settings(model, precision=precision), data, tmp_path / precision) / "log.jsonl")
    assert low[0]["loss"] == pytest.approx(full[0]["loss"], rel=0.02)
    assert low[-1]["loss"] == pytest.approx(full[-1]["loss"], rel=0.05)


def test_cpu_without_bf16_takes_fp32(data, model, tmp_path, monkeypatch):
    monkeypatch.setattr(loaded_module, "cpu_has_bf16", lambda: False)
    out = go(settings(model, precision="bf16"), data, tmp_path / "out")
    assert read_manifest(out)["precision"] == "fp32"
    assert usable_precision("bf16", torch.device("cuda")) == "bf16"
    monkeypatch.setattr(loaded_module, "cpu_has_bf16", lambda: True)
    assert usable_precision("bf16", torch.device("cpu")) == "bf16"


def test_sigmoid_student_has_a_bias_and_keeps_it(data, model, tmp_path):
    out = go(settings(model, loss="sigmoid"), data, tmp_path / "out")
    loaded = create_model(out).model
    assert loaded.logit_bias.item() != -10
    assert loaded.logit_bias.item() == pytest.approx(-10, abs=0.1)
    assert read(out / "log.jsonl")[0]["distillation"] > 0


def test_ema_follows_and_is_what_is_saved(data, model, tmp_path):
    plain = weights(go(settings(model), data, tmp_path / "plain"))
    smooth = weights(go(settings(model, ema=0.9), data, tmp_path / "ema"))
    start = weights(model)
    name = "visual.proj"
    assert not torch.equal(smooth[name], plain[name])
    assert (smooth[name] - start[name]).norm() < (plain[name] - start[name]).norm()


def test_decay_groups_and_schedule(model):
    loaded = create_model("lite-mci-s").model
    decayed, free = decay_groups(loaded)
    names = {id(p): name for name, p in loaded.named_parameters()}
    assert len(decayed) + len(free) == len(names)
    assert all("gamma" not in names[id(p)] and "bias" not in names[id(p)] for p in decayed)
    assert any(names[id(p)] == "logit_scale" for p in free)
    assert any(p.ndim == 4 and p.shape[1] == 1 and p.shape[2] > 1 for p in decayed)  # depthwise kernels are kernels
    rates = [learning_rate(step, 100, 1.0, 0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == pytest.approx(1.0)
    assert rates[55] == pytest.approx(0.5)
    assert 0 < rates[99] < 0.001


def test_muon_turns_matrices_and_leaves_the_rest_to_adam():
    model = create_model("lite-mci-s").model
    found = optimizer(model, "nmuon", 0.1, (0.9, 0.95), 0.2)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    found.step()
    turned = {name for name, parameter in model.named_parameters() if found.state[parameter]["use_muon"]}
    assert {"text.token_embedding.weight", "visual.trunk.stages.3.blocks.0.mlp.fc1.weight"} <= turned
    assert "visual.trunk.stages.3.blocks.0.mlp.conv.conv.weight" not in turned  # depthwise
    assert "logit_scale" not in turned
    name = "text.transformer.resblocks.0.mlp.c_fc.weight"
    step = (0.98 * before[name] - model.get_parameter(name)).detach()  # behind decay: rate times decay
    values = torch.linalg.svdvals(step)
    assert values.max() / values.min() < 2  # a random gradient's spread is larger: about 6 at this shape
    with pytest.raises(ValueError, match="adamw, nmuon"):
        optimizer(model, "sgd", 0.1, (0.9, 0.95), 0.2)


def test_muon_multiplies_in_float32_where_bf16_is_emulated(monkeypatch):
    from timm.optim import muon

    from mobileclip2_lite.models import loaded

    def orthogonalised():
        optimizer(create_model("lite-mci-s").model, "nmuon", 0.1, (0.9, 0.95), 0.2)
        return muon.zeropower_via_newtonschulz(matrix, 5, [(3.4445, -4.775, 2.0315)])

    matrix, plain = torch.randn(48, 96), getattr(muon.zeropower_via_newtonschulz, "__wrapped__", None)
    monkeypatch.setattr(muon, "zeropower_via_newtonschulz", plain or muon.zeropower_via_newtonschulz)
    monkeypatch.setattr(loaded, "cpu_has_bf16", lambda: True)
    rounded = orthogonalised()
    assert rounded.dtype == torch.bfloat16
    monkeypatch.setattr(loaded, "cpu_has_bf16", lambda: False)
    exact = orthogonalised()
    assert exact.dtype == torch.float32
    torch.testing.assert_close(rounded.float(), exact, rtol=0.05, atol=0.02)
    once = muon.zeropower_via_newtonschulz
    orthogonalised()
    assert muon.zeropower_via_newtonschulz is once  # a second optimiser wraps nothing again


def test_gradients_are_clipped(data, model):
    stepper, found = batches(data, model, 1, grad_clip=0.01)
    _, norm = stepper(0, found)
    clipped = torch.sqrt(sum((p.grad**2).sum() for p in stepper.model.parameters()))
    assert norm > 0.01
    assert clipped.item() == pytest.approx(0.01, rel=1e-3)


def test_nan_stops_with_help_and_leaves_the_good_checkpoint(data, model, tmp_path):
    chosen = settings(model, samples=16 * 9, checkpoint_every=1, log_every=100, learning_rate=1e30, warmup=1.0)
    with pytest.raises(Diverged, match=r"(?s)loss nan.*gradient norm nan.*What to look at.*learning_rate") as stopped:
        go(chosen, data, tmp_path / "out")
    left = checkpoints.list_steps(tmp_path / "out" / "checkpoints")
    state = checkpoints.load_latest(tmp_path / "out" / "checkpoints")
    assert all(torch.isfinite(value).all() for value in state["model"].values())
    assert f"step {left[-1]} is from before" in str(stopped.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": "fp8"}, "fp32, bf16, fp16"),
        ({"optimizer": "lion"}, "adamw, nmuon"),
        ({"accumulate": 3}, "multiple of 3"),
        ({"samples": 8}, "less than one batch"),
        ({"views": "weak"}, "no stored embeddings"),
        ({"teachers": ("third",)}, r"\['third'\] are not in"),
        ({"logit_scales": (("third", 1.0),)}, "logit_scales names"),
        ({"batch_size": 64, "samples": 64}, "fewer than one batch of 64"),
        ({"tracker": "paper"}, "tracker 'paper' is unknown"),
        ({"loss": "hinge"}, "unknown form"),
        ({"texts": "one"}, "name their captioners"),
    ],
)
def test_wrong_settings_are_named(data, model, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        go(settings(model, **changes), data, tmp_path / "out")


def test_chosen_teacher_and_scale(data, model):
    chosen = settings(model, teachers=("second",), logit_scales=(("second", 55.0),))
    cards = teacher_cards(data, chosen)
    assert list(cards) == ["second"]
    assert cards["second"].logit_scale == 55.0


def test_tensorboard_gets_the_numbers(data, model, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = go(settings(model, tracker="auto"), data, tmp_path / "out", evaluate=lambda loaded: {"zero_shot": 0.25})
    events = EventAccumulator(str(out / "tracker")).Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4, 5]
    assert events.Scalars("evaluation/zero_shot")[0].value == 0.25


def test_compiled_towers_train(data, model, tmp_path, monkeypatch):
    """`compile=True` goes through torch.compile for both towers (here without generating code)."""
    seen = []

    def fake(function):
        seen.append(function)
        return function

    monkeypatch.setattr(torch, "compile", fake)
    go(settings(model, compile=True, samples=16), data, tmp_path / "out")
    assert len(seen) == 2
