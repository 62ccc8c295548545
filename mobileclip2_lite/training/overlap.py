"""Gradients summed over processes while the backward pass still runs.

Ours; what DistributedDataParallel does, for a model whose towers are called one by one. Gradients are gathered in
buckets, the last layers' first, because theirs come first; a full bucket is sent at once, in the same order in every
process, and the backward pass goes on beside it. Gives up: steps of several backward passes (accumulation, gradient
caching), whose gradients are summed after the last (`distributed.Processes.sum_gradients`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Overlap:
    """The sums of a model's gradients: `begin`, one backward pass, `finish`.

    Args:
        parameters: those with `requires_grad` take part; the same, in the same order, in every process.
        bucket: about so many numbers are sent at a time.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], bucket: int = 8_000_000) -> None:
        self.buckets: list[list[nn.Parameter]] = [[]]
        for parameter in reversed([one for one in parameters if one.requires_grad]):
            if sum(one.numel() for one in self.buckets[-1]) >= bucket:
                self.buckets.append([])
            self.buckets[-1].append(parameter)
        self.place = {parameter: number for number, some in enumerate(self.buckets) for parameter in some}
        self.left: list[int] = []
        self.sent: list[tuple[Any, Tensor, list[Tensor]]] = []
        self.running = False
        for parameter in self.place:
            parameter.register_post_accumulate_grad_hook(self._ready)

    def begin(self) -> None:
        """The next backward pass is a step's only one."""
        self.left, self.sent, self.running = [len(some) for some in self.buckets], [], True

    def _ready(self, parameter: Tensor) -> None:
        if not self.running:
            return
        self.left[self.place[parameter]] -= 1
        while len(self.sent) < len(self.buckets) and not self.left[len(self.sent)]:
            self._send()

    def _send(self) -> None:
        gradients = []
        for parameter in self.buckets[len(self.sent)]:
            if parameter.grad is None:  # another process may have one
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        self.sent.append((dist.all_reduce(flat, async_op=True), flat, gradients))

    @torch.no_grad()
    def finish(self) -> None:
        """Send what is left, and wait: every gradient is the sum over processes."""
        self.running = False
        while len(self.sent) < len(self.buckets):
            self._send()
        for work, flat, gradients in self.sent:
            work.wait()
            for gradient, piece in zip(gradients, flat.split([one.numel() for one in gradients]), strict=True):
                gradient.copy_(piece.view_as(gradient))
        self.sent = []
