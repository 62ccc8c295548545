"""What to do about errors that every learner meets in a notebook: one sentence below Python's own words."""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import Any

FULL = (errno.ENOSPC, errno.EDQUOT) if hasattr(errno, "EDQUOT") else (errno.ENOSPC,)


def hint(error: BaseException | None) -> str:
    """What to do about an error, or nothing where its own message says it."""
    if isinstance(error, NameError) and getattr(error, "name", None):
        return f"`{error.name}` is not there yet: run the cells above first (menu Run, Run All Above Selected Cell)."
    if isinstance(error, ModuleNotFoundError) and "pip install" not in str(error):
        return (
            f"{error.name} is not installed for this kernel, {sys.executable}: choose the kernel of the environment "
            "that `make lab` starts, or pip install 'mobileclip2_lite[notebooks,export]' into this one and restart it."
        )
    if isinstance(error, KeyboardInterrupt):
        return "Interrupted. Run the cell again: stages and trainings go on where they stopped."
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return "The memory is full: close other notebooks (menu Kernel, Shut Down All), or lower batch_size."
    if isinstance(error, OSError):
        return _about_files(error)
    if type(error).__name__ == "ClaimFailed":
        return (
            "Your numbers are not the published ones. If you changed a cell above, that is your answer; if not, run "
            "from the top, compare the versions in the last cell, and hold it for a fault of ours."
        )
    return ""


def _about_files(error: OSError) -> str:
    """What to do about an operating system's error; our own messages have no number and say it themselves."""
    if error.errno in FULL:
        return "The disk is full: free some space and run the cell again; what was finished is kept."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{error.filename} cannot be written or read by you: name another folder in the first code cell."
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return f"Paths start at {Path.cwd()}: correct the name, or give the whole path."
    return ""


def register(running: Any) -> None:
    """Show the hint below every cell that ends in such an error.

    Args:
        running: the IPython shell, which takes a function once however often it is registered.
    """
    running.events.register("post_run_cell", _show)


def _show(result: Any) -> None:
    if said := hint(result.error_in_exec):
        print(f"→ {said}")
