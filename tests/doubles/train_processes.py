"""What tests of training let other processes do. They are spawned: autograd does not work in a process forked late."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import datetime
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from doubles.tiny_training import settings
from torch.nn import functional as F

from mobileclip2_lite.training.distributed import Processes, connect
from mobileclip2_lite.training.loop import train
from mobileclip2_lite.training.losses import PairLoss
from mobileclip2_lite.training.optimizer import OPTIMIZERS
from mobileclip2_lite.training.overlap import Overlap
from mobileclip2_lite.training.sharding import blocks
from mobileclip2_lite.training.step import Stepper
from mobileclip2_lite.training.stopping import Stopped
from mobileclip2_lite.training.synchronised import synchronise_batch_norms


def start(worker, size: int, folder: Path) -> None:
    """Run `worker(rank, size, folder)` in `size` processes, and wait; an error of one is raised here."""
    torch.multiprocessing.start_processes(worker, (size, str(folder)), size, start_method="spawn")


@contextlib.contextmanager
def _group(rank: int, size: int, folder: str) -> Iterator[Processes]:
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(rank))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
    with connect("cpu") as processes:
        yield processes
    dist.destroy_process_group()


def _go(chosen, data: Path, out: Path) -> None:
    train(chosen, data, out, seed=0, device="cpu", progress=False)


def wait_for_the_first(rank: int, size: int, folder: str) -> None:
    """The first comes later than the group waits: here a second, by default half an hour, or ten minutes on GPUs."""
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(rank))
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
    dist.distributed_c10d._set_pg_timeout(datetime.timedelta(seconds=1))
    with connect("cpu") as processes:
        processes.wait()
        if processes.first:
            time.sleep(4)
        processes.wait()
        assert processes.counts(rank) == [0, 1]
    assert dist.is_initialized(), "the caller's group is the caller's to leave"
    dist.destroy_process_group()


# --- a batch shared --------------------------------------------------------------------------------------------------

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


def share_a_batch(rank: int, size: int, folder: str) -> None:
    """One of the processes that share a batch, and then, where they are two, a training."""
    with _group(rank, size, folder) as processes:
        assert (processes.rank, processes.size) == (rank, size)
        for form in ("softmax", "sigmoid"):
            for uneven in (False, True):
                even = [11 // size + (i < 11 % size) for i in range(size)]
                splits = [1, *even[1:-1], even[-1] + even[0] - 1] if uneven else even
                found = loss_and_gradients(processes, form, splits)
                torch.save(found, f"{folder}/{form}-{uneven}-{rank}.pt")
        sum_beside_the_backward_pass(processes)
        normalise_together(processes)
        if size == 2:
            _train(Path(folder))
            train_in_parts(processes, Path(folder))


def sum_beside_the_backward_pass(processes: Processes) -> None:
    """Four layers, one of which the first process does not use: all others are sent before its pass has ended."""
    torch.manual_seed(0)
    layers = torch.nn.ModuleList(torch.nn.Linear(3, 3, bias=False) for _ in range(4))
    overlap, sent = Overlap(layers.parameters(), bucket=9), []
    assert len(overlap.buckets) == 4
    for _ in range(2):
        x = torch.full((1, 3), processes.rank + 1.0, requires_grad=True) * 1
        x.register_hook(lambda gradient: sent.append(len(overlap.sent)))  # the last of the backward pass
        sent.clear()
        layers.zero_grad()
        overlap.begin()
        used = list(layers)[processes.rank == 0 :]
        y = x
        for layer in used:
            y = layer(y)
        y.sum().backward()
        own = [layer.weight.grad.clone() for layer in used]
        assert sent == [len(used)], "while the pass was under way"
        overlap.finish()
        if processes.rank:
            others = zip(list(layers)[1:], own[1:], strict=True)
            assert all(not torch.equal(layer.weight.grad, one) for layer, one in others)
        found = [torch.zeros(3, 3) for _ in range(processes.size)]
        for layer in layers:
            dist.all_gather(found, layer.weight.grad)
            assert all(torch.equal(one, found[0]) for one in found), "the same sum everywhere"


def normalise_together(processes: Processes) -> None:
    """Batch norms, timm's too, see all processes' samples: values, gradients and statistics are the whole batch's."""
    from timm.layers import BatchNormAct2d

    splits = [7 - processes.size + 1, *[1] * (processes.size - 1)]
    low = sum(splits[: processes.rank])
    g = torch.Generator().manual_seed(1)
    x, slope = (torch.randn(7, 3, 4, 4, generator=g, dtype=torch.float64) for _ in range(2))
    for kind in (torch.nn.BatchNorm2d, BatchNormAct2d):
        torch.manual_seed(0)
        whole = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 1), kind(5), torch.nn.Conv2d(5, 3, 1), kind(3)).double()
        whole[1].momentum = None  # the plain mean of all batches
        together = copy.deepcopy(whole)
        synchronise_batch_norms(together, processes)
        mine = slice(low, low + splits[processes.rank])
        for _ in range(2):
            every = x.clone().requires_grad_()
            (whole(every) * slope).sum().backward()
            own = x[mine].clone().requires_grad_()
            (together(own) * slope[mine]).sum().backward()
            close(own.grad, every.grad[mine])
        processes.sum_gradients(together.parameters())
        for one, other in zip(together.parameters(), whole.parameters(), strict=True):
            close(one.grad, other.grad)
        for one, other in zip(together.buffers(), whole.buffers(), strict=True):
            close(one, other)
        close(together.eval()(x[mine]), whole.eval()(x)[mine])


def close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


def _train(folder: Path) -> None:
    for optimizer in OPTIMIZERS:
        chosen = settings(folder / "model", captioners=("short",), checkpoint_every=2, optimizer=optimizer)
        _go(chosen, folder / "data", folder / f"{optimizer}-two")
    _go(captioner_settings(folder), folder / "data", folder / "captioner-two")


def captioner_settings(folder: Path):
    """A short training of the tiny captioner."""
    return settings(folder / "captioner", distill=0.0, views="weak", captioning=2.0, captioners=("long",))


PARTS = {
    "whole": {},
    "cached": {"forward_chunk": 3, "accumulate": 2, "grad_clip": 0.1},
    "recomputed": {"recompute": True, "loss": "sigmoid"},
    "stopped": {"evaluate_every": 1},
}
"""Trainings of a model in parts, by name: what is not as in `settings`."""


def in_parts(folder: Path, name: str):
    """The settings of one of `PARTS`; one process takes them too, and has the whole model."""
    return settings(folder / "model", captioners=("short",), checkpoint_every=100, parallel="fsdp", **PARTS[name])


def train_in_parts(processes: Processes, folder: Path) -> None:
    """Each of `PARTS`; that of `stopped` is asked to stop after two steps, the first process's only."""
    stepper = Stepper(dataclasses.replace(in_parts(folder, "whole"), distill=0.0), {}, 5, 0, processes)
    held = sum(p.to_local().numel() if p.ndim else 1 for p in stepper.model.parameters())
    assert held < 0.55 * sum(p.numel() for p in stepper.model.parameters())
    assert len(blocks(stepper.model)) == 2, "each tower's only block"
    for name in PARTS:
        seen: list[int] = []

        def evaluate(loaded, seen=seen, name=name) -> dict:
            seen.append(sum(p.numel() for p in loaded.model.parameters() if not hasattr(p, "to_local")))
            if name == "stopped" and len(seen) == 2:
                signal.raise_signal(signal.SIGTERM)
            return {"weights": seen[-1]}

        with contextlib.suppress(Stopped):
            train(in_parts(folder, name), folder / "data", folder / f"{name}-parts", 0, evaluate, "cpu", progress=False)
        assert len(seen) == (0 if processes.rank else 2 if name == "stopped" else 1)
        assert set(seen) <= {sum(p.numel() for p in stepper.model.parameters()) + (name == "recomputed")}


# --- hard data --------------------------------------------------------------------------------------------------------


def hard(folder: Path, **changes):
    """A broken sample, accumulation and a chunked loss at once, with a checkpoint after every second step."""
    chosen = {"accumulate": 2, "loss_chunk": 3, "captioners": ("short",), "checkpoint_every": 2, **changes}
    return settings(folder / "model", **chosen)


def norms(folder: Path, **changes):
    """A model with batch norms."""
    chosen = {"views": "weak", "distill": 0.0, **changes}
    return settings(folder / "resnet", **chosen)


def come_through(rank: int, size: int, folder: str) -> None:
    """One of the processes that train on hard data, as one process does beside them."""
    place = Path(folder)
    with _group(rank, size, folder) as processes:
        module = torch.nn.BatchNorm1d(2)
        with torch.no_grad():
            module.weight.fill_(rank)
            module.running_mean.fill_(rank)
        processes.same(module)
        assert not module.weight.any()
        assert not module.running_mean.any()
        assert processes.total({"a": rank + 1, f"only {rank}": 1}) == {"a": 3, "only 0": 1, "only 1": 1}
        _go(hard(place), place / "data", place / "two")
        _go(hard(place), place / "data", place / "resumed")
        _go(hard(place, parallel="fsdp"), place / "data", place / "resumed in parts")
        _go(hard(place, parallel="fsdp", forward_chunk=3), place / "data", place / "parts")
        for together in (False, True):
            chosen = norms(place, sync_batch_norm=together)
            _go(chosen, place / "data", place / ("norms together" if together else "norms apart"))
        _go(settings(place / "model", batch_size=2, samples=80), place / "half", place / "halved")


# --- killed -----------------------------------------------------------------------------------------------------------


def train_slowly(chosen, data, out):
    """In a process of its own: every evaluation gives the killer time."""
    torch.set_num_threads(1)

    def evaluate(loaded):
        time.sleep(0.3)
        return {}

    train(chosen, data, out, 0, evaluate, device="cpu", progress=False)
