"""What a CPU needs: threads that leave room for loaders, and strided 1x1 convolutions by slicing.

Neither changes a number (docs/lab_log.md). Reads and writes nothing.
"""

from __future__ import annotations

import functools
import os

import torch
from torch import Tensor, nn

from mobileclip2_lite.recipes import Train
from mobileclip2_lite.work.threads import usable_cores


def strided_pointwise_by_slicing(model: nn.Module) -> None:
    """Let 1x1 convolutions with a stride (MobileOne's stem has one) drop the pixels first: the same numbers.

    For the CPU: oneDNN of torch 2.14 writes outside its memory in the backward pass of such a convolution of 3 channels
    in channels-last layout at 224 pixels and more, and the process dies (docs/lab_log.md).
    """
    for module in model.modules():
        pointwise = isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.padding == (0, 0)
        if pointwise and module.groups == 1 and max(module.stride) > 1:
            module._conv_forward = functools.partial(_sliced_convolution, module.stride)


def _sliced_convolution(stride: tuple[int, int], x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    kept = x[:, :, :: stride[0], :: stride[1]].contiguous(memory_format=torch.channels_last)
    return nn.functional.conv2d(kept, weight, bias)


def threads(settings: Train, device: torch.device) -> int:
    """CPU threads to take: `settings.threads`; 0 keeps OMP_NUM_THREADS, or takes this process's part of the cores.

    Threads that spin while they wait (OpenMP's default) and a busy loader process on the same cores slow each other
    down manyfold: without OMP_WAIT_POLICY=passive one core is left to the loader.
    """
    wanted = settings.threads
    if not wanted and device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        spinning = os.environ.get("OMP_WAIT_POLICY", "").lower() != "passive"
        share = usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        wanted = max(1, share - bool(settings.workers and spinning))
    return wanted or torch.get_num_threads()
