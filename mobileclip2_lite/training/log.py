"""What a training says about itself: `log.jsonl`, a progress bar, and a tracker.

Ours. Writes one JSON line a logged step and one an evaluation; the file is cut back to the checkpoint when a training
is resumed, so that it reads as if nothing had happened. TensorBoard draws it where it is installed;
Weights & Biases and trackio by choice. Taught by notebooks/40_reinforced_training.ipynb.
"""

from __future__ import annotations

import contextlib
import importlib
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


TRACKERS = ("tensorboard", "wandb", "trackio")
"""Programs that draw curves while a training runs; each is used if it is installed and asked for."""


class _TensorBoard:
    """Event files beside the log; lines after the checkpoint that a training is resumed from are replaced."""

    def __init__(self, folder: Path, run: str, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(folder / run, purge_step=step + 1)

    def log(self, numbers: dict[str, float], step: int) -> None:
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def finish(self) -> None:
        self.writer.close()


class _Service:
    """Weights & Biases, or trackio, which has its interface."""

    def __init__(self, package: str, folder: Path, run: str, config: dict[str, Any]) -> None:
        module = importlib.import_module(package)
        place = {"dir": str(folder)} if package == "wandb" else {}
        self.run = module.init(project="mobileclip2_lite", name=f"{folder.name}-{run}", config=config, **place)

    def log(self, numbers: dict[str, float], step: int) -> None:
        self.run.log(numbers, step=step)

    def finish(self) -> None:
        self.run.finish()


def _tracker(name: str, run: str, folder: Path, step: int, config: dict[str, Any]) -> _TensorBoard | _Service | None:
    """The tracker of that name, None for none.

    Raises:
        ValueError: there is no tracker of that name, or it is not installed.
    """
    if name == "none" or (name == "auto" and importlib.util.find_spec("tensorboard") is None):
        return None
    name = "tensorboard" if name == "auto" else name
    if name not in TRACKERS:
        raise ValueError(f"tracker {name!r} is unknown: auto, none or one of {', '.join(TRACKERS)}")
    if importlib.util.find_spec(name) is None:
        raise ValueError(f"tracker {name!r} is not installed: `pip install {name}`, or set tracker='none'")
    return _TensorBoard(folder, run, step) if name == "tensorboard" else _Service(name, folder, run, config)
