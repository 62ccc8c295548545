"""Counting what one forward pass costs, without a clock: FLOPs and the peak of its activations.

The paper gives parameters and milliseconds; FLOPs and memory help to say why. Reads and writes nothing.
Taught by notebooks/50_architecture_and_latency.ipynb.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode


@torch.no_grad()
def count_flops(tower: nn.Module, inputs: torch.Tensor) -> int:
    """FLOPs of one pass by the shapes of its matrix products and convolutions (a multiply-add is two)."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # fused attention hides its products from the counter
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            tower(inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return counter.get_total_flops()


@torch.no_grad()
def peak_memory(tower: nn.Module, inputs: torch.Tensor) -> int:
    """Most bytes of tensors alive at once in one pass, input included, weights not; the same on every device."""
    watcher = _Watcher(tower)
    with watcher:
        tower(inputs)
    return watcher.peak


class _Watcher(TorchDispatchMode):
    """Sums the storages that live after each operation."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        fixed = [*tower.parameters(), *tower.buffers()]
        self.known = {tensor.untyped_storage()._cdata for tensor in fixed}
        self.alive: dict[int, tuple[Any, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        from torch.multiprocessing.reductions import StorageWeakRef
        from torch.utils._pytree import tree_leaves

        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves((args, out)):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.known:
                    self.alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.alive = {key: entry for key, entry in self.alive.items() if not entry[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self.alive.values()))
        return out
