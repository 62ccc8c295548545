"""A stage that is killed again and again, at random moments, leaves what an undisturbed one leaves."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

from doubles.fake_teachers import files

from mobileclip2_lite.work.stopwatch import Stopwatch


def survive_kills(stage: Callable[[Path], object], folder: Path, kills: int, share: float) -> None:
    """Run a stage undisturbed, then kill it `kills` times, and compare all that both leave.

    The processes are forked, because a new one would take longer to start than the stage takes; nothing in them needs
    gradients, which is what a late fork would forbid.

    Args:
        stage: makes its work in the folder that it is given.
        folder: an empty folder for all tries.
        kills: how often a process is killed before it has ended.
        share: the latest moment of a kill, as a share of an undisturbed run's time.
    """
    watch = Stopwatch()
    stage(folder / "undisturbed")
    whole = watch.seconds
    expected, moments, killed, finished = files(folder / "undisturbed"), random.Random(0), 0, 0
    out = folder / "out-0"
    while killed < kills:
        child = os.fork()
        if not child:
            try:
                stage(out)
            finally:
                os._exit(0)
        time.sleep(moments.uniform(0, share * whole))
        os.kill(child, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        if (out / "manifest.json").exists():  # done in spite of the kills: check, and take a new folder
            stage(out)
            assert files(out).items() - {".lock": b""}.items() >= expected.items()
            finished += 1
            out = folder / f"out-{finished}"
    stage(out)
    assert files(out) == expected
