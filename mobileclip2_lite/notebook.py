"""What notebooks need to show: quiet set-up, the library's own source, figures in one style, a dial, recorded values.

No paper section: this is how the course is told. Reads and writes nothing but `recorded`, which reads a notebook file.
A picture that a reader can change stands beside static ones of the same kind, because widgets do not show on the web.
Gives up: interactive plots beyond one dial. Used by every notebook.
"""

from __future__ import annotations

import json
import os
import sys
import textwrap
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobileclip2_lite.reports.figures import CYCLE, STYLE, bars, curves, figure, heatmap, images, mark, png

if TYPE_CHECKING:
    from mobileclip2_lite.deployment.search import Hit, Index

__all__ = [
    "bars",
    "curves",
    "dial",
    "figure",
    "heatmap",
    "images",
    "mark",
    "record",
    "recorded",
    "run_folder",
    "search_box",
    "setup",
    "show",
    "table",
]

RECORD = "application/vnd.mobileclip2-lite.record+json"
"""Media type under which `record` stores values in a notebook's outputs."""


def setup() -> None:
    """Make a notebook quiet and its figures uniform; call it before torch is imported.

    Sets `OMP_WAIT_POLICY=passive` unless the reader has set it: with another busy process on the machine, torch's
    spinning threads are otherwise 20 to 40 times slower. Says so in one line where it comes too late.
    """
    if "OMP_WAIT_POLICY" not in os.environ and "OMP_NUM_THREADS" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "passive"
        if "torch" in sys.modules:
            print("torch was imported before setup(): restart the kernel if it is slow beside other programs.")
    for category in (FutureWarning, DeprecationWarning, UserWarning):
        warnings.simplefilter("ignore", category)
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams.update({**STYLE, "axes.prop_cycle": matplotlib.cycler(color=CYCLE)})
    shell = _shell()
    if shell is not None:
        shell.display_formatter.formatters["image/png"].for_type(Figure, png)


def _shell() -> Any | None:
    """The running IPython shell, or None outside of notebooks."""
    return sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None


def _display(bundle: dict[str, Any]) -> None:
    """Show a bundle of media types in a notebook; print its text elsewhere."""
    if _shell() is None:
        print(bundle["text/plain"])
        return
    from IPython.display import display

    display(bundle, raw=True)


def run_folder(recipe: str, given: str | os.PathLike | None = None) -> Path:
    """Where a recipe's run lies: `given`, or `runs/<recipe>` in the repository, also from its folder `notebooks/`."""
    here = Path.cwd()
    return Path(given) if given else (here.parent if here.name == "notebooks" else here) / "runs" / recipe


def table(header: Sequence[Any], rows: Sequence[Sequence[Any]]) -> None:
    """Show rows under a header as a table; numbers with three significant digits."""
    from mobileclip2_lite.reports.page import Table, to_markdown

    cells = [[f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    text = to_markdown("", [Table([str(name) for name in header], cells)]).partition("\n\n")[2]
    _display({"text/markdown": text, "text/plain": text})


def show(fn: Callable | type) -> None:
    """Show the library's own source of a function or class, highlighted, with the file and line where it stands."""
    import inspect

    fn = inspect.unwrap(fn)
    source = textwrap.dedent(inspect.getsource(fn)).rstrip()
    path = Path(inspect.getsourcefile(fn) or "?")
    inside = path.relative_to(path.parents[len((fn.__module__ or "").split(".")) - 1]) if "." in fn.__module__ else path
    where = f"{inside.as_posix()}, line {inspect.getsourcelines(fn)[1]}"
    _display({"text/markdown": f"`{where}`\n\n```python\n{source}\n```", "text/plain": f"# {where}\n{source}"})


def dial(
    draw: Callable[[Any, Any], object],
    label: str,
    values: Sequence[Any],
    panels: Sequence[Any] | None = None,
    width: float = 3.2,
    height: float = 2.8,
) -> None:
    """The one setting that matters, to be turned: a row of static panels, and in a live notebook a slider below.

    Args:
        draw: draws on given axes for a given value, `draw(axes, value)`; it is called again at every turn.
        label: name of the setting.
        values: what the slider can be set to.
        panels: values of the static panels; None takes the first, the middle and the last.
        width, height: inches a panel.
    """
    chosen = list(panels) if panels is not None else [values[0], values[len(values) // 2], values[-1]]
    made, axes = figure(width * len(chosen), height, 1, len(chosen))
    for cell, value in zip(axes.ravel() if len(chosen) > 1 else [axes], chosen, strict=True):
        draw(cell, value)
        cell.set_title(f"{label} = {value}", loc="left", size=10)
    if _shell() is None:
        return
    from IPython.display import display

    display(made)
    try:
        import ipywidgets
    except ImportError:  # the static panels stand there anyway
        return

    def picture(value: Any) -> bytes:
        single, cell = figure(1.5 * width, 1.3 * height)
        draw(cell, value)
        cell.set_title(f"{label} = {value}", loc="left", size=10)
        return png(single)

    slider = ipywidgets.SelectionSlider(
        options=list(values), value=chosen[len(chosen) // 2], description=label, style={"description_width": "initial"}
    )
    view = ipywidgets.Image(value=picture(slider.value), format="png")
    slider.observe(lambda change: setattr(view, "value", picture(change["new"])), names="value")
    bundle = ipywidgets.VBox([slider, view])._repr_mimebundle_()
    _display({**bundle, "text/plain": f"(a slider for {label}: open this notebook in JupyterLab to turn it)"})


def search_box(index: Index, text: str = "", top: int = 8, side: int = 110) -> Any:
    """A text box with the found images below it, for notebooks (needs ipywidgets).

    Args:
        index: what is searched.
        text: the first query.
        top: images shown.
        side: of a thumbnail, in pixels.
    """
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
        hits = index.search(box.value, top=top) if box.value.strip() else []
        shown.children = [thumbnail(hit) for hit in hits]

    box.observe(update, names="value")
    update()
    return ipywidgets.VBox([box, shown])


def record(**values: float | int | str | bool | list | dict | None) -> None:
    """Store values in the notebook's own outputs, where the tests read them with `recorded`.

    Raises:
        TypeError: a value is not plain JSON data.
    """
    from mobileclip2_lite.work.files import to_json

    data = to_json(values)
    json.dumps(data)
    lines = [f"{key} = {value:.4g}" if isinstance(value, float) else f"{key} = {value}" for key, value in data.items()]
    _display({RECORD: data, "text/plain": "\n".join(lines)})


def recorded(path: str | os.PathLike) -> dict[str, Any]:
    """What `record` stored in a notebook file that has run; a later cell's value wins.

    Raises:
        ValueError: the file is not a notebook.
    """
    notebook = json.loads(Path(path).read_text("utf-8"))
    if "cells" not in notebook:
        raise ValueError(f"{path} is not a notebook: it has no cells")
    found: dict[str, Any] = {}
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            found |= output.get("data", {}).get(RECORD, {})
    return found
