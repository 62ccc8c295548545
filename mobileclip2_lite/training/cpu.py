"""What a CPU needs: threads that leave room for loaders. It changes no number. Reads and writes nothing."""

from __future__ import annotations

import os

import torch

from mobileclip2_lite.recipes import Train
from mobileclip2_lite.work.threads import usable_cores


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
