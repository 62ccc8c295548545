"""Dials: one setting that a reader turns, beside static panels that show the same on the web, on the same axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mobileclip2_lite.notebook.output import shell
from mobileclip2_lite.reports.figures import figure, png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mobileclip2_lite.deployment.search import Hit, Index


def in_notebook() -> bool:
    """Whether an IPython shell runs this."""
    return shell() is not None


def shared_limits(cells: Sequence[Axes], share: str) -> dict[str, tuple[float, float]]:
    """Give all panels the same limits on the axes named in `share`; returns them by axis."""
    limits = {}
    for name in share:
        ends = [getattr(cell, f"get_{name}lim")() for cell in cells]
        turned = ends[0][0] > ends[0][1]  # a horizontal bar chart counts downward
        low, high = min(min(pair) for pair in ends), max(max(pair) for pair in ends)
        limits[name] = (high, low) if turned else (low, high)
        for cell in cells:
            getattr(cell, f"set_{name}lim")(*limits[name])
    return limits


def show_widget(widget: Any, what: str) -> None:
    """Show a widget; where widgets do not run, a line says what it would be."""
    from IPython.display import display

    shown = widget._repr_mimebundle_()
    bundle, facts = shown if isinstance(shown, tuple) else (shown, {})  # anywidget's come with metadata
    display({**bundle, "text/plain": f"({what}: run this cell in JupyterLab to use it)"}, metadata=facts, raw=True)


def dial(
    draw: Callable[[Any, Any], object],
    label: str,
    values: Sequence[Any],
    panels: Sequence[Any] | None = None,
    width: float = 3.2,
    height: float = 2.8,
    share: str = "xy",
) -> None:
    """The one setting that matters, to be turned: a row of static panels, and in a live notebook a slider below.

    Args:
        draw: draws on given axes for a given value, `draw(axes, value)`; it is called again at every turn.
        label: name of the setting.
        values: what the slider can be set to.
        panels: values of the static panels; None takes the first, the middle and the last.
        width, height: inches a panel.
        share: axes that all panels have in common, so that they can be compared: any of `x` and `y`.
    """
    chosen = list(panels) if panels is not None else [values[0], values[len(values) // 2], values[-1]]
    made, axes = figure(width * len(chosen), height, 1, len(chosen))
    cells = list(axes.ravel()) if len(chosen) > 1 else [axes]
    for cell, value in zip(cells, chosen, strict=True):
        draw(cell, value)
        cell.set_title(f"{label} = {value}", loc="left", size=10)
    limits = shared_limits(cells, share)
    for cell in cells[1:] if "y" in share else ():  # what the first panel says holds for all
        cell.tick_params(labelleft=False)
        cell.set_ylabel("")
    if not in_notebook():
        return
    from IPython.display import display

    display(made)
    try:
        import ipywidgets
    except ImportError:  # the static panels stand there anyway
        return

    def drawn(value: Any) -> bytes:
        single, cell = figure(1.5 * width, 1.3 * height)
        draw(cell, value)
        cell.set_title(f"{label} = {value}", loc="left", size=10)
        for name, (low, high) in limits.items():
            getattr(cell, f"set_{name}lim")(low, high)
        return png(single, live=True)

    slider = ipywidgets.SelectionSlider(
        options=list(values), value=chosen[len(chosen) // 2], description=label, style={"description_width": "initial"}
    )
    size = ipywidgets.Layout(align_self="flex-start")  # as large as it is, not as the page is wide
    view = ipywidgets.Image(value=drawn(slider.value), format="png", layout=size)
    slider.observe(lambda change: setattr(view, "value", drawn(change["new"])), names="value")
    show_widget(ipywidgets.VBox([slider, view]), f"a slider for {label}")


def search_box(index: Index, text: str = "", top: int = 8, side: int = 110) -> None:
    """Show a text box with the found images below it, in a live notebook.

    Args:
        index: what is searched.
        text: the first query.
        top: images shown.
        side: of a thumbnail, in pixels.
    """
    if not in_notebook():
        return
    try:
        show_widget(_search_widget(index, text, top, side), "a line to type what to look for into")
    except ImportError:  # no ipywidgets: what is found stands in the figures beside it
        return


MOST_LETTERS = 300
"""Of a query: a model reads no more of a longer one."""


def _search_widget(index: Index, text: str, top: int, side: int) -> Any:
    import io

    import ipywidgets

    from mobileclip2_lite.deployment.image_files import open_image

    box = ipywidgets.Text(value=text, placeholder="what to look for", continuous_update=False)
    shown = ipywidgets.HBox(layout=ipywidgets.Layout(flex_flow="row wrap"))

    def thumbnail(hit: Hit) -> Any:
        picture, data = open_image(hit.path), io.BytesIO()
        picture.thumbnail((side, side))
        picture.save(data, "PNG")
        label = ipywidgets.Label(f"{hit.score:.2f}  {hit.path.name[:18]}")
        return ipywidgets.VBox([ipywidgets.Image(value=data.getvalue(), format="png"), label])

    def update(change: dict | None = None) -> None:
        asked = box.value.strip()
        words = "Nothing is indexed." if asked else "Type what to look for, and press Enter."
        if len(box.value) > MOST_LETTERS:
            asked = ""
            words = f"{len(box.value):,} characters are more than a model reads: leave {MOST_LETTERS} or fewer."
        try:
            found = [thumbnail(hit) for hit in (index.search(asked, top=top) if asked else [])]
        except (OSError, ValueError) as error:  # a callback's error is seen by nobody
            found, words = [], f"{error}: if the images have changed, build the index again."
        shown.children = found or [ipywidgets.Label(words)]

    box.observe(update, names="value")
    update()
    return ipywidgets.VBox([box, shown])
