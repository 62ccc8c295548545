"""Figures of one style: grids of pictures, similarity matrices, curves with a band, bars with error bars.

No paper section: this is how the course and the report look. Every helper returns a plain `matplotlib.figure.Figure`,
without global state. Colours can be told apart by colour-blind readers (Okabe and Ito), and beside colour there is
always a marker, a hatch or a sign. Used by every notebook.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mobileclip2_lite.reports.labels import literal, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 100
"""Resolution of every published picture."""
COLOURS = {"control": "#D55E00", "student": "#0072B2", "teacher": "#009E73", "chance": "#7F7F7F"}
"""Colours of the roles that recur (Okabe and Ito)."""
WRITERS = {"alt-text": "#999933", "web": "#E69F00", "short": "#56B4E9", "relational": "#CC79A7", "detailed": "#000000"}
"""Colours of who wrote a text, by the last word of a label; a captioner has one in every figure."""
CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
REFERENCE = "///"
"""Hatching means the reference that the others are compared with, in every figure."""

STYLE = {
    "figure.dpi": DPI,
    "savefig.dpi": DPI,
    "figure.facecolor": "white",  # ground and ink are named: a reader's dark style must not turn half of them around
    "axes.facecolor": "white",
    "text.color": "black",
    "axes.edgecolor": "black",
    "axes.labelcolor": "black",
    "xtick.color": "black",
    "ytick.color": "black",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "font.size": 10,
    "legend.frameon": False,
    "image.cmap": "cividis",
}


def png(figure: Figure, live: bool = False) -> bytes:
    """A figure as PNG at 100 dpi, in a palette of 128 colours: a quarter of the bytes in a notebook or page.

    Nothing is transparent, so that black text stays on its own ground where the page around it is dark. `live`: a
    reader waits for it and nobody keeps it, so that neither margins nor bytes are made smaller, in less time.
    """
    from PIL import Image

    full, small, look = io.BytesIO(), io.BytesIO(), {"dpi": DPI, "facecolor": figure.get_facecolor()}
    figure.savefig(full, format="png", bbox_inches=None if live else "tight", **look)
    if live:
        return full.getvalue()
    picture = Image.open(full).convert("RGB").quantize(128, dither=Image.Dither.NONE)
    picture.save(small, "PNG", optimize=True, dpi=(DPI, DPI))
    return small.getvalue()


def figure(width: float = 7.0, height: float = 3.6, rows: int = 1, columns: int = 1) -> tuple[Figure, Any]:
    """A figure of the common style, in inches, and its axes: one, or an array (rows, columns)."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        made = Figure(figsize=(width, height), layout="constrained")
        axes = made.subplots(rows, columns, squeeze=False)
    return made, axes[0, 0] if rows == columns == 1 else axes


def images(
    pictures: Sequence[Any],
    titles: Sequence[str] | None = None,
    right: Sequence[bool | None] | None = None,
    columns: int | None = None,
    side: float = 1.5,
    wrap: int = 20,
    suptitle: str | None = None,
) -> Figure:
    """A grid of pictures with wrapped titles.

    Args:
        pictures: PIL images, uint8 arrays (H, W, 3) or tensors (3, H, W), uint8 or floats from 0 to 1.
        titles: a text under each picture; its lines are kept and wrapped.
        right: True puts a tick and a solid frame on a picture, False a cross and a dashed one, None nothing.
        side: inches a picture; wrap: characters a line of a title.
    """
    columns = columns or min(len(pictures), 6)
    rows = math.ceil(len(pictures) / columns)
    titles = [literal(title) for title in titles] if titles is not None else [""] * len(pictures)
    wrapped = ["\n".join(textwrap.fill(line, wrap) for line in title.split("\n")) for title in titles]
    lines = max(text.count("\n") + bool(text) for text in wrapped)
    made, axes = figure(columns * side, rows * (side + 0.17 * lines) + (0.3 if suptitle else 0), rows, columns)
    cells = axes.ravel() if isinstance(axes, np.ndarray) else [axes]
    for cell in cells:
        cell.set_axis_off()
    for index, picture in enumerate(pictures):
        cells[index].imshow(pixels_of(picture), interpolation="nearest")
        cells[index].text(0.5, -0.04, wrapped[index], ha="center", va="top", size=8, transform=cells[index].transAxes)
        if right is not None and right[index] is not None:
            mark(cells[index], right[index])
    if suptitle:
        made.suptitle(literal(suptitle), size=11, weight="bold")
    return made


def mark(axes: Axes, right: bool) -> None:
    """Frame a picture: tick and solid green when right, cross and dashed orange when wrong."""
    from matplotlib.patches import Rectangle

    colour = COLOURS["teacher"] if right else COLOURS["control"]
    style = {"linewidth": 3, "edgecolor": colour, "linestyle": "-" if right else (0, (3, 2)), "facecolor": "none"}
    axes.add_patch(Rectangle((0, 0), 1, 1, transform=axes.transAxes, clip_on=False, **style))
    badge = {"boxstyle": "circle,pad=0.15", "facecolor": "white", "edgecolor": colour}
    sign, place = "✓" if right else "✗", {"ha": "center", "va": "center", "transform": axes.transAxes}
    axes.text(0.97, 0.97, sign, color=colour, size=9, weight="bold", bbox=badge, **place)


def pixels_of(picture: Any) -> np.ndarray:
    """(H, W, 3) of anything that `images` takes."""
    array = np.asarray(picture)
    return np.moveaxis(array, 0, -1) if array.ndim == 3 and array.shape[0] == 3 and array.shape[-1] != 3 else array


def heatmap(
    matrix: Any,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str = "",
    digits: int | None = None,
    limits: tuple[float, float] | None = None,
    axes: Axes | None = None,
    images: Sequence[Any] | None = None,
) -> Figure:
    """A matrix as a picture, such as similarities (images down, texts across), with its numbers when there are few.

    Args:
        rows, columns: names at the edges, shortened.
        digits: of the numbers; None for two, and for none where they are many.
        limits: values of the darkest and the lightest colour; None for the matrix's own.
        images: thumbnails in place of the rows' names, of any form that `images` takes.
    """
    matrix = np.asarray(matrix, dtype=float)
    made = axes.figure if axes is not None else None
    if axes is None:
        made, axes = figure(2.2 + 0.55 * matrix.shape[1], 1.6 + 0.42 * matrix.shape[0])
    low, high = limits or (float(matrix.min()), float(matrix.max()))
    axes.imshow(matrix, cmap="cividis", vmin=low, vmax=high, aspect="auto")
    axes.grid(visible=False)
    axes.set_xticks(range(matrix.shape[1]), [shortened(c, 26) for c in columns], rotation=35, ha="right", size=8)
    axes.set_yticks(
        range(matrix.shape[0]), [shortened(r, 34) for r in rows] if images is None else [""] * len(rows), size=8
    )
    if images is not None:
        _thumbnails(axes, images)
    _title(axes, title)
    if matrix.size <= 144 or digits is not None:
        for (i, j), value in np.ndenumerate(matrix):
            dark = value < low + 0.6 * (high - low)
            shown = round(value, 2 if digits is None else digits) + 0.0  # no minus zero
            axes.text(j, i, f"{shown:.{2 if digits is None else digits}f}", ha="center", va="center", size=8)
            axes.texts[-1].set_color("white" if dark else "black")
            axes.texts[-1].set_in_layout(False)  # it lies within the axes: measuring it takes time and moves nothing
    return made


def _thumbnails(axes: Axes, pictures: Sequence[Any], side: float = 22.0) -> None:
    """Small pictures left of the rows of a heatmap, `side` points each."""
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    for row, picture in enumerate(pictures):
        pixels = pixels_of(picture)
        small = OffsetImage(pixels, zoom=side / max(pixels.shape[:2]))
        place = {"xybox": (-5, 0), "xycoords": axes.get_yaxis_transform(), "boxcoords": "offset points"}
        axes.add_artist(AnnotationBbox(small, (0, row), box_alignment=(1, 0.5), frameon=False, pad=0, **place))


def curves(
    series: Mapping[str, tuple[Sequence[float], Sequence[Sequence[float]]]],
    xlabel: str,
    ylabel: str,
    title: str = "",
    lines: Mapping[str, float] | None = None,
    percent: bool = True,
    axes: Axes | None = None,
) -> Figure:
    """Mean curves with a band of one standard deviation over the seeds.

    Args:
        series: label to (x, one list of values a seed); the labels `control`, `student`, `teacher` keep
            their colours.
        lines: label to a constant shown as a dashed line, such as chance.
        percent: the values are shares and are shown in percent.
    """
    made = axes.figure if axes is not None else None
    if axes is None:
        made, axes = figure()
    scale = 100 if percent else 1
    colours = _colours([*series, *(lines or {})])
    for index, (label, (x, runs)) in enumerate(series.items()):
        values = scale * np.asarray(runs, dtype=float)
        mean, spread = values.mean(axis=0), values.std(axis=0, ddof=1) if len(values) > 1 else None
        colour = colours[index]
        axes.plot(x, mean, color=colour, marker=MARKERS[index % len(MARKERS)], markersize=4, label=label)
        if spread is not None:
            axes.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.2, linewidth=0)
    for index, (label, value) in enumerate((lines or {}).items()):
        dash = ("--", ":", "-.")[index % 3]
        axes.axhline(scale * value, color=colours[len(series) + index], linestyle=dash, linewidth=1.2, label=label)
    if max(max(x) for x, _ in series.values()) >= 1_000:  # numbers of samples, not shares
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.locator_params(axis="x", nbins=5)  # so that such long labels stay apart
    axes.set_xlabel(xlabel)
    axes.set_ylabel(f"{ylabel} (%)" if percent else ylabel)
    if percent:
        axes.set_ylim(bottom=0)  # start at zero, so that small differences do not look large
    _title(axes, title)
    entries = len(series) + len(lines or {})
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2), "ncols": min(4, entries)}
    axes.legend(fontsize=8, frameon=False, columnspacing=1.2, **below)
    return made


def bars(
    groups: Sequence[str],
    values: Mapping[str, Sequence[Sequence[float] | float]],
    ylabel: str = "",
    title: str = "",
    chance: Sequence[float] | None = None,
    percent: bool = True,
    axes: Axes | None = None,
    top: float | None = None,
) -> Figure:
    """Grouped bars with an error bar of one standard deviation over the seeds, and a short line at chance.

    Args:
        groups: names along the axis.
        values: label to one entry a group, a number or one number a seed.
        chance: one value a group.
        top: upper end of the axis, as a value; None fits it to the bars.
    """
    made = axes.figure if axes is not None else None
    if axes is None:
        made, axes = figure(max(5.0, 1.1 * len(groups) * max(1, len(values) / 2)), 3.4)
    scale, width = (100 if percent else 1), 0.8 / len(values)
    places, colours = np.arange(len(groups)), _colours(list(values))
    for index, (label, entries) in enumerate(values.items()):
        seeds = [scale * np.atleast_1d(np.asarray(entry, dtype=float)) for entry in entries]
        spread = [entry.std(ddof=1) if len(entry) > 1 else 0.0 for entry in seeds]
        x = places + (index - (len(values) - 1) / 2) * width
        hatch = REFERENCE if "control" in label.lower() else ""
        look = {"color": colours[index], "hatch": hatch, "edgecolor": "white"}
        axes.bar(x, [entry.mean() for entry in seeds], width * 0.95, label=label, **look)
        if any(spread):
            axes.errorbar(x, [entry.mean() for entry in seeds], spread, fmt="none", ecolor="black", capsize=3)
    if chance is not None:
        ends = places - 0.45, places + 0.45
        axes.hlines([scale * value for value in chance], *ends, color="black", linestyle=":", label="chance")
    axes.set_xticks(places, [textwrap.fill(group, 14) for group in groups], size=8)
    axes.grid(visible=False, axis="x")
    axes.set_ylabel(f"{ylabel} (%)" if percent else ylabel)
    _title(axes, title)
    if top is not None:
        axes.set_ylim(0, scale * top)
    if len(values) > 1 or chance is not None:
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16), "ncols": min(5, len(values) + 1)}
        axes.legend(fontsize=8, frameon=False, **below)
    return made


def _title(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", size=11, weight="bold")


def _colours(labels: Sequence[str]) -> list[str]:
    """One colour a label: that of the role it names, or the next of the cycle that is free."""
    found: list[str] = []
    for label in labels:
        role = next((COLOURS[role] for role in COLOURS if role in label.lower()), WRITERS.get(label.split(" ")[-1]))
        free = [colour for colour in CYCLE if colour not in found and colour not in COLOURS.values()]
        spare = free or list(CYCLE)
        found.append(role if role and role not in found else CYCLE[0] if len(labels) == 1 else spare[0])
    return found
