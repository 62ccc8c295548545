"""What notebooks need: quiet set-up, sentences that cannot lie, the library's own source, figures, dials, exercises.

`claim` prints a sentence with its numbers and fails when the numbers no longer bear it out, `recap` a list of them;
`record` stores values that the tests read. An image that a reader can change (`dials`) stands beside static ones of the
same kind, because widgets do not show on the web. `diagrams` draws ideas. Used by every notebook.
"""

from __future__ import annotations

import json
import os
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mobileclip2_lite.notebook import given, hints
from mobileclip2_lite.notebook.dials import dial, search_box
from mobileclip2_lite.notebook.given import run_folder, run_place
from mobileclip2_lite.notebook.in_browser import playground_box
from mobileclip2_lite.notebook.naming import naming_box
from mobileclip2_lite.notebook.output import shell, show_bundle, table
from mobileclip2_lite.notebook.readings import at_the_top, study, tally, temperatures, verdicts
from mobileclip2_lite.notebook.targets import targets_box
from mobileclip2_lite.reports.figures import CYCLE, STYLE, bars, curves, figure, heatmap, images, mark, png

__all__ = [
    "at_the_top",
    "bars",
    "check",
    "claim",
    "curves",
    "dial",
    "figure",
    "given",
    "guess",
    "heatmap",
    "images",
    "mark",
    "naming_box",
    "playground_box",
    "recap",
    "record",
    "recorded",
    "run_folder",
    "run_place",
    "search_box",
    "setup",
    "show",
    "study",
    "table",
    "tally",
    "targets_box",
    "temperatures",
    "verdicts",
    "versions",
]

RECORD = "application/vnd.mobileclip2-lite.record+json"
"""Media type under which `record` stores values in a notebook's outputs."""


_STATE: dict[str, str] = {"recipe": ""}
"""The recipe that the running notebook was set up with: `claim` is strict where the course's numbers are made."""
STRICT = ("lite",)
"""Recipes at which a claim that does not hold is an error; `tiny` is too short to learn much."""


def setup(recipe: str = "") -> None:
    """Make a notebook quiet and its figures uniform, and errors end in what to do; call it before torch is imported.

    Sets `OMP_WAIT_POLICY=passive` unless the reader has set it: with another busy process on the machine, torch's
    spinning threads are otherwise 20 to 40 times slower. Says so in one line where it comes too late.

    Args:
        recipe: of the notebook's parameters; claims must hold at `lite`.

    Raises:
        ValueError: there is no such recipe: a misspelt `lite` would be taken for the short form in silence.
    """
    from mobileclip2_lite.recipes import named  # which imports no torch

    if recipe:
        named(recipe)
    _STATE["recipe"] = recipe
    if "OMP_WAIT_POLICY" not in os.environ and "OMP_NUM_THREADS" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "passive"
        if "torch" in sys.modules:
            print("torch was imported before setup(): restart the kernel if it is slow beside other programs.")
    for category in (FutureWarning, DeprecationWarning, UserWarning):
        warnings.simplefilter("ignore", category)
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams.update({**STYLE, "axes.prop_cycle": matplotlib.cycler(color=CYCLE)})
    running = shell()
    if running is not None:
        hints.register(running)
        running.display_formatter.formatters["image/png"].for_type(Figure, png)


class ClaimFailed(AssertionError):
    """A sentence of a notebook is no longer true."""


def claim(sentence: str, holds: bool, **numbers: Any) -> None:
    """Print a sentence with its numbers, and fail where the numbers do not bear it out.

    `claim("the second teacher adds {gain:.1f} ± {error:.1f} points", gain > 2 * error)`: names in braces are looked up
    in `numbers` and then among the caller's variables.

    Raises:
        ClaimFailed: `holds` is false, at recipe `lite`. At other recipes the sentence is printed as not borne out.
        NameError: a name in braces is neither given nor known to the caller.
    """
    text = _told(sentence, sys._getframe(1), numbers)
    if holds:
        show_bundle({"text/markdown": f"✓ {text}", "text/plain": f"✓ {text}"})
        return
    if _STATE["recipe"] in STRICT:
        raise ClaimFailed(f"this sentence is no longer true: {text}")
    note = f"{_not_borne_out()}: {text}"
    show_bundle({"text/markdown": note, "text/plain": note})


def recap(*lines: str | tuple[str, bool], **numbers: Any) -> None:
    """What to take along, one line each with its numbers; a line with a condition is a `claim`.

    Args:
        lines: a sentence, or a sentence and whether it holds; names in braces as in `claim`.
        numbers: for the braces.

    Raises:
        ClaimFailed: a line's condition is false, at recipe `lite`.
        NameError: a name in braces is neither given nor known to the caller.
    """
    frame, shown = sys._getframe(1), []
    for line in lines:
        sentence, holds = (line, True) if isinstance(line, str) else line
        text = _told(sentence, frame, numbers)
        if not holds and _STATE["recipe"] in STRICT:
            raise ClaimFailed(f"this line of the recap is no longer true: {text}")
        shown.append(f"- {text}" if holds else f"- {_not_borne_out()}: {text}")
    show_bundle({"text/markdown": "\n".join(shown), "text/plain": "\n".join(shown)})


def _not_borne_out() -> str:
    return f"✗ not borne out at recipe {_STATE['recipe'] or '(none)'}, which is too short for it"


def _told(sentence: str, frame: Any, numbers: Mapping[str, Any]) -> str:
    """A sentence with the names in its braces filled in, from `numbers` and then from a caller's variables."""
    import string

    known = {**frame.f_globals, **frame.f_locals, **numbers}
    for _, part, _, _ in string.Formatter().parse(sentence):
        if part and part.split(".")[0].split("[")[0] not in known:
            raise NameError(f"claim: {part!r} is neither given nor a variable here: run the cells above first")
    return sentence.format_map(known)


def guess(question: str, options: Sequence[str] = ()) -> None:
    """Ask the reader for a guess before the answer is shown; nothing is computed."""
    lines = [f"**Before you go on, guess.** {question}", *[f"- {option}" for option in options]]
    plain = [f"Guess: {question}", *[f"  - {option}" for option in options]]
    show_bundle({"text/markdown": "\n".join([lines[0], "", *lines[1:]]), "text/plain": "\n".join(plain)})


def check(answer: Any, holds: Callable[[Any], Any], hint: str) -> None:
    """An exercise's check cell: says whether an answer is right, and where it is not, why, or gives the hint.

    Args:
        answer: what the reader made; None or `...` while nothing is there.
        holds: whether it is right; or what a right answer has, one after the other, as pairs of whether it has that
            and a sentence that says what is wrong otherwise: a list, or a generator, which may read files that the
            pairs before have made sure of. The first that is missing is told.
        hint: where to look.
    """
    if answer is None or answer is ...:
        print(f"Nothing to check yet. Hint: {hint}")
        return
    try:
        found = holds(answer)
        pairs = found if isinstance(found, list | Iterator) else [(bool(found), "")]
        missing = next(([why] for had, why in pairs if not had), [])
    except Exception:  # a text where a number is asked for, one number for two, a name that nobody has
        shown = textwrap.shorten(repr(answer), 60, placeholder="…")
        missing = [f"{shown} is not of the kind that is asked for."]
    if not missing:
        print("Right.")
        return
    print(" ".join(part for part in ("Not yet.", missing[0][:1].upper() + missing[0][1:], f"Hint: {hint}") if part))


def versions(*packages: str) -> None:
    """Print the versions that the notebook ran with, so that a reader whose numbers differ knows where to look."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import mobileclip2_lite

    found = [f"Python {platform.python_version()}", f"mobileclip2_lite {mobileclip2_lite.__version__}"]
    for name in packages or ("torch", "open_clip_torch", "timm", "numpy"):
        try:
            found.append(f"{name} {version(name).split('+')[0]}")
        except PackageNotFoundError:
            found.append(f"{name} not installed")
    print("last run with " + ", ".join(found))


def show(fn: Callable | type) -> None:
    """Show the library's own source of a function or class, highlighted, with the file and line where it stands."""
    import inspect

    fn = inspect.unwrap(fn)
    source = textwrap.dedent(inspect.getsource(fn)).rstrip()
    path = Path(inspect.getsourcefile(fn) or "?")
    inside = path.relative_to(path.parents[len((fn.__module__ or "").split(".")) - 1]) if "." in fn.__module__ else path
    where = f"{inside.as_posix()}, line {inspect.getsourcelines(fn)[1]}"
    show_bundle({"text/markdown": f"`{where}`\n\n```python\n{source}\n```", "text/plain": f"# {where}\n{source}"})


def record(fixed: Mapping[str, Any] | None = None, **values: float | int | str | bool | list | dict | None) -> None:
    """Store values in the notebook's own outputs, where the tests read them with `recorded`.

    Args:
        fixed: values that depend neither on the recipe nor on the machine, such as those of recorded studies: the
            tests run the notebook again and compare them number by number.
        values: all others; the tests compare their names.

    Raises:
        TypeError: a value is not plain JSON data.
    """
    from mobileclip2_lite.work.files import to_json

    data = to_json({**({"fixed": dict(fixed)} if fixed else {}), **values})
    json.dumps(data)
    lines = [f"{key} = {value:.4g}" if isinstance(value, float) else f"{key} = {value}" for key, value in data.items()]
    show_bundle({RECORD: data, "text/plain": "\n".join(lines)})


def recorded(path: str | os.PathLike) -> dict[str, Any]:
    """What `record` stored in a notebook file that has run; a later cell's value wins.

    Raises:
        ValueError: the file is not a notebook.
    """
    notebook = json.loads(Path(path).read_text("utf-8"))
    if "cells" not in notebook:
        raise ValueError(f"{path} is not a notebook, it has no cells: name an .ipynb file that was run")
    found: dict[str, Any] = {}
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            found |= output.get("data", {}).get(RECORD, {})
    return found
