"""Several processes equal one: features, loss, gradients, with an uneven last batch."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.nn import functional as F

from mobileclip2_lite.training.distributed import Processes, connect, notice_lost_processes
from mobileclip2_lite.training.losses import PairLoss
from mobileclip2_lite.training.optimizer import OPTIMIZERS

SCALES = {"first": 20.0, "second": 7.0}
DIMENSIONS = {"first": 5, "second": 3}


def problem(form: str):
    """A towers' model, inputs and teachers' rows of 11 pairs, the same wherever it is made."""
    g = torch.Generator().manual_seed(0)
    towers = torch.nn.ModuleDict({"image": torch.nn.Linear(6, 4), "text": torch.nn.Linear(5, 4)}).double()
    for p in towers.parameters():
        p.data = torch.randn(p.shape, generator=g, dtype=torch.float64)
    towers.register_parameter("logit_scale", torch.nn.Parameter(torch.tensor(1.5, dtype=torch.float64)))
    inputs = [torch.randn(11, width, generator=g, dtype=torch.float64) for width in (6, 5)]
    teachers = [
        {n: F.normalize(torch.randn(11, d, generator=g, dtype=torch.float64), dim=-1) for n, d in DIMENSIONS.items()}
        for _ in range(2)
    ]
    loss = PairLoss(tuple(SCALES), SCALES, DIMENSIONS, 0.7, form)
    return towers, inputs, teachers, loss


def loss_and_gradients(processes: Processes, form: str, splits: list[int]) -> dict[str, torch.Tensor]:
    """Of the whole batch, from this process's rows: `splits` says how many each process has."""
    towers, inputs, teachers, loss = problem(form)
    low = sum(splits[: processes.rank])
    mine = slice(low, low + splits[processes.rank])
    counts = processes.counts(splits[processes.rank])
    assert counts == splits
    image, text = (F.normalize(towers[k](x[mine]), dim=-1) for k, x in zip(("image", "text"), inputs, strict=True))
    found = loss(
        processes.rows(image, counts),
        processes.rows(text, counts),
        towers.logit_scale.exp(),
        *(processes.embeddings({n: rows[mine] for n, rows in side.items()}, counts) for side in teachers),
    )
    found.total.backward()
    processes.sum_gradients(towers.parameters(), bucket=10)
    gradients = {name: p.grad for name, p in towers.named_parameters()}
    return {"loss": processes.sum(found.total), **gradients}


def _worker(rank: int, size: int, folder: str) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(rank))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
    with connect("cpu") as processes:
        assert (processes.rank, processes.size) == (rank, size)
        for form in ("softmax", "sigmoid"):
            for uneven in (False, True):
                even = [11 // size + (i < 11 % size) for i in range(size)]
                splits = [1, *even[1:-1], even[-1] + even[0] - 1] if uneven else even
                found = loss_and_gradients(processes, form, splits)
                torch.save(found, f"{folder}/{form}-{uneven}-{rank}.pt")
        if size == 2:
            _train(processes, Path(folder))
    dist.destroy_process_group()


def _train(processes: Processes, folder: Path) -> None:
    """Two processes train the tiny student, interrupted once."""
    from doubles.tiny_training import settings

    from mobileclip2_lite.training.loop import train

    for optimizer in OPTIMIZERS:
        chosen = settings(folder / "model", captioners=("short",), checkpoint_every=2, optimizer=optimizer)
        train(chosen, folder / "data", folder / f"{optimizer}-two", 0, device="cpu", progress=False)
    train(_captioner(folder), folder / "data", folder / "captioner-two", 0, device="cpu", progress=False)


def _captioner(folder: Path):
    from doubles.tiny_training import settings

    return settings(folder / "captioner", distill=0.0, views="weak", captioning=2.0, captioners=("long",))


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
    torch.multiprocessing.start_processes(_worker, (size, str(tmp_path)), size, start_method=START)
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
        train(_captioner(tmp_path), tmp_path / "data", tmp_path / "captioner-one", 0, device="cpu", progress=False)
        for kind in (*OPTIMIZERS, "captioner"):
            one, two = (read(tmp_path / f"{kind}-{name}" / "log.jsonl") for name in ("one", "two"))
            assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], rel=1e-4)
        for kind in OPTIMIZERS:
            weights = [create_model(tmp_path / f"{kind}-{name}").model.state_dict() for name in ("one", "two")]
            assert all(torch.allclose(weights[0][k], weights[1][k], rtol=1e-2, atol=1e-3) for k in weights[0]), kind


START = "fork" if sys.platform == "linux" else "spawn"


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
