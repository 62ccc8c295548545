"""What a training says about itself: `log.jsonl`, a progress bar, and a tracker.

Ours. Writes one JSON line a logged step and one an evaluation; the file is cut back to the checkpoint when a training
is resumed, so that it reads as if nothing had happened. TensorBoard, Weights & Biases and the others come from
accelerate. Taught by notebooks/40_reinforced_training.ipynb.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mobileclip2_lite.work.files import write_atomic


class Meter:
    """Samples, seconds and seconds of waiting since the last look, without evaluations and checkpoints."""

    def __init__(self) -> None:
        self.samples, self.waited, self.rested, self.start = 0, 0.0, 0.0, time.perf_counter()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """The loop waits for data."""
        before = time.perf_counter()
        yield
        self.waited += time.perf_counter() - before

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """The loop does something other than training."""
        before = time.perf_counter()
        yield
        self.rested += time.perf_counter() - before

    def read(self) -> tuple[float, float, float]:
        """(seconds, seconds waited for data, samples a second) since the last call."""
        now = time.perf_counter()
        seconds, waited = now - self.start - self.rested, self.waited
        rate = self.samples / seconds if seconds > 0 else 0.0
        self.samples, self.waited, self.rested, self.start = 0, 0.0, 0.0, now
        return seconds, waited, rate


class Log:
    """The first process's record of a training."""

    def __init__(self, folder: Path, step: int, tracker: str, name: str, config: dict[str, Any]) -> None:
        """Open `folder/log.jsonl`, keeping the lines up to `step`."""
        self.path = folder / "log.jsonl"
        kept = [line for line in read(self.path) if line["step"] <= step] if self.path.is_file() else []
        write_atomic(self.path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        self.file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 (closed by `close`)
        self.tracker = _tracker(tracker, name, folder, step, config)

    def write(self, line: dict[str, Any]) -> None:
        """Append a line; it must have a `step`."""
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()
        if self.tracker is not None:
            self.tracker.log(dict(_numbers(line)), step=line["step"])

    def close(self) -> None:
        """Finish file and tracker."""
        self.file.close()
        if self.tracker is not None:
            self.tracker.finish()


def read(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a `log.jsonl`; a last line that a kill cut short is left out."""
    lines = []
    for line in Path(path).read_text("utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines


def _numbers(line: dict[str, Any], prefix: str = ""):
    for key, value in line.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{prefix}{key}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and key != "step":
            yield f"{prefix}{key}", value


def _tracker(name: str, run: str, folder: Path, step: int, config: dict[str, Any]) -> Any:
    if name == "none" or (name == "auto" and importlib.util.find_spec("tensorboard") is None):
        return None
    from accelerate.state import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    name = "tensorboard" if name == "auto" else name
    if name not in LOGGER_TYPE_TO_CLASS:
        raise ValueError(f"tracker {name!r} is unknown: auto, none or one of {', '.join(sorted(LOGGER_TYPE_TO_CLASS))}")
    if importlib.util.find_spec(name) is None:
        raise ValueError(f"tracker {name!r} is not installed: `pip install {name}`, or set tracker='none'")
    chosen, state = LOGGER_TYPE_TO_CLASS[name], PartialState()  # accelerate's logging needs its state
    del state
    if name == "tensorboard":  # lines after the checkpoint that a training is resumed from are replaced
        tracker = chosen(run, logging_dir=folder, purge_step=step + 1)
        tracker.start()
        return tracker
    tracker = chosen(run, logging_dir=folder) if chosen.requires_logging_directory else chosen(run)
    tracker.start()
    tracker.store_init_configuration(config)
    return tracker
