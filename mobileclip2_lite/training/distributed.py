"""Several processes as one: gathered features with gradients, uneven batches, summed gradients.

Paper: the batch of 8,192 to 65,536 is contrasted as a whole over all GPUs (MobileCLIP2). Reads the
environment that `torchrun` or `accelerate launch` sets; writes nothing. Every process computes the rows of the loss
that are its own samples' ("local loss") against the columns of all, so that no matrix is made twice. Differs from the
usual DistributedDataParallel: gradients are summed once a step, beside its one backward pass (`overlap`), or after the
last of several, which makes accumulation and gradient caching exact. Where batch norms shall see all processes' samples
and where the model is too large for each: `synchronised`, `sharding`. Taught by notebooks/40_reinforced_training.ipynb.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mobileclip2_lite.training.losses import Rows

_JOINED = itertools.count()
"""Number of the next group that this process joins; all processes join the same ones."""
PATIENCE = datetime.timedelta(days=1)
"""How long processes wait for the first, which alone evaluates, saves and uploads: torch's own 10 minutes (nccl) or 30
(gloo) would end a training during a long evaluation. Of a process that has ended they hear at once all the same."""


@dataclass(frozen=True)
class Processes:
    """This process among all that train one model."""

    rank: int = 0
    """0 to size - 1; 0 writes files."""
    size: int = 1
    """Number of processes."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Where this process computes."""
    beside: dist.ProcessGroup | None = None
    """A gloo group for small numbers and for waiting; None takes the main one."""

    @property
    def first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def counts(self, rows: int) -> list[int]:
        """Every process's number of rows, which may differ (an uneven last batch)."""
        if self.size == 1:
            return [rows]
        found = [torch.zeros(1, dtype=torch.long) for _ in range(self.size)]
        dist.all_gather(found, torch.tensor([rows]), group=self.beside)  # between CPUs: a GPU would have to wait
        return [int(count) for count in found]

    def most(self, here: int) -> int:
        """The largest of all processes' numbers; every process must ask."""
        return max(self.counts(here))

    def any(self, here: bool) -> bool:
        """Whether it is so in any process; every process must ask."""
        return any(self.counts(int(here)))

    def rows(self, features: Tensor, counts: list[int]) -> Rows:
        """`features` (B, D) with those of all processes (N, D); gradients flow back to the process that they belong to.

        Tensors without `requires_grad` (teachers' stored embeddings) are gathered without a gradient's cost.
        """
        if self.size == 1:
            return Rows.alone(features)
        gathered = _Gather.apply(features, counts, self.rank)
        return Rows(features, gathered, sum(counts[: self.rank]))

    def embeddings(self, by_teacher: Mapping[str, Tensor], counts: list[int]) -> dict[str, Rows]:
        """`rows` of each teacher's embeddings."""
        return {name: self.rows(rows, counts) for name, rows in by_teacher.items()}

    def sum_gradients(self, parameters: Iterable[nn.Parameter], bucket: int = 8_000_000) -> None:
        """Replace each gradient by its sum over processes, in buckets of about `bucket` numbers.

        With `losses.Loss`, whose totals add up to the whole batch's loss, this is the whole batch's gradient.
        """
        if self.size == 1:
            return
        with torch.no_grad():
            waiting: list[Tensor] = []
            for parameter in parameters:
                if parameter.requires_grad:
                    if parameter.grad is None:  # another process may have one
                        parameter.grad = torch.zeros_like(parameter)
                    waiting.append(parameter.grad)
                if sum(map(torch.numel, waiting)) >= bucket:
                    _sum_in_place(waiting)
                    waiting = []
            _sum_in_place(waiting)

    def sum(self, value: Tensor) -> Tensor:
        """The sum of `value` over processes, without a gradient."""
        if self.size == 1:
            return value.detach()
        value = value.detach().clone()
        dist.all_reduce(value)
        return value

    def sums(self, values: Mapping[str, Tensor]) -> dict[str, float]:
        """The sum over processes of each number, by name; a GPU is waited for."""
        names = sorted(values)
        found = self.sum(torch.stack([values[name].float() for name in names])).tolist()
        return dict(zip(names, found, strict=True))

    def total(self, counter: Mapping[str, int]) -> Counter:
        """The sum of all processes' counts, by key; every process must ask."""
        if self.size == 1:
            return Counter(counter)
        found: list = [None] * self.size
        dist.all_gather_object(found, dict(counter), group=self.beside)
        return sum(map(Counter, found), Counter())

    def same(self, module: nn.Module) -> None:
        """Give every process the first one's parameters and buffers."""
        if self.size > 1:
            with torch.no_grad():
                for tensor in (*module.parameters(), *module.buffers()):
                    dist.broadcast(tensor, 0)

    def wait(self) -> None:
        """Return when every process has come here; the first may come late, see `PATIENCE`."""
        if self.size > 1:
            dist.barrier(group=self.beside)


class _Gather(torch.autograd.Function):
    """All processes' rows; the backward pass sums over processes what each says about this one's rows."""

    @staticmethod
    def forward(ctx, features: Tensor, counts: list[int], rank: int) -> Tensor:
        ctx.counts, ctx.rank = counts, rank
        most = max(counts)
        padded = features.detach()
        if len(features) < most:
            padded = torch.cat([padded, padded.new_zeros(most - len(features), *features.shape[1:])])
        pieces = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(pieces, padded.contiguous())
        return torch.cat([piece[:count] for piece, count in zip(pieces, counts, strict=True)])

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        start = sum(ctx.counts[: ctx.rank])
        return gradient[start : start + ctx.counts[ctx.rank]], None, None


def _sum_in_place(tensors: list[Tensor]) -> None:
    if not tensors:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    for tensor, piece in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(piece.view_as(tensor))


@contextlib.contextmanager
def connect(device: str | torch.device | None = None) -> Iterator[Processes]:
    """This process's place, from the launcher's environment; one process without a launcher.

    Joins the process group (nccl on GPUs, gloo otherwise) unless the caller has already joined one, and leaves it
    again; waits in a group of its own.

    Args:
        device: where to compute; `cuda` without a number is this process's GPU, and None takes that if there is one,
            else Apple's, else the CPU.
    """
    notice_lost_processes()
    local, size = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if device is None:
        if torch.cuda.is_available():
            device = f"cuda:{local}"
        else:
            device = "mps" if size == 1 and torch.backends.mps.is_available() else "cpu"
    device = torch.device(device)
    if device.type == "cuda":
        device = torch.device("cuda", local) if device.index is None else device
        torch.cuda.set_device(device)  # which takes no `cuda` without a number
    joined = dist.is_available() and dist.is_initialized()
    if size == 1 and not joined:
        yield Processes(device=device)
        return
    if not joined:
        _join("nccl" if device.type == "cuda" else "gloo")
    beside = None
    try:
        beside = dist.new_group(backend="gloo", timeout=PATIENCE)
        yield Processes(dist.get_rank(), dist.get_world_size(), device, beside)
    finally:
        if not joined:
            dist.destroy_process_group()
        elif beside is not None:
            dist.destroy_process_group(beside)


def _join(backend: str) -> None:
    """Join the process group that the launcher's environment describes, by a name that no earlier training had.

    The launcher's store outlives a group: under one name, a second training could be told where the first one listened.
    """
    from torch.distributed.rendezvous import rendezvous

    store, rank, size = next(rendezvous("env://"))
    store = dist.PrefixStore(f"training {next(_JOINED)}", store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size)


def notice_lost_processes() -> bool:
    """Warn when `accelerate launch --num_processes N` without GPUs has started one process only; True if so.

    Its launcher then sets MASTER_ADDR (as for N > 1) but no WORLD_SIZE (accelerate 1.15 without a GPU).
    """
    lost = "ACCELERATE_MIXED_PRECISION" in os.environ and "MASTER_ADDR" in os.environ and "WORLD_SIZE" not in os.environ
    if lost:
        warnings.warn(
            "`accelerate launch` was asked for several processes but has started only one, as it does on a machine "
            "without GPUs. This training goes on with one process. For several, use "
            "`torchrun --nproc_per_node=N` in place of `accelerate launch --num_processes N`.",
            stacklevel=2,
        )
    return lost
