"""The course as HTML pages with a contents page: notebooks as they were run, and the documents they link to.

`python -m mobileclip2_lite.notebook.book . runs/book` (`make book`). Nothing is executed. Links between notebooks and
documents become links between pages; a link to a file that is no page keeps its words and loses its target.
"""

from __future__ import annotations

import html
import json
import os
import posixpath
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mobileclip2_lite.notebook.copies import read_notebook, source
from mobileclip2_lite.work.files import write_atomic
from mobileclip2_lite.work.tables import markdown_table

CONTENTS = "index.md"
"""The contents page's place, as if it had a source."""
LINK = re.compile(r'<a\b([^>]*?)\bhref="([^"]+)"([^>]*)>(.*?)</a>', re.DOTALL)


def make_book(repository: str | os.PathLike, out: str | os.PathLike) -> Path:
    """Write the book of `notebooks/`, `notebooks/solutions/` and `docs/` of a folder; returns its contents page.

    Args:
        repository: folder with `notebooks/`.
        out: folder of the pages, which keep the places that their sources have; made if it is not there.

    Raises:
        ModuleNotFoundError: nbconvert is not installed.
        ValueError: there are no notebooks, or a file is not one.
    """
    root, out = Path(repository), Path(out)
    chapters = sorted(root.glob("notebooks/*.ipynb"))
    if not chapters:
        raise ValueError(f"no notebooks in {root / 'notebooks'}: give the folder of the repository")
    sources = [*chapters, *sorted(root.glob("notebooks/solutions/*.ipynb")), *sorted(root.glob("docs/*.md"))]
    pages = {path.relative_to(root).as_posix(): path for path in sources}
    exporter, known = _exporter(), {CONTENTS, *pages}
    for name, path in pages.items():
        notebook = read_notebook(path) if path.suffix == ".ipynb" else _one_cell(path.read_text("utf-8"))
        text = _page(exporter, _with_way(notebook, name, list(pages)), title(notebook))
        _write(out / page(name), _linked(text, name, known))
    contents = _one_cell(_contents(pages))
    _write(out / page(CONTENTS), _linked(_page(exporter, contents, "The course"), CONTENTS, known))
    return out / page(CONTENTS)


def page(name: str) -> str:
    """The page of a source, by its place in the repository."""
    return posixpath.splitext(name)[0] + ".html"


def title(notebook: dict[str, Any]) -> str:
    """A notebook's first heading, without marks."""
    lines = [
        line for cell in notebook["cells"] if cell["cell_type"] == "markdown" for line in source(cell).splitlines()
    ]
    return next((line.lstrip("# ").strip() for line in lines if line.startswith("# ")), "(without a title)")


def question(notebook: dict[str, Any]) -> str:
    """The question that a notebook asks at its top, or nothing."""
    first = next((source(cell) for cell in notebook["cells"] if cell["cell_type"] == "markdown"), "")
    found = re.search(r"\*\*The question: (.+?)\*\*", first, re.DOTALL)
    asked = found[1].strip() if found else ""
    return asked[:1].upper() + asked[1:]


def _exporter() -> Any:
    try:
        from nbconvert import HTMLExporter
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("the book needs nbconvert: pip install 'mobileclip2_lite[notebooks]'") from error
    return HTMLExporter(exclude_input_prompt=True, exclude_output_prompt=True)


def _page(exporter: Any, notebook: dict[str, Any], name: str) -> str:
    import nbformat

    whole = nbformat.reads(json.dumps(notebook), as_version=4)  # which joins texts that Jupyter stores line by line
    text, _ = exporter.from_notebook_node(whole, resources={"metadata": {"name": name}})
    return text


def _one_cell(markdown: str) -> dict[str, Any]:
    """A notebook of one Markdown cell, so that documents look as notebooks do."""
    cell = {"cell_type": "markdown", "metadata": {}, "source": markdown, "id": "text"}
    return {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def _with_way(notebook: dict[str, Any], name: str, names: Sequence[str]) -> dict[str, Any]:
    """A page's notebook below a line of links: to the contents, and to the pages before and after in its folder."""
    here = posixpath.dirname(name)
    beside = [other for other in names if posixpath.dirname(other) == here]
    place = beside.index(name)
    links = [f"[Contents]({posixpath.relpath(CONTENTS, here)})"]
    links += [f"[← {_label(other)}]({posixpath.basename(other)})" for other in beside[max(0, place - 1) : place]]
    links += [f"[{_label(other)} →]({posixpath.basename(other)})" for other in beside[place + 1 : place + 2]]
    (way,) = _one_cell(" · ".join(links))["cells"]
    return {**notebook, "cells": [{**way, "id": "way"}, *notebook["cells"]]}


def _label(name: str) -> str:
    return posixpath.splitext(posixpath.basename(name))[0]


def _contents(pages: dict[str, Path]) -> str:
    """The contents page in Markdown."""
    rows = []
    chapters = [name for name in pages if name.startswith("notebooks/") and name.count("/") == 1]
    for name in chapters:
        notebook, solved = read_notebook(pages[name]), f"notebooks/solutions/{posixpath.basename(name)}"
        exercises = f"[solutions]({solved})" if solved in pages else ""
        rows.append((f"[{title(notebook)}]({name})", question(notebook), exercises))
    lines = ["# The course", "", markdown_table(("notebook", "question", "exercises"), rows, text_columns=3)]
    lines += ["", "Formulas are drawn by MathJax, which a browser loads from the web; offline they stand as TeX."]
    documents = [name for name in pages if name.startswith("docs/")]
    if documents:
        lines += ["", "## Documents", ""]
        lines += [f"- [{title(_one_cell(pages[name].read_text('utf-8')))}]({name})" for name in documents]
    return "\n".join(lines)


def _linked(text: str, name: str, pages: set[str]) -> str:
    """A page whose links to sources of the book lead to their pages, and whose other relative links are words."""

    def link(found: re.Match[str]) -> str:
        before, target, after, words = found.groups()
        address, mark, place = html.unescape(target).partition("#")
        if not address or re.match(r"[a-z][a-z0-9+.-]*:|//", address, re.IGNORECASE):
            return found[0]
        there = posixpath.normpath(posixpath.join(posixpath.dirname(name), address))
        if there not in pages:
            return words
        to = posixpath.relpath(page(there), posixpath.dirname(name) or ".") + mark + place
        return f'<a{before}href="{html.escape(to)}"{after}>{words}</a>'

    return LINK.sub(link, text)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, text.encode())


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("give two folders: python -m mobileclip2_lite.notebook.book REPOSITORY OUT")
    print(make_book(*sys.argv[1:]))
