"""The recorded longer runs: read them, and put them beside their control.

Reads the JSON lines in `results/` beside this file, which `record` wrote. What was not recorded is named as such.
"""

from __future__ import annotations

import json
import os
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mobileclip2_lite.reports.numbers import LABELS, mean_and_deviation, percent
from mobileclip2_lite.studies.paper import WAYS
from mobileclip2_lite.studies.questions import Study
from mobileclip2_lite.studies.rows import SWEPT
from mobileclip2_lite.studies.temperature import judge
from mobileclip2_lite.work import json_lines

MISSING = "not recorded"
"""Stands where a row has not been run."""

MEASURES = ("zero_shot", "retrieval_i2t_r1", "retrieval_t2i_r1", "binding", "relations")
"""What the tables show."""

Ladder = Mapping[str, Sequence[Mapping[str, Any]]]
"""Row -> its lines, one a seed."""


def results_folder(given: str | os.PathLike | None = None) -> Path:
    """Where recorded results lie: `given`, or `results` beside this file."""
    return Path(given) if given else Path(__file__).parent / "results"


def read_lines(path: str | os.PathLike) -> list[dict[str, Any]]:
    """The lines of a JSON-lines file; none where there is no file.

    Raises:
        ValueError: a line is not JSON; the message names file and line.
    """
    return list(json_lines.read_lines(path)) if Path(path).is_file() else []


def rows_file(folder: str | os.PathLike, row: str) -> Path:
    """Where a row's lines stand: the temperature's many rows in a file of their own."""
    return Path(folder) / (
        "temperature.jsonl" if any(row in hill.values() for hill in SWEPT.values()) else "rows.jsonl"
    )


def append_rows(folder: str | os.PathLike, lines: Sequence[Mapping[str, Any]]) -> None:
    """Add recorded lines to the files of their rows."""
    for line in lines:
        json_lines.append_lines(rows_file(folder, line["row"]), [line])


def all_lines(folder: str | os.PathLike) -> list[dict[str, Any]]:
    """Every recorded line of every generation.

    Raises:
        ValueError: a line is not JSON.
    """
    return [line for name in ("rows.jsonl", "temperature.jsonl") for line in read_lines(Path(folder) / name)]


def by_row(lines: Sequence[Mapping[str, Any]]) -> Ladder:
    """Row -> its lines by seed, of the one generation that most lines share; the newest line of a seed."""
    if not lines:
        return {}
    chosen = Counter(line["generation"] for line in lines).most_common(1)[0][0]
    found: dict[str, dict[int, Mapping[str, Any]]] = {}
    for line in lines:
        if line["generation"] == chosen:
            found.setdefault(line["row"], {})[line["seed"]] = line
    return {row: [seeds[seed] for seed in sorted(seeds)] for row, seeds in found.items()}


def read_rows(folder: str | os.PathLike | None = None) -> Ladder:
    """Row -> its recorded lines, a line a seed; what `record` wrote into `folder` (default: with the library).

    Raises:
        ValueError: a line is not JSON.
    """
    return by_row(all_lines(results_folder(folder)))


def values(ladder: Ladder, row: str, measure: str) -> list[float]:
    """One measure of a row, a value a seed; empty where it was not recorded."""
    return [line["metrics"][measure] for line in ladder.get(row, []) if measure in line["metrics"]]


def mean(ladder: Ladder, row: str, measure: str = "zero_shot") -> float | None:
    """The mean over the seeds, or None."""
    found = values(ladder, row, measure)
    return statistics.fmean(found) if found else None


def there(study: Study, ladder: Ladder) -> Study:
    """The study without rows that were not recorded; its control is the first that was, where its own is missing."""
    rows = {label: row for label, row in study.rows.items() if ladder.get(row)}
    control = study.control if study.control in rows else next(iter(rows), study.control)
    return study._replace(rows=rows or study.rows, control=control)


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


def searches(ladder: Ladder, metric: str = "zero_shot") -> dict[str, dict[str, Any]]:
    """Teacher -> its curve over logit scales, in the form of `temperature.search`, from the rows of `rows.SWEPT`.

    `own` is the scale of the teacher's card; predictors, which need the data, are judged where they were computed.
    """
    from mobileclip2_lite.models.embedded import data_folder

    found: dict[str, dict[str, Any]] = {}
    swept = ((teacher, scale, ladder.get(row, ())) for teacher, hill in SWEPT.items() for scale, row in hill.items())
    for teacher, scale, lines in swept:
        if not lines:
            continue
        numbers = [line["metrics"][metric] for line in lines]
        spread = statistics.stdev(numbers) if len(numbers) > 1 else None
        point = {"scale": float(scale), "samples": lines[0]["samples"], "values": numbers}
        search = found.setdefault(teacher, {"teacher": teacher, "metric": metric, "curve": []})
        search["curve"].append({**point, "mean": statistics.fmean(numbers), "std": spread})
    for teacher, search in found.items():
        card = json.loads((data_folder() / "teachers" / teacher / "card.json").read_text("utf-8"))
        search["curve"].sort(key=lambda point: point["scale"])
        best = max(search["curve"], key=lambda point: point["mean"])["scale"]
        search |= {"best": best, "own": card["logit_scale"], "predicted": {}}
        search["judged"] = judge(search)
    return found


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
