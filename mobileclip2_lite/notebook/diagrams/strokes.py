"""The one style of the diagrams: boxes are data, rounded boxes are models, arrows are what happens.

Colours mean what they mean in every figure of the course (student blue, teacher green, control orange).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobileclip2_lite.reports.figures import COLOURS, figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#333333"
PALE = {"data": "#F3F3F3", "student": "#D6E8F5", "teacher": "#D3EFE5", "control": "#F9E0D0", "ours": "#FFF4CC"}


def canvas(width: float, height: float, title: str = "") -> tuple[Figure, Axes]:
    """An empty figure whose units are inches, (0, 0) at the lower left."""
    made, axes = figure(width, height)
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    axes.set_axis_off()
    if title:
        axes.set_title(title, loc="left", size=11, weight="bold")
    return made, axes


def box(
    axes: Axes, x: float, y: float, width: float, height: float, text: str, kind: str = "data", model: bool = False,
    size: float = 9, strong: bool = False,
) -> tuple[float, float, float, float]:  # fmt: skip
    """A box with text, its lower left corner at (x, y); `model` rounds it, `strong` frames it. Returns its place."""
    from matplotlib.patches import FancyBboxPatch

    edge = COLOURS.get(kind, INK)
    style = f"round,pad=0.02,rounding_size={0.16 if model else 0.02}"
    axes.add_patch(
        FancyBboxPatch(
            (x, y),
            width,
            height,
            boxstyle=style,
            facecolor=PALE.get(kind, PALE["data"]),
            edgecolor=edge,
            linewidth=2.6 if strong else 1.2,
        )
    )
    weight = "bold" if strong else "normal"
    axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", size=size, color=INK, weight=weight)
    return x, y, width, height


def arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], text: str = "", colour: str = INK,
    dashed: bool = False, above: bool = True,
) -> None:  # fmt: skip
    """An arrow with a word beside its middle."""
    look = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.4, "linestyle": "--" if dashed else "-"}
    axes.annotate("", xy=end, xytext=start, arrowprops={**look, "shrinkA": 1, "shrinkB": 1})
    if text:
        x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + (0.07 if above else -0.07)
        axes.text(x, y, text, ha="center", va="bottom" if above else "top", size=8, color=colour)
