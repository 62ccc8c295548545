"""Notebooks as readers without a kernel see them: what only a running kernel can show is left out of the outputs.

A widget's view names a model that lives in the kernel; opened later, JupyterLab shows "Error displaying widget" in its
place, and a page shows nothing. Without the view, the line that says what the widget is stands there. What a cell
printed is one output: how a busy machine cut it into pieces is nobody's business.
`python -m mobileclip2_lite.notebook.published notebooks` (`make publish`).
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from mobileclip2_lite.notebook.copies import read_notebook
from mobileclip2_lite.work.files import write_atomic

VIEW = "application/vnd.jupyter.widget-view+json"
"""Media type of a widget's view."""


def without_views(notebook: dict[str, Any]) -> dict[str, Any]:
    """The same notebook whose outputs hold no widget's view, and what was printed in a row as one."""
    cells = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell = {**cell, "outputs": _joined([_without_view(output) for output in cell["outputs"]])}
        cells.append(cell)
    return {**notebook, "cells": cells}


def _joined(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same outputs; of streams that follow each other in one cell, one."""
    whole: list[dict[str, Any]] = []
    for output in outputs:
        before = whole[-1] if whole else {}
        if output["output_type"] == "stream" and output.get("name") == before.get("name"):
            said = "".join([*before["text"], *output["text"]])
            whole[-1] = {**before, "text": said.splitlines(keepends=True)}
        else:
            whole.append(output)
    return whole


def _without_view(output: dict[str, Any]) -> dict[str, Any]:
    if VIEW not in output.get("data", {}):
        return output
    return {**output, "data": {kind: data for kind, data in output["data"].items() if kind != VIEW}}


def publish(folder: str | os.PathLike) -> list[Path]:
    """Make a folder's notebooks readable without a kernel; returns the paths of those that were changed.

    Raises:
        ValueError: a file is not a notebook, or the folder holds none.
    """
    paths = sorted(Path(folder).glob("*.ipynb"))
    if not paths:
        raise ValueError(f"no notebooks in {folder}: give the folder that holds the .ipynb files")
    changed = []
    for path in paths:
        notebook = read_notebook(path)
        if (readable := without_views(notebook)) != notebook:
            write_atomic(path, (json.dumps(readable, indent=1, ensure_ascii=False) + "\n").encode())
            changed.append(path)
    return changed


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("give a folder: python -m mobileclip2_lite.notebook.published NOTEBOOKS")
    print(f"{len(publish(sys.argv[1]))} notebooks in {sys.argv[1]} made readable without a kernel")
