"""What each of two nodes runs: a training to its end, and one that is asked to stop within its only epoch."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from doubles.tiny_training import go, settings

from mobileclip2_lite.recipes import Train
from mobileclip2_lite.training.step import Stepper
from mobileclip2_lite.training.stopping import Stopped


def an_epoch(folder: Path) -> Train:
    """Each of the 40 samples once, 8 at a time."""
    return settings(folder / "model", samples=40, batch_size=8, evaluate_every=1, checkpoint_every=100)


@contextlib.contextmanager
def noted(path: Path) -> Iterator[None]:
    """Write the uids of the samples that this process takes."""
    step, seen = Stepper.__call__, []

    def noting(stepper, number, batches):
        seen.extend(uid for batch in batches for uid in batch.uids)
        return step(stepper, number, batches)

    Stepper.__call__ = noting
    try:
        yield
    finally:
        Stepper.__call__ = step
        path.write_text("\n".join(seen), "utf-8")


def main(folder: Path) -> None:
    chosen = settings(folder / "model", captioners=("short",), checkpoint_every=2)
    go(chosen, folder / "data", folder / "adamw-nodes")
    calls = []

    def evaluate(loaded) -> dict:
        calls.append(1)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGTERM)
        return {}

    with noted(folder / f"seen-{os.environ['RANK']}"), contextlib.suppress(Stopped):
        go(an_epoch(folder), folder / "data", folder / "epoch", evaluate=evaluate)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
