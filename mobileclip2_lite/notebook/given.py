"""What a reader writes into a notebook's first cells, looked at before anything is made of it.

Each function returns what was given in the form that the cells need, or raises in one sentence that says what to write.
Used by every notebook with something to fill in; notebooks/80_your_own_data.ipynb has most of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


def run_place(recipe: str, given: str | os.PathLike | None = None) -> Path:
    """Where the run of a recipe lies or will lie: `given`, or `runs/<recipe>` here, in a folder above, or at home.

    Home is the repository that the library lies in. A place that is given must be there: in a misspelt one a whole
    run would begin.

    Raises:
        ValueError: `given` is no folder's name. FileNotFoundError: there is no such folder.
    """
    if given is not None and given != "":
        return folder("run_folder", given, f"or leave it None for runs/{recipe}, which `make run` writes")
    here, repository = Path.cwd(), Path(__file__).resolve().parents[2]
    for above in (here, *here.parents, repository):
        if (above / "runs" / recipe).is_dir():
            return above / "runs" / recipe
    home = next((above for above in (here, *here.parents) if (above / "notebooks").is_dir()), here)
    return home / "runs" / recipe


def run_folder(recipe: str, given: str | os.PathLike | None = None) -> Path:
    """The folder of a recipe's run, `given` or found by `run_place`, wherever the notebook was opened from.

    Raises:
        ValueError: `given` is no folder's name.
        FileNotFoundError: no run lies there; the message names the command that makes it.
    """
    place = run_place(recipe, given)
    if not place.is_dir():
        raise FileNotFoundError(
            f"no run of recipe {recipe!r} at {place}: `make run RECIPE={recipe}` makes it (or pass its folder: "
            "run_folder = '...')"
        )
    return place


def folder(what: str, given: Any, otherwise: str = "") -> Path:
    """A folder that is there.

    Args:
        what: name of the variable.
        given: its value.
        otherwise: what else may be written.

    Raises:
        ValueError: it is no text. FileNotFoundError: there is no such folder.
    """
    remedy = f"write the name of a folder in quotes{', ' if otherwise else ''}{otherwise}"
    if not isinstance(given, (str, os.PathLike)) or not str(given).strip():
        raise ValueError(f"{what} = {given!r}: {remedy}")
    try:
        there = Path(given).expanduser()
        found = there.is_dir()
    except (OSError, ValueError, RuntimeError):  # too long, a zero byte, a user whom nobody knows
        there, found = Path(str(given)[:60]), False
    if not found:
        raise FileNotFoundError(f"{what}: {str(there)[:200]} is no folder, seen from {Path.cwd()}: {remedy}")
    return there


def names(what: str, given: Any) -> tuple[str, ...]:
    """One name or several as a tuple.

    Raises:
        ValueError: none, or something that is no text.
    """
    several = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, (list, tuple)) else (None,)
    if not several or not all(isinstance(one, str) and one.strip() for one in several):
        raise ValueError(f'{what} = {given!r}: write one name or more, each in quotes, such as ["{what}-1", "..."]')
    return several


def one_of(what: str, given: Any, choices: Sequence[str]) -> str:
    """One of a few words.

    Raises:
        ValueError: another one; names them all.
    """
    if given not in choices:
        raise ValueError(f"{what} = {given!r}: write one of {', '.join(map(repr, choices))}")
    return given


def enough(found: Iterable[Any], least: int, what: str) -> None:
    """Refuse to go on with so few that nothing could be told from them.

    Raises:
        ValueError: fewer than `least`; says how many there are.
    """
    if (count := len(list(found))) < least:
        raise ValueError(
            f"{count} {what}, and at least {least} are needed here: a fifth is held back, and five of so "
            "few would be found by guessing. Give a folder with more"
        )
