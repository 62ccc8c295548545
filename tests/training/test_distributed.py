"""Several processes equal one: features, loss, gradients, trainings; with the model in parts, and on two nodes."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from doubles import two_nodes
from doubles.tiny_training import go, settings, write_captioner, write_data, write_model
from doubles.train_processes import (
    PARTS,
    captioner_settings,
    in_parts,
    loss_and_gradients,
    share_a_batch,
    start,
    wait_for_the_first,
)

from mobileclip2_lite.models.zoo import create_model
from mobileclip2_lite.training import checkpoints
from mobileclip2_lite.training.checks import check, check_division
from mobileclip2_lite.training.distributed import Processes, connect, notice_lost_processes
from mobileclip2_lite.training.feeding import PreparedBatch, TextGroup, _move
from mobileclip2_lite.training.log import read
from mobileclip2_lite.training.optimizer import OPTIMIZERS
from mobileclip2_lite.work.folder import read_manifest


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    """What two processes have made of a batch, of trainings, and of trainings in parts."""
    folder = tmp_path_factory.mktemp("two")
    write_data(folder / "data")
    write_model(folder / "model")
    write_captioner(folder / "captioner")
    start(share_a_batch, 2, folder)
    return folder


@pytest.mark.parametrize("size", [2, 4])
def test_a_batch_shared_is_the_whole_batch(size, request, tmp_path):
    if size == 2:
        folder = request.getfixturevalue("two")
    else:
        folder = tmp_path
        start(share_a_batch, size, folder)
    for form in ("softmax", "sigmoid"):
        alone = loss_and_gradients(Processes(), form, [11])
        for uneven in (False, True):
            for rank in range(size):
                found = torch.load(folder / f"{form}-{uneven}-{rank}.pt", weights_only=True)
                for name, value in alone.items():
                    assert torch.allclose(found[name], value, rtol=1e-10, atol=1e-12), (form, uneven, rank, name)


def test_two_processes_train_as_one(two):
    for optimizer in OPTIMIZERS:
        chosen = settings(two / "model", captioners=("short",), checkpoint_every=2, optimizer=optimizer)
        go(chosen, two / "data", two / f"{optimizer}-one")
    go(captioner_settings(two), two / "data", two / "captioner-one")
    for kind in (*OPTIMIZERS, "captioner"):
        same_losses(two / f"{kind}-one", two / f"{kind}-two")
    for kind in OPTIMIZERS:
        same_weights(two / f"{kind}-one", two / f"{kind}-two")


@pytest.mark.parametrize("name", PARTS)
def test_a_model_in_parts_is_trained_as_a_whole_one(two, name):
    """FSDP2 with gradient caching, accumulation, recomputing; one process goes on where two were stopped."""
    go(in_parts(two, name), two / "data", two / f"{name}-one", evaluate=lambda loaded: {})
    if name == "stopped":
        state = checkpoints.load_latest(two / "stopped-parts" / "checkpoints")
        whole = create_model(two / "model").model.state_dict()
        assert {k: v.shape for k, v in state["model"].items()} == {k: v.shape for k, v in whole.items()}
        assert state["step"] == 2
        go(in_parts(two, name), two / "data", two / f"{name}-parts", evaluate=lambda loaded: {})
    same_losses(two / f"{name}-one", two / f"{name}-parts")
    same_weights(two / f"{name}-one", two / f"{name}-parts")
    assert read_manifest(two / f"{name}-parts")["key"] == read_manifest(two / f"{name}-one")["key"]


def same_losses(one: Path, other: Path) -> None:
    found = [[line["loss"] for line in read(folder / "log.jsonl") if "loss" in line] for folder in (one, other)]
    assert found[1] == pytest.approx(found[0], rel=1e-4)


def same_weights(one: Path, other: Path) -> None:
    """As near as AdamW lets them be, which divides by moments near zero."""
    weights = [create_model(folder).model.state_dict() for folder in (one, other)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.allclose(weights[0][k], weights[1][k], rtol=1e-2, atol=1e-3) for k in weights[0])


@pytest.mark.parametrize(
    "changes",
    [{"optimizer": "nmuon"}, {"ema": 0.99}, {"compile": True}, {"precision": "fp16"}, {"captioning": 2.0}],
    ids=lambda changes: next(iter(changes)),
)
def test_what_needs_the_whole_model_is_refused_with_a_remedy(changes):
    chosen = settings(Path("model"), parallel="fsdp", **changes)
    check_division(chosen, 1)
    with pytest.raises(ValueError, match=rf"and {next(iter(changes))} is .*, or parallel='ddp'"):
        check_division(chosen, 2)
    with pytest.raises(ValueError, match=r"sync_batch_norm .* compile .* choose one"):
        check_division(settings(Path("model"), sync_batch_norm=True, compile=True), 2)
    with pytest.raises(ValueError, match="one of ddp, fsdp"):
        check(settings(Path("model"), parallel="tensor"))


def test_gathered_teachers_carry_no_gradient():
    rows = Processes().rows(torch.ones(2, 3), [2])
    assert not rows.all.requires_grad
    assert rows.local is rows.all


def test_one_process_without_a_launcher(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with connect("cpu") as processes:
        assert (processes.rank, processes.size, processes.device) == (0, 1, torch.device("cpu"))
        assert processes.first


def test_cuda_without_a_number_is_this_processs_gpu(monkeypatch):
    """As `train --device cuda` names it; torch takes no device without a number as the current one."""
    from torch.cuda._utils import _get_device_index

    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: chosen.append(_get_device_index(device)))
    for name in ("WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    with connect("cuda") as processes:
        assert processes.device == torch.device("cuda:0")
    with connect("cuda:3") as processes:
        assert processes.device == torch.device("cuda:3")
    monkeypatch.setenv("LOCAL_RANK", "1")
    with connect("cuda") as processes:
        assert processes.device == torch.device("cuda:1")
    assert chosen == [0, 3, 1]


@pytest.mark.parametrize(("kind", "beside"), [("cuda", True), ("mps", False)])
def test_only_cuda_copies_a_batch_beside_the_training(monkeypatch, kind, beside):
    """A copy to Apple's GPU that nobody waits for reads memory that is free again by then (pytorch issue 189690)."""
    seen = []
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device, non_blocking=False: seen.append(non_blocking))
    batch = PreparedBatch(["a"], torch.zeros(1), [TextGroup("text", ["a"], torch.zeros(1), {})], {"t": torch.zeros(1)})
    _move(batch, torch.device(kind))
    assert seen == [beside] * 3


def test_a_long_evaluation_of_the_first_ends_no_training(tmp_path):
    start(wait_for_the_first, 2, tmp_path)


def test_accelerate_launch_that_lost_its_processes_is_noticed(monkeypatch):
    """The environment that accelerate 1.15's launcher sets for `--cpu --num_processes 2`."""
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.warns(UserWarning, match="torchrun --nproc_per_node=N"):
        assert notice_lost_processes()
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not notice_lost_processes()
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.delenv("MASTER_ADDR")  # `--num_processes 1`
    assert not notice_lost_processes()


@pytest.mark.slow
def test_two_nodes_train_as_one_and_one_takes_up_what_they_left(two):
    """The real launcher once a node, as a user calls it; what a node's end leaves of an epoch is seen once each."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
    launcher += ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{free_port()}", "--local-addr=127.0.0.1"]
    program = [str(Path(two_nodes.__file__)), str(two)]
    here = Path(__file__).parents[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(here), str(here.parent)])}
    nodes = [
        subprocess.Popen([*launcher, *program], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(2)
    ]
    try:
        said = [node.communicate(timeout=300)[0].decode() for node in nodes]
    finally:
        for node in nodes:
            node.kill()
    assert [node.returncode for node in nodes] == [0, 0], "\n".join(text[-3000:] for text in said)
    assert read_manifest(two / "adamw-nodes")["processes"] == 2
    same_losses(two / "adamw-two", two / "adamw-nodes")
    same_weights(two / "adamw-two", two / "adamw-nodes")
    assert not (two / "epoch" / "manifest.json").exists()
    with two_nodes.noted(two / "seen-alone"):
        go(two_nodes.an_epoch(two), two / "data", two / "epoch")
    seen = [(two / name).read_text("utf-8").split() for name in ("seen-0", "seen-1", "seen-alone")]
    assert [len(uids) for uids in seen] == [8, 8, 24]
    assert len(set(itertools.chain(*seen))) == 40


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]
