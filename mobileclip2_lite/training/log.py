"""What a training says about itself: `log.jsonl`, a progress bar, and a tracker.

Ours. Writes one JSON line a logged step and one an evaluation; the file is cut back to the checkpoint when a training
is resumed, so that it reads as if nothing had happened. TensorBoard draws it where it is installed;
Weights & Biases and trackio by choice. Taught by notebooks/40_reinforced_training.ipynb.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mobileclip2_lite.work.files import write_atomic
from mobileclip2_lite.work.json_lines import read_lines, to_lines, write_whole
from mobileclip2_lite.work.stopwatch import Stopwatch


class Meter:
    """Samples, seconds and seconds of waiting since the last look, without evaluations and checkpoints."""

    def __init__(self) -> None:
        self.samples, self.waited, self.rested, self.watch = 0, 0.0, 0.0, Stopwatch()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """The loop waits for data."""
        watch = Stopwatch()
        yield
        self.waited += watch.seconds

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """The loop does something other than training."""
        watch = Stopwatch()
        yield
        self.rested += watch.seconds

    def read(self) -> tuple[float, float, float]:
        """(seconds, seconds waited for data, samples a second) since the last call."""
        seconds, waited = self.watch.restart() - self.rested, self.waited
        rate = self.samples / seconds if seconds > 0 else 0.0
        self.samples, self.waited, self.rested = 0, 0.0, 0.0
        return seconds, waited, rate


def progress_bar(step: int, steps: int, name: str, shown: bool) -> Any:
    """A bar from `step` to `steps`."""
    from tqdm.auto import tqdm

    return tqdm(total=steps, initial=step, desc=name, unit="step", disable=not shown)


class Log:
    """The first process's record of a training."""

    def __init__(self, folder: Path, step: int, tracker: str, name: str, config: dict[str, Any]) -> None:
        """Open `folder/log.jsonl`, keeping the lines up to `step`."""
        self.path = folder / "log.jsonl"
        kept = [line for line in read(self.path) if line["step"] <= step] if self.path.is_file() else []
        write_atomic(self.path, to_lines(kept))
        self.file = open(self.path, "ab", buffering=0)  # noqa: SIM115 (closed by `close`)
        self.told = False
        self.tracker = _tracker(tracker, name, folder, step, config)

    def write(self, line: dict[str, Any]) -> None:
        """Append a line; it must have a `step`. Where the disk takes none, that is said once, and training goes on."""
        try:
            write_whole(self.file, to_lines([line]), self.path)
        except OSError as error:
            if not self.told:
                warnings.warn(f"lines of the log are lost ({error}); training goes on. Free some space.", stacklevel=2)
            self.told = True
        if self.tracker is not None:
            self.tracker.log(dict(_numbers(line)), step=line["step"])

    def close(self) -> None:
        """Finish file and tracker."""
        self.file.close()
        if self.tracker is not None:
            self.tracker.finish()


def read(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a `log.jsonl`; a last line that a kill cut short is left out.

    Raises:
        ValueError: a line before the last is not JSON; the message names file and line.
    """
    return list(read_lines(path, cut_short=True))


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
