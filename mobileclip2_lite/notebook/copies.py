"""Copies of notebooks without prose and outputs: headings and code, for a second time through the course.

`python -m mobileclip2_lite.notebook.copies notebooks runs/bare` (`make clean-notebooks`). The notebooks are only read.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from mobileclip2_lite.work.files import write_atomic

EXERCISE = re.compile(r"\d+\. \*\(")
"""How an exercise begins: its number, and in brackets its minutes."""


def read_notebook(path: str | os.PathLike) -> dict[str, Any]:
    """A notebook file as JSON data.

    Raises:
        ValueError: the file is not a notebook.
    """
    try:
        notebook = json.loads(Path(path).read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not a notebook ({error}): take it out of the folder") from error
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        raise ValueError(f"{path} is not a notebook, it has no cells: take it out of the folder")
    return notebook


def source(cell: dict[str, Any]) -> str:
    """A cell's text, which notebooks store whole or line by line."""
    return cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])


def without_prose(notebook: dict[str, Any]) -> dict[str, Any]:
    """The same notebook with its code, headings and exercises alone; without outputs."""
    cells = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cells.append({**cell, "outputs": [], "execution_count": None})
        elif cell["cell_type"] == "markdown" and (kept := _headings(source(cell))):
            cells.append({**cell, "source": kept})
    return {**notebook, "cells": cells}


def _headings(text: str) -> str:
    """The lines of Markdown that are headings or exercises, outside of code blocks."""
    kept, inside = [], False
    for line in text.splitlines():
        inside ^= line.lstrip().startswith("```")
        if not inside and (line.startswith("#") or EXERCISE.match(line)):
            kept.append(line)
    return "\n\n".join(kept)


def copy_without_prose(folder: str | os.PathLike, out: str | os.PathLike) -> list[Path]:
    """Write copies of a folder's notebooks without prose; returns their paths.

    Raises:
        ValueError: a file is not a notebook, `out` is the folder itself, or the folder holds no notebook.
    """
    folder, out = Path(folder), Path(out)
    if out.resolve() == folder.resolve():
        raise ValueError(f"the copies would replace the notebooks of {folder}: name another folder")
    paths = sorted(folder.glob("*.ipynb"))
    if not paths:
        raise ValueError(f"no notebooks in {folder}: give the folder that holds the .ipynb files")
    copies = [(out / path.name, without_prose(read_notebook(path))) for path in paths]
    out.mkdir(parents=True, exist_ok=True)
    for path, notebook in copies:
        write_atomic(path, (json.dumps(notebook, indent=1, ensure_ascii=False) + "\n").encode())
    return [path for path, _ in copies]


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("give two folders: python -m mobileclip2_lite.notebook.copies NOTEBOOKS OUT")
    print(f"{len(copy_without_prose(*sys.argv[1:]))} notebooks without prose in {sys.argv[2]}")
