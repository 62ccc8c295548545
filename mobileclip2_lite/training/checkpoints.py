"""Training checkpoints that survive kill -9 and a full disk.

Ours (the paper says nothing about interruptions). Writes `checkpoints/step-00000200.pt` in the training's folder:
model, optimiser, loader position and random states of every process in one file, written beside, synced and renamed, so
that a file under its real name is whole. The one before it is kept until the new one stands. Read with
`weights_only=True`: tensors and plain values, never code. Taught by notebooks/40_reinforced_training.ipynb.
"""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path
from typing import Any

import torch

from mobileclip2_lite.work.files import sync_folder

FORM = 1
"""Version of the checkpoint's own form."""


def save(folder: str | os.PathLike, step: int, state: dict[str, Any], keep: int = 2) -> Path | None:
    """Write `state` as the checkpoint of `step` and remove all but the newest `keep`.

    Args:
        state: nested dicts and lists of tensors, numbers, strings, booleans and None.

    Returns:
        The file, or None with a warning where the disk refused (full, quota, read-only): the earlier checkpoints still
        stand and training can go on.
    """
    folder = Path(folder)
    path = folder / f"step-{step:08d}.pt"
    beside = folder / f".{path.name}.{os.getpid()}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(beside, "wb") as file:
            torch.save({"form": FORM, "step": step, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        sync_folder(folder)
    except (OSError, RuntimeError) as error:  # torch's zip writer reports a failed write as RuntimeError
        beside.unlink(missing_ok=True)
        last = list_steps(folder)
        warnings.warn(
            f"{path} could not be written ({error}). "
            + (f"The checkpoint of step {last[-1]} still stands" if last else "There is no earlier checkpoint")
            + "; training goes on. Free some space.",
            stacklevel=2,
        )
        return None
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    for old in list_steps(folder)[:-keep]:
        (folder / f"step-{old:08d}.pt").unlink(missing_ok=True)
    return path


def list_steps(folder: str | os.PathLike) -> list[int]:
    """Steps with a checkpoint, oldest first."""
    found = (re.fullmatch(r"step-(\d{8,})\.pt", path.name) for path in Path(folder).glob("step-*.pt"))
    return sorted(int(match[1]) for match in found if match)


def load_latest(folder: str | os.PathLike, device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """The newest checkpoint that can be read, or None if there is none; a broken one is named in a warning.

    Raises:
        ValueError: checkpoints are there, but none can be read.
    """
    folder = Path(folder)
    for partial in folder.glob(".step-*.partial"):  # left by a killed process; the lock says that none is writing now
        partial.unlink(missing_ok=True)
    broken = []
    for step in reversed(list_steps(folder)):
        path = folder / f"step-{step:08d}.pt"
        try:
            state = torch.load(path, map_location=device, weights_only=True)
            if state["form"] > FORM:
                raise ValueError(
                    f"{path} has form {state['form']}, this version reads up to {FORM}: update the package"
                )
            return state
        except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle_error()) as error:
            broken.append(path.name)
            warnings.warn(
                f"{path} cannot be read ({type(error).__name__}: {error}); trying the one before", stacklevel=2
            )
    if broken:
        raise ValueError(
            f"no checkpoint in {folder} can be read ({', '.join(broken)}): remove the folder to start anew"
        )
    return None


def pickle_error() -> type[Exception]:
    """What `torch.load(weights_only=True)` raises for a file that holds anything but data."""
    import pickle

    return pickle.UnpicklingError


def load(path: str | os.PathLike) -> dict[str, Any]:
    """One checkpoint, by file."""
    return torch.load(path, map_location="cpu", weights_only=True)
