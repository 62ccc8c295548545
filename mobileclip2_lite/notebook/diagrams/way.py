"""The way of a sample: its stations, a view that is stored and replayed, who pays for the teachers, and the cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mobileclip2_lite.notebook.diagrams.strokes import INK, arrow, box, canvas
from mobileclip2_lite.reports.figures import COLOURS, figure, pixels_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STATIONS = ("pairs", "filter", "caption", "reinforce", "train", "evaluate", "deploy")
"""The way of a sample, station by station."""
WHAT = {
    "pairs": "an image and\nits alt-text",
    "filter": "is the text\ntrue enough?",
    "caption": "captioners say\nwhat is there",
    "reinforce": "views drawn,\nteachers asked",
    "train": "the student\nimitates",
    "evaluate": "zero-shot,\nretrieval",
    "deploy": "exported,\nsearched",
}


def life_of_a_sample(station: str = "") -> Figure:
    """The seven stations of the way, with the present one marked.

    Raises:
        ValueError: there is no such station.
    """
    if station and station not in STATIONS:
        raise ValueError(f"station {station!r} is none of {', '.join(STATIONS)}")
    made, axes = canvas(9.6, 1.5)
    for index, name in enumerate(STATIONS):
        x, here = 0.1 + index * 1.36, name == station
        box(axes, x, 0.62, 1.1, 0.5, name, "ours" if here else "data", strong=here, size=10)
        axes.text(x + 0.55, 0.52, WHAT[name], ha="center", va="top", size=7.5, color=INK)
        if index:
            arrow(axes, (x - 0.24, 0.87), (x - 0.01, 0.87))
        if here:
            axes.text(x + 0.55, 1.2, "you are here", ha="center", va="bottom", size=8, color=INK, style="italic")
    return made


def view_stored(source: Any = None, views: Sequence[Any] = (), numbers: str = "crop 0.21 0.08 0.93 0.77") -> Figure:
    """A view is drawn once, kept as numbers, and replayed for teacher and student at their own sizes.

    Args:
        source: the image; None draws a box.
        views: the replayed view at the teacher's and at the student's size.
        numbers: what is stored.
    """
    made, axes = canvas(8.8, 2.4, "Store the numbers, not the pixels")
    if source is not None:
        axes.imshow(pixels_of(source), extent=(0.1, 1.5, 0.5, 1.9), aspect="auto", zorder=3)
    else:
        box(axes, 0.1, 0.5, 1.4, 1.4, "image")
    arrow(axes, (1.55, 1.2), (2.45, 1.2), "draw once")
    box(axes, 2.5, 0.75, 1.9, 0.9, f"view\n{numbers}\n20 to 30 bytes", "ours", strong=True, size=8)
    for index, (y, role, text) in enumerate(((1.35, "teacher", "teacher's size"), (0.05, "student", "student's size"))):
        arrow(axes, (4.45, 1.2), (5.15, y + 0.5))
        if index < len(views):
            axes.imshow(pixels_of(views[index]), extent=(5.2, 6.2, y, y + 1.0), aspect="auto", zorder=3)
        else:
            box(axes, 5.2, y, 1.0, 1.0, "the same\nview", role)
        axes.text(6.35, y + 0.5, text, va="center", size=9, color=COLOURS[role])
    axes.text(4.65, 1.75, "replay", ha="center", size=8, color=INK)
    axes.text(7.45, 1.85, "its embedding is\nstored beside it", va="center", size=8, color=INK)
    axes.set_aspect("equal")
    axes.set_xlim(0, 8.8)
    axes.set_ylim(0, 2.45)
    return made


HOURS = {
    "plain CLIP": 1.3,
    "everything stored": 1.3,
    "captions stored, teachers online": 4.1,
    "everything online": 21.1,
}
"""Hours of an epoch, as the paper measured them: 12.8M pairs, 8 A100."""


def who_pays(hours: Mapping[str, float] | None = None) -> Figure:
    """Who pays when: teachers at every step of every training, or once for all of them.

    Args:
        hours: label to hours of an epoch; None takes the paper's four (12.8M pairs, 8 A100).
    """
    chosen = dict(hours or HOURS)
    made, axes = figure(7.6, 0.45 * len(chosen) + 1.0)
    colours = [COLOURS["control"], COLOURS["student"], *[COLOURS["teacher"]] * len(chosen)]
    axes.barh(range(len(chosen)), list(chosen.values()), color=colours[: len(chosen)], edgecolor="white")
    axes.set_yticks(range(len(chosen)), list(chosen), size=9)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    for index, value in enumerate(chosen.values()):
        axes.text(value, index, f" {value:g} h", va="center", size=9)
    axes.set_xlabel("hours an epoch" + ("" if hours else " (paper: 12.8M pairs, 8 A100)"))
    axes.set_title("Who pays, every epoch of every student", loc="left", size=11, weight="bold")
    return made


def cluster() -> Figure:
    """Many machines on one bucket: shards by name, written once, no coordinator needed."""
    made, axes = canvas(8.8, 2.8, "Many machines, one bucket: the unit is the shard")
    box(axes, 0.1, 0.5, 1.5, 1.7, "bucket\n\nshard-000000.tar\nshard-000001.tar\n…", size=8)
    for index in range(3):
        y = 0.2 + 0.85 * index
        box(axes, 3.0, y, 1.7, 0.65, f"worker {3 - index}: teachers\nstay on its GPU", "teacher", model=True, size=8)
        arrow(axes, (1.65, 1.35), (2.98, y + 0.4))
        arrow(axes, (4.74, y + 0.33), (6.1, 1.35))
    axes.text(2.1, 2.35, "takes a name,\nreads the pairs", ha="center", size=8, color=INK)
    box(
        axes,
        6.15,
        0.5,
        2.4,
        1.7,
        "bucket\n\ntar first, then its record;\ncreate-only: who comes second\ncompares hashes and goes on",
        "ours",
        strong=True,
        size=8,
    )
    return made
