"""`mobileclip2-lite`, with the samples of each step noted: `python -m doubles.noted_training NOTES train …`.

A line a step is added to `NOTES/PROCESSES-RANK`, before the step is done, so that a kill loses none.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from mobileclip2_lite.cli import main
from mobileclip2_lite.training.step import Stepper
from mobileclip2_lite.work.json_lines import append_lines, read_lines

SLOW = 0.02
"""Seconds by which a step is slower, so that there is time to stop it."""


def note(folder: Path) -> None:
    """Let every step say what it takes."""
    step = Stepper.__call__
    path = folder / f"{os.environ.get('WORLD_SIZE', '1')}-{os.environ.get('RANK', '0')}.jsonl"

    def noting(stepper: Stepper, number: int, batches: list) -> object:
        append_lines(path, [{"step": number, "uids": [uid for batch in batches for uid in batch.uids]}])
        time.sleep(SLOW)
        return step(stepper, number, batches)

    Stepper.__call__ = noting


def noted(folder: Path) -> Iterator[tuple[int, int, str]]:
    """(processes, step, uid) of every sample that any process took."""
    for path in sorted(folder.glob("*.jsonl")):
        for line in read_lines(path):
            yield from ((int(path.stem.split("-")[0]), line["step"], uid) for uid in line["uids"])


if __name__ == "__main__":
    note(Path(sys.argv[1]))
    main(sys.argv[2:])
