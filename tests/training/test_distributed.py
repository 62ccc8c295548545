"""Several processes equal one: features, loss, gradients, with an uneven last batch."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
from doubles.train_processes import captioner_settings, loss_and_gradients, share_a_batch, start

from mobileclip2_lite.training.distributed import Processes, connect, notice_lost_processes
from mobileclip2_lite.training.optimizer import OPTIMIZERS


@pytest.mark.parametrize("size", [2, 4])
def test_many_processes_equal_one(size, tmp_path):
    from doubles.tiny_training import settings, write_captioner, write_data, write_model

    from mobileclip2_lite.models.zoo import create_model
    from mobileclip2_lite.training.log import read
    from mobileclip2_lite.training.loop import train

    if size == 2:
        write_data(tmp_path / "data")
        write_model(tmp_path / "model")
        write_captioner(tmp_path / "captioner")
    start(share_a_batch, size, tmp_path)
    for form in ("softmax", "sigmoid"):
        alone = loss_and_gradients(Processes(), form, [11])
        for uneven in (False, True):
            for rank in range(size):
                found = torch.load(tmp_path / f"{form}-{uneven}-{rank}.pt", weights_only=True)
                for name, value in alone.items():
                    assert torch.allclose(found[name], value, rtol=1e-10, atol=1e-12), (form, uneven, rank, name)
    if size == 2:
        for optimizer in OPTIMIZERS:
            chosen = settings(tmp_path / "model", captioners=("short",), checkpoint_every=2, optimizer=optimizer)
            train(chosen, tmp_path / "data", tmp_path / f"{optimizer}-one", 0, device="cpu", progress=False)
        train(
            captioner_settings(tmp_path), tmp_path / "data", tmp_path / "captioner-one", 0, device="cpu", progress=False
        )
        for kind in (*OPTIMIZERS, "captioner"):
            one, two = (read(tmp_path / f"{kind}-{name}" / "log.jsonl") for name in ("one", "two"))
            assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], rel=1e-4)
        for kind in OPTIMIZERS:
            weights = [create_model(tmp_path / f"{kind}-{name}").model.state_dict() for name in ("one", "two")]
            assert all(torch.allclose(weights[0][k], weights[1][k], rtol=1e-2, atol=1e-3) for k in weights[0]), kind


def test_gathered_teachers_carry_no_gradient():
    rows = Processes().rows(torch.ones(2, 3), [2])
    assert not rows.all.requires_grad
    assert rows.local is rows.all


def test_one_process_without_a_launcher(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with connect("cpu") as processes:
        assert (processes.rank, processes.size, processes.device) == (0, 1, torch.device("cpu"))
        assert processes.first


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
def test_torchrun(tmp_path):
    """The real launcher, as a user calls it, on a script that calls `train`."""
    import json
    import subprocess

    from doubles.tiny_training import write_data, write_model

    write_data(tmp_path / "data")
    write_model(tmp_path / "model")
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\nfrom doubles.tiny_training import settings\n"
        "from mobileclip2_lite.training.loop import train\n"
        "here = Path(__file__).parent\n"
        "if __name__ == '__main__':\n"
        "    train(settings(here / 'model'), here / 'data', here / 'out', 0, device='cpu', progress=False)\n",
        "utf-8",
    )
    here = Path(__file__).parents[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(here), str(here.parent)])}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    done = subprocess.run(launcher, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, f"{done.stderr[:3000]}\n...\n{done.stderr[-2000:]}"
    assert json.loads((tmp_path / "out" / "manifest.json").read_text("utf-8"))["processes"] == 2
