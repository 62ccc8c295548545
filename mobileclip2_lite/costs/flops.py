"""What a pass costs, counted without a clock: FLOPs and the peak of its activations.

The paper gives parameters and milliseconds; FLOPs and memory help to say why. Taught by
notebooks/50_architecture_and_latency.ipynb and 70_scaling.ipynb.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mobileclip2_lite.models.loaded import parameter_count


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
    return peak_memory_of(lambda: tower(inputs), tower)


def peak_memory_of(run: Callable[[], Any], model: nn.Module) -> int:
    """Most bytes of tensors alive at once while `run` runs, a model's weights not counted: of a training step, say."""
    watcher = _Watcher(model)
    with watcher:
        run()
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


@dataclass(frozen=True)
class Stage:
    """What one part of a tower is and costs, for one image."""

    name: str
    """`stem`, `stage 1`, ..., `head`."""
    mixer: str
    """`convolution` or `attention`."""
    side: int
    """Side of its output, in places; its tokens are the square of it."""
    width: int
    """Channels of its output."""
    parameters: int
    """Number of parameters."""
    flops: int
    """For one image; a multiply-add is two."""


@torch.no_grad()
def stage_costs(tower: str, image_size: int, outputs: int = 512) -> list[Stage]:
    """Parameters and FLOPs of each part of a folded MCi tower of timm or of the lite family; nothing is computed.

    Args:
        tower: timm's name, e.g. `fastvit_mci3` or `lite_mci5`.
        image_size: side of the image in pixels.
        outputs: width of the embedding.
    """
    import timm

    import mobileclip2_lite.models.towers  # noqa: F401  (registers the lite towers with timm)

    with torch.device("meta"):
        model = timm.create_model(tower, num_classes=outputs, inference_mode=True).eval()
        features = torch.empty(1, 3, image_size, image_size)
    parts = {"stem": model.stem, **{f"stage {n + 1}": stage for n, stage in enumerate(model.stages)}}
    parts["head"] = nn.Sequential(model.final_conv, model.head)
    found = []
    for name, part in parts.items():
        flops, features = count_flops(part, features), part(features)
        attends = any(type(module).__name__ == "AttentionBlock" for module in part.modules())
        side = features.shape[-1] if features.ndim == 4 else 1
        parameters = parameter_count(part)
        found.append(Stage(name, "attention" if attends else "convolution", side, features.shape[1], parameters, flops))
    return found
