"""Figures of the recorded longer runs: studies as bars with their seeds, learning curves, temperature curves.

No paper section. Draws what `recorded` has read; writes nothing. What was not recorded is left out, and a figure of
which too little is left says so, with what to run. Used by notebooks/30_distillation_temperature.ipynb and
40_reinforced_training.ipynb.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mobileclip2_lite.reports import figures
from mobileclip2_lite.reports.numbers import LABELS
from mobileclip2_lite.studies.paper import WAYS
from mobileclip2_lite.studies.questions import STUDIES, Study
from mobileclip2_lite.studies.recorded import MEASURES, MISSING, Ladder, curve, end, full_rows, values

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TEMPERATURE = "mobileclip2-lite study temperature --recipe study --record"
"""What measures the curves."""


def missing(what: str) -> Figure:
    """A figure that says what has to be run for it."""
    made, axes = figures.figure(7.0, 0.9)
    axes.set_axis_off()
    axes.text(0, 0.5, f"{MISSING}; to record it:\n{what}", size=9, va="center", family="monospace", wrap=True)
    return made


def _repeat(studies: Sequence[Study]) -> str:
    names = [name for name, study in STUDIES.items() if study in studies]
    return f"mobileclip2-lite study {' '.join(names)} --recipe study --record"


def study_bars(
    ladder: Ladder,
    studies: Study | Sequence[Study],
    measures: Sequence[str] = MEASURES[:3],
    chance: Mapping[str, float] | None = None,
) -> Figure:
    """A row of panels a study, a panel a measure, a bar a row of the study: its mean, with the seeds as dots.

    Args:
        chance: drawn as a dotted line.
    """
    studies = [studies] if isinstance(studies, Study) else list(studies)
    shown = [{label: row for label, row in study.rows.items() if row in ladder} for study in studies]
    if max(len(rows) for rows in shown) < 2:
        return missing(_repeat(studies))
    high = sum(0.3 * len(rows) + 0.85 for rows in shown)
    made, axes = figures.figure(1.2 + 2.4 * len(measures), high, len(studies), len(measures))
    cells = [axes] if len(studies) == len(measures) == 1 else axes.ravel()
    cells[0].get_gridspec().set_height_ratios([max(1, len(rows)) for rows in shown])
    for place, cell in enumerate(cells):
        study, rows, measure = (
            studies[place // len(measures)],
            shown[place // len(measures)],
            measures[place % len(measures)],
        )
        _bars(cell, {label: values(ladder, row, measure) for label, row in rows.items()}, study.control)
        if chance is not None:
            cell.axvline(100 * chance[measure], color=figures.COLOURS["chance"], linestyle=":", linewidth=1.4)
        if place < len(measures):
            cell.set_title(LABELS[measure], loc="left", size=10, weight="bold")
        if place % len(measures):
            cell.set_yticklabels([])
        if place >= len(cells) - len(measures):
            cell.set_xlabel("right on the test split (%)")
    return made


def _bars(axes: Axes, rows: Mapping[str, Sequence[float]], control: str) -> None:
    """A bar a row, from above to below; the control's colour and hatch set it off."""
    for place, (label, seeds) in enumerate(rows.items()):
        role = "control" if label == control else "student"
        look = {"color": figures.COLOURS[role], "hatch": "///" if role == "control" else None, "edgecolor": "white"}
        axes.barh(place, 100 * statistics.fmean(seeds), 0.7, alpha=0.6, **look)
        axes.plot([100 * seed for seed in seeds], [place] * len(seeds), "o", color="black", markersize=3)
    axes.set_yticks(range(len(rows)), list(rows), size=9)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlim(left=0)


def study_curves(
    ladder: Ladder, study: Study, measures: Sequence[str] = ("zero_shot", "retrieval_t2i_r1"), line: str = "control"
) -> Figure:
    """Learning curves of a study's rows, a panel a measure, with a line where the row `line` ends."""
    shown = {label: row for label, row in study.rows.items() if row in ladder}
    if not shown:
        return missing(_repeat([study]))
    made, axes = figures.figure(4.4 * len(measures), 3.7, 1, len(measures))
    cells = [axes] if len(measures) == 1 else axes.ravel()
    for cell, measure in zip(cells, measures, strict=True):
        series = {label: curve(ladder, row, measure) for label, row in shown.items()}
        last = end(ladder, line, measure)
        level = {f"where the {line} ends": last} if last is not None else {}
        figures.curves(series, "seen samples", "right, validation split", LABELS[measure], level, axes=cell)
        cell.get_legend().remove()
    made.legend(*cells[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return made


def temperature_curves(searches: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Zero-shot accuracy over the logit scale, a panel a teacher: seeds, mean, deviation, and other ways to a scale."""
    if not searches:
        return missing(TEMPERATURE)
    made, axes = figures.figure(4.6 * len(searches), 3.7, 1, len(searches))
    cells = [axes] if len(searches) == 1 else axes.ravel()
    for cell, (name, search) in zip(cells, searches.items(), strict=True):
        _temperature(cell, search)
        cell.set_title(name, loc="left", size=11, weight="bold")
    top = max(cell.get_ylim()[1] for cell in cells)
    for cell in cells:
        cell.set_ylim(0, top)
    for cell in cells[1:]:  # what the first panel says holds for all
        cell.set_ylabel("")
        cell.tick_params(labelleft=False)
    return made


def _temperature(axes: Axes, search: Mapping[str, Any]) -> None:
    rows = full_rows(search)
    scales, means = [row["scale"] for row in rows], [100 * row["mean"] for row in rows]
    spread = [100 * (row["std"] or 0.0) for row in rows]
    colour = figures.COLOURS["student"]
    low, high = ([m + sign * s for m, s in zip(means, spread, strict=True)] for sign in (-1, 1))
    axes.fill_between(scales, low, high, color=colour, alpha=0.2, linewidth=0, label="± one standard deviation")
    axes.plot(scales, means, color=colour, marker="o", markersize=4, label="student, mean")
    for row in rows:
        axes.plot(
            [row["scale"]] * len(row["values"]), [100 * v for v in row["values"]], ".", color="black", markersize=4
        )
    ways = {"own": search["own"], **search["predicted"]}
    for (way, scale), style, tint in zip(ways.items(), ("--", ":", "-."), figures.CYCLE[1:], strict=False):
        axes.axvline(scale, color=tint, linestyle=style, linewidth=1.4, label=f"{WAYS.get(way, way)}: {scale:.3g}")
    axes.set_xscale("log")
    axes.set_xticks(scales, [f"{scale:.3g}" for scale in scales], size=8)
    axes.minorticks_off()
    axes.set_xlabel("logit scale")
    axes.set_ylabel(f"{LABELS.get(search['metric'], search['metric'])}, test split (%)")
    axes.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
