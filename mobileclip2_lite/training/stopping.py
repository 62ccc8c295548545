"""Why a training ends early: a cluster asks (SIGTERM, some seconds before it kills), or its numbers are none any more.

Ours. Reads no file and writes none. Gives up: threads other than the first, which hear no signals.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path


class Stopped(RuntimeError):
    """A training was asked to stop; its checkpoint stands, and the same call goes on from there."""


class Diverged(RuntimeError):
    """The loss is not a number any more."""


def diverged(
    where: str, losses: Mapping[str, float], facts: Mapping[str, float | str], uids: Sequence[str], steps: Sequence[int]
) -> Diverged:
    """What is known about a loss or gradient that is not a number.

    Args:
        where: step and folder.
        losses: by name.
        facts: of this step, by name.
        uids: of some of its samples.
        steps: whose checkpoints stand.
    """
    known = [f"{name} {value:.4g}" for name, value in sorted(losses.items())]
    known += [f"{name} {value if isinstance(value, str) else f'{value:.4g}'}" for name, value in facts.items()]
    return Diverged(
        f"{where}: {', '.join(known)}. First samples of the batch: {', '.join(uids)}. "
        "What to look at, in this order: precision='fp32' (does it go on?), a lower learning_rate or a longer "
        "warmup, grad_clip (is it 0?), embeddings in the shards of these samples that are not finite. "
        + (f"The checkpoint of step {steps[-1]} is from before." if steps else "There is no checkpoint from before.")
    )


def stopped_at(where: Path, step: int, of: int, stand: Sequence[int]) -> Stopped:
    """A training was asked to stop: what is left of it.

    Args:
        where: its folder.
        of: steps in all.
        stand: steps whose checkpoints are there; without this one, if the disk refused it.
    """
    left = "the same command goes on from there" if step in stand else "free some space, and start the same command"
    found = f"that of step {stand[-1]} stands" if stand else "there is none"
    kept = "the checkpoint stands" if step in stand else f"the checkpoint could not be written, {found}"
    return Stopped(f"{where}: asked to stop (SIGTERM) at step {step} of {of}; {kept}, and {left}")


@contextlib.contextmanager
def stop_asked() -> Iterator[Callable[[], bool]]:
    """Whether SIGTERM has come since the block began; within it, the process does not end of it."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
