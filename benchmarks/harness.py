"""What all speed programs share: several ways in turns, medians and ratios of one run, JSON lines with the machine.

A number of seconds says little on another machine or beside other work. So ways that are compared run in turns, round
by round, and a ratio is the median of the rounds' ratios: what disturbs a round disturbs both of its parts.
Lines go into `results/PROGRAM.jsonl` beside this file, with the machine, the versions and the command.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: spinning threads collapse beside other work

import torch

from mobileclip2_lite.costs.latency import device_name
from mobileclip2_lite.work.files import write_atomic
from mobileclip2_lite.work.json_lines import append_lines, to_lines
from mobileclip2_lite.work.stopwatch import Stopwatch
from mobileclip2_lite.work.tables import markdown_table

RESULTS = Path(__file__).parent / "results"
"""Where the last output of every program lies."""


class Timed(NamedTuple):
    """One way's speed over all rounds."""

    median: float
    """Of what is counted, a second."""
    lowest: float
    highest: float
    ratio: float | None
    """Median over the rounds of this way's speed by the base's; None where there is no base."""
    rounds: int


def parser(doc: str, name: str, rounds: int = 5) -> argparse.ArgumentParser:
    """The command line of a program: its docstring as help, and the options that all have.

    Args:
        doc: the program's docstring.
        name: of the program, for its file of results.
        rounds: how often each way runs unless `--repeats` says otherwise; 0 for a program without ways to compare.
    """
    found = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if rounds:
        help = "rounds, in each of which every way runs once"
        found.add_argument("--repeats", "--rounds", "--steps", type=int, default=rounds, help=help)
    found.add_argument("--out", "--output", type=Path, default=RESULTS / f"{name}.jsonl", help="file of JSON lines")
    return found


def in_turns(
    ways: Mapping[str, Callable[[int], Any]], rounds: int, clock: Callable[[], float] = time.process_time
) -> dict[str, list[float]]:
    """Seconds of each way in each round.

    Args:
        ways: name -> what is timed, given the round's number.
        rounds: how often each runs.
        clock: by default this process's CPU seconds, which other processes hardly disturb; `time.perf_counter` where
            more than one thread works.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name, way in ways.items():
            watch = Stopwatch(clock)
            way(number)
            seconds[name].append(watch.seconds)
    return seconds


def compared(seconds: Mapping[str, Sequence[float]], counts: Mapping[str, float], base: str) -> dict[str, Timed]:
    """The speed of each way, and how many times the base's it is.

    Args:
        seconds: way -> seconds of each round (`in_turns`).
        counts: way -> what one round does, in whatever is counted.
        base: the way that the others are divided by; where it did not run, no ratio is known.
    """
    rates = {name: [counts[name] / value for value in values] for name, values in seconds.items()}
    found = {}
    for name, own in rates.items():
        ratios = [one / other for one, other in zip(own, rates.get(base, ()), strict=False)]
        ratio = statistics.median(ratios) if ratios else None
        found[name] = Timed(statistics.median(own), min(own), max(own), ratio, len(own))
    return found


def facts() -> dict[str, Any]:
    """The machine, the versions and the command of a measurement."""
    return {
        "machine": f"{device_name(torch.device('cpu'))}, {platform.system()}, Python {platform.python_version()}",
        "threads": torch.get_num_threads(),
        "command": shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *map(_portable, sys.argv[1:])]),
    }


def _portable(word: str) -> str:
    """A word of the command line, of a file elsewhere only its name."""
    option, sign, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return f"{option}{sign}{Path(value).name if os.path.isabs(value) else value}"


def keep(path: Path, lines: Iterable[Mapping[str, Any]], add: bool = False) -> None:
    """Write a program's lines with the facts of the machine, in place of the file's earlier ones or after them."""
    known = facts()
    whole = [{**line, **known} for line in lines]
    if add:
        append_lines(path, whole)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, to_lines(whole))


def show(lines: Sequence[Mapping[str, Any]], columns: Sequence[str] = (), text_columns: int = 1) -> None:
    """Print lines as a Markdown table.

    Args:
        lines: of the same keys.
        columns: keys to show; all where none is named.
        text_columns: how many of them hold words.
    """
    keys = list(columns or lines[0])
    print(markdown_table(keys, ([_cell(line[key]) for key in keys] for line in lines), text_columns), flush=True)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
