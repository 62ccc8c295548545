"""The recorded longer runs: read them, and put them beside their control and beside the paper's tables.

Reads the JSON lines in `results/` beside this file. What was not recorded is named as such.
"""

from __future__ import annotations

import json
import os
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mobileclip2_lite.reports.run import LABELS, mean_and_deviation, percent
from mobileclip2_lite.studies.paper import WAYS

MISSING = "not recorded"
"""Stands where a row has not been run."""

MEASURES = ("zero_shot", "retrieval_i2t_r1", "retrieval_t2i_r1", "binding", "relations")
"""What the tables show."""

SETUP = ("recipe", "samples", "data")
"""Only lines that share these can be compared."""

Ladder = Mapping[str, Sequence[Mapping[str, Any]]]
"""Row -> its lines, one a seed."""


class Study(NamedTuple):
    """Rows of the ladder that differ in one thing."""

    rows: Mapping[str, str]
    """Label -> row of `benchmarks/ladder.py`."""
    control: str
    """The label that the others are compared with."""
    program: str = "benchmarks/ladder.py"
    """What trains the rows."""


STUDIES = {
    "ladder": Study(
        {
            "control": "control",
            "+ captions": "+ captions",
            "+ distillation": "+ distillation",
            "+ stored views": "+ stored views",
            "+ ensemble": "+ ensemble",
        },
        "control",
    ),
    "lambda": Study({"λ = 0.5": "lambda 0.5", "λ = 0.75": "lambda 0.75", "λ = 1": "+ ensemble"}, "λ = 1"),
    "captions": Study(
        {
            "none": "no captions",
            "pretrained": "captions: pretrained",
            "short": "captions: short",
            "relational": "captions: relational",
            "detailed": "captions: detailed",
            "all three": "+ ensemble",
        },
        "none",
    ),
    "views": Study({"1 view": "views 1", "2 views": "views 2", "all views": "+ ensemble"}, "1 view"),
    "number of captions": Study(
        {
            "0 captions": "no captions",
            "1 caption": "captions 1",
            "2 captions": "captions 2",
            "all captions": "captions: short",
        },
        "0 captions",
    ),
    "teachers": Study({"conv": "+ stored views", "se": "teacher se only", "both": "+ ensemble"}, "conv"),
    "scales": Study(
        {"tuned, separate": "+ ensemble", "one for both": "shared scale", "teachers' own": "cards before tuning"},
        "tuned, separate",
    ),
}
"""Comparisons, by name."""

STRENGTHS = {
    "crops from 90 %": (0.9, 0),
    "crops from 50 %": (0.5, 0),
    "crops from 30 %": (0.3, 0),
    "crops from 8 %": (0.08, 0),
    "crops from 50 %, one RandAugment": (0.5, 1),
    "crops from 8 %, two RandAugment": (0.08, 2),
}
"""Stored views from weak to strong: least share of the area, RandAugment operations. The second is lite's, the last the
paper's."""

VIEWS = {
    kind: Study({views: f"{kind}: {views}" for views in STRENGTHS}, "crops from 50 %", "benchmarks/views.py")
    for kind in ("control", "student")
}
"""What control and student make of them: rows of `benchmarks/views.py`."""


def results_folder(given: str | os.PathLike | None = None) -> Path:
    """Where recorded results lie: `given`, or `benchmarks/results` of the repository that the library stands in."""
    return Path(given) if given else Path(__file__).parent / "results"


def read_lines(path: str | os.PathLike) -> list[dict[str, Any]]:
    """The lines of a JSON-lines file; none where there is no file.

    Raises:
        ValueError: a line is not JSON; the message names file and line.
    """
    path = Path(path)
    lines = []
    for number, text in enumerate(path.read_text("utf-8").splitlines() if path.is_file() else [], 1):
        try:
            lines.append(json.loads(text))
        except ValueError as error:
            raise ValueError(f"{path}, line {number} is not JSON ({error}): remove the line") from error
    return lines


def append_lines(path: str | os.PathLike, lines: Sequence[Mapping[str, Any]]) -> None:
    """Add lines to a JSON-lines file, which is made where there is none."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines))


def read_ladder(path: str | os.PathLike, setup: Sequence[str] = SETUP) -> dict[str, list[dict[str, Any]]]:
    """Row -> lines by seed, of the one set-up that most lines share; the newest line of a seed.

    Args:
        setup: what makes a set-up; without `data` for rows that differ in their data (`benchmarks/views.py`).

    Raises:
        ValueError: a line is not JSON.
    """
    lines = read_lines(path)
    if not lines:
        return {}
    setups = Counter(tuple(line.get(key) for key in setup) for line in lines)
    chosen = setups.most_common(1)[0][0]
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for line in lines:
        if tuple(line.get(key) for key in setup) == chosen:
            found.setdefault(line["row"], {})[line["seed"]] = line
    return {row: [seeds[seed] for seed in sorted(seeds)] for row, seeds in found.items()}


def values(ladder: Ladder, row: str, measure: str) -> list[float]:
    """One measure of a row, a value a seed; empty where it was not recorded."""
    return [line["metrics"][measure] for line in ladder.get(row, []) if measure in line["metrics"]]


def mean(ladder: Ladder, row: str, measure: str = "zero_shot") -> float | None:
    """The mean over the seeds, or None."""
    found = values(ladder, row, measure)
    return statistics.fmean(found) if found else None


def study_table(
    ladder: Ladder, study: Study, measures: Sequence[str] = MEASURES, efficiency: str | None = None
) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a study, in percent, mean ± standard deviation over the seeds; missing rows are named.

    Args:
        measures: columns; of the first, the difference to the study's control is shown too, in points.
        efficiency: a row whose final zero-shot accuracy is looked for on the others' curves; adds a column.
    """
    header = ["% right", *(LABELS[measure] for measure in measures), f"against {study.control}", "seeds"]
    base, level = mean(ladder, study.rows[study.control], measures[0]), end(ladder, efficiency or "")
    out = []
    for label, row in study.rows.items():
        metrics = [line["metrics"] for line in ladder.get(row, [])]
        cells = [percent(*mean_and_deviation(metrics, measure)) if metrics else "" for measure in measures]
        compared = metrics and base is not None and label != study.control
        cells.append(f"{100 * (mean(ladder, row, measures[0]) - base):+.1f}" if compared else "")
        cells.append(str(len(metrics)) if metrics else MISSING)
        if level is not None:
            cells.append(_samples(reached(ladder, row, level)) if metrics else "")
        out.append([label, *cells])
    return [*header, *([f"samples to {percent(level)} % zero-shot"] if level is not None else [])], out


def _samples(count: float | None) -> str:
    return "not reached" if count is None else f"{count:,.0f}"


def curve(ladder: Ladder, row: str, measure: str) -> tuple[list[int], list[list[float]]]:
    """(seen samples, one list of values a seed) at the evaluations that all seeds of a row have."""
    curves = [line["curve"] for line in ladder.get(row, []) if measure in line["curve"]]
    runs = [dict(zip(found["samples"], found[measure], strict=True)) for found in curves]
    shared = sorted(set.intersection(*(set(run) for run in runs))) if runs else []
    return shared, [[run[x] for x in shared] for run in runs]


def end(ladder: Ladder, row: str, measure: str = "zero_shot") -> float | None:
    """Where the mean curve of a row ends, or None."""
    _, runs = curve(ladder, row, measure)
    return statistics.fmean(run[-1] for run in runs) if runs and runs[0] else None


def reached(ladder: Ladder, row: str, level: float, measure: str = "zero_shot") -> float | None:
    """Seen samples at which the mean curve of a row first reaches `level`; None if it never does.

    Between two evaluations the curve is taken as straight, and before the first as rising from nothing at no samples.
    """
    samples, runs = curve(ladder, row, measure)
    before = (0.0, 0.0)
    for place, x in enumerate(samples):
        point = (float(x), statistics.fmean(run[place] for run in runs))
        if point[1] >= level:
            rise = point[1] - before[1]
            return before[0] + (point[0] - before[0]) * ((level - before[1]) / rise if rise > 0 else 1.0)
        before = point
    return None


def read_temperature(path: str | os.PathLike) -> dict[str, dict[str, Any]]:
    """Teacher -> its newest search, as `temperature.search` returns it.

    Raises:
        ValueError: a line is not JSON.
    """
    return {line["teacher"]: line for line in read_lines(path)}


def full_rows(search: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The points of a search's curve at full length, by scale; those of the pruning round are left out."""
    full = max(row["samples"] for row in search["curve"])
    return sorted((row for row in search["curve"] if row["samples"] == full), key=lambda row: row["scale"])


def temperature_table(searches: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Each teacher's best scale, and how much of the metric the other ways to a scale would have lost, in points."""
    header = ["teacher", "way", "logit scale", "of the best", f"{LABELS['zero_shot']} (%)", "lost (points)"]
    rows = []
    for name, search in searches.items():
        best = max(full_rows(search), key=lambda row: row["mean"])
        rows.append([name, "best measured", f"{best['scale']:.3g}", "1", percent(best["mean"], best["std"]), "0"])
        for way, scale in {"own": search["own"], **search["predicted"]}.items():
            judged = search["judged"][way]
            shown = [f"{scale:.3g}", f"{judged['factor']:.2f}", percent(best["mean"] - judged["regret"])]
            rows.append(["", WAYS.get(way, way), *shown, f"{100 * judged['regret']:.1f}"])
    return header, rows
