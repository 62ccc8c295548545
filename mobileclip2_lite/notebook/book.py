"""The course as HTML pages with a contents page: notebooks as they were run, and the documents they link to.

`python -m mobileclip2_lite.notebook.book . runs/book` (`make book`). Nothing is executed, and nothing is loaded from
the web when a page is read. Links between notebooks and documents become links between pages; a link to a file that is
no page keeps its words and loses its target.
"""

from __future__ import annotations

import html
import os
import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mobileclip2_lite.notebook import book_page
from mobileclip2_lite.notebook.copies import read_notebook, source
from mobileclip2_lite.work.files import write_atomic
from mobileclip2_lite.work.tables import markdown_table

CONTENTS = "index.md"
"""The contents page's place, as if it had a source."""
WAY = "docs/way.png"
"""The picture on the contents page, where a repository has one."""
LINK = re.compile(r'<a\b([^>]*?)\bhref="([^"]+)"([^>]*)>(.*?)</a>', re.DOTALL)
IMAGE = re.compile(r'<img\b[^>]*?\bsrc="([^":]+)"')


def make_book(repository: str | os.PathLike, out: str | os.PathLike) -> Path:
    """Write the book of a folder's README, `notebooks/`, `notebooks/solutions/` and `docs/`; returns its contents page.

    Args:
        repository: folder with `notebooks/`.
        out: folder of the pages, which keep the places that their sources have; made if it is not there.

    Raises:
        ModuleNotFoundError: nbconvert or latex2mathml is not installed.
        ValueError: there are no notebooks, a file is not one, or a formula cannot be read.
    """
    root, out = Path(repository), Path(out)
    chapters = sorted(root.glob("notebooks/*.ipynb"))
    if not chapters:
        raise ValueError(f"no notebooks in {root / 'notebooks'}: give the folder of the repository")
    sources = [*chapters, *sorted(root.glob("notebooks/solutions/*.ipynb"))]
    sources += [*root.glob("README.md"), *sorted(root.glob("docs/*.md"))]
    notebooks = {path.relative_to(root).as_posix(): _read(path) for path in sources}
    has_picture = (root / WAY).is_file()
    for name, notebook in {CONTENTS: _one_cell(_contents(notebooks, has_picture)), **notebooks}.items():
        try:
            text = book_page.body(notebook)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        text = book_page.whole(title(notebook), text, _beside(notebooks, name), _way(notebooks, name))
        for picture in {_there(name, address) for address in IMAGE.findall(text)}:
            if (root / picture).is_file():
                _write(out / picture, (root / picture).read_bytes())
        _write(out / page(name), _linked(text, name, {CONTENTS, *notebooks}).encode())
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
    found = re.search(r"\*\*The question: (.+?)\*\*", _first(notebook), re.DOTALL)
    asked = found[1].strip() if found else ""
    return asked[:1].upper() + asked[1:]


def time(notebook: dict[str, Any]) -> str:
    """How long a notebook takes, as it says at its top, or nothing."""
    found = re.search(r"\bTime: (?:about )?((?:under )?\w+ minutes?)", _first(notebook))
    return found[1] if found else ""


def _first(notebook: dict[str, Any]) -> str:
    return next((source(cell) for cell in notebook["cells"] if cell["cell_type"] == "markdown"), "")


def _read(path: Path) -> dict[str, Any]:
    return read_notebook(path) if path.suffix == ".ipynb" else _one_cell(path.read_text("utf-8"))


def _one_cell(markdown: str) -> dict[str, Any]:
    """A notebook of one Markdown cell, so that documents look as notebooks do."""
    cell = {"cell_type": "markdown", "metadata": {}, "source": markdown, "id": "text"}
    return {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def _chapters(notebooks: dict[str, dict[str, Any]]) -> list[str]:
    return [name for name in notebooks if re.fullmatch(r"notebooks/[^/]+", name)]


def _documents(notebooks: dict[str, dict[str, Any]]) -> list[str]:
    return [name for name in notebooks if name.endswith(".md")]


def _number(name: str) -> str:
    """`05` of `notebooks/05_clip_by_hand.ipynb`, or nothing."""
    found = re.match(r"\d+(?=_)", posixpath.basename(name))
    return found[0] if found else ""


def _called(notebooks: dict[str, dict[str, Any]], name: str) -> str:
    """A page's number and the short form of its title: what stands before a colon."""
    return f"{_number(name)} {title(notebooks[name]).partition(':')[0]}".strip()


def _beside(notebooks: dict[str, dict[str, Any]], name: str) -> list[list[book_page.Place]]:
    """The contents that stand beside a page; the page itself stands there, too, if it is not a chapter."""
    chapters, documents = _chapters(notebooks), _documents(notebooks)
    own = [name] if name in notebooks and name not in (*chapters, *documents) else []
    groups = [
        [book_page.Place(_called(notebooks, one), _address(name, one)) for one in group]
        for group in (own, chapters, documents)
    ]
    return [[book_page.Place("The course", _address(name, CONTENTS))], *groups]


def _way(notebooks: dict[str, dict[str, Any]], name: str) -> str:
    """A line of links: to the contents, the pages before and after in the page's folder, and a chapter's solutions."""
    if name not in notebooks:
        return ""
    here = posixpath.dirname(name)
    beside = [other for other in notebooks if posixpath.dirname(other) == here]
    place, solved = beside.index(name), f"notebooks/solutions/{posixpath.basename(name)}"
    links = [("Contents", CONTENTS)]
    links += [(f"← {_called(notebooks, other)}", other) for other in beside[max(0, place - 1) : place]]
    links += [(f"{_called(notebooks, other)} →", other) for other in beside[place + 1 : place + 2]]
    if solved in notebooks and solved != name:
        links.append(("Solutions", solved))
    return " ".join(f'<a href="{html.escape(_address(name, to))}">{html.escape(words)}</a>' for words, to in links)


def _address(name: str, to: str) -> str:
    """The source `to` as seen from the source `name`; empty for the same."""
    return "" if to == name else posixpath.relpath(to, posixpath.dirname(name) or ".")


def _there(name: str, address: str) -> str:
    """The place in the repository that a relative address in a source means."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), address))


def _contents(notebooks: dict[str, dict[str, Any]], has_picture: bool) -> str:
    """The contents page in Markdown."""
    rows = []
    for name in _chapters(notebooks):
        notebook, solved = notebooks[name], f"notebooks/solutions/{posixpath.basename(name)}"
        exercises = f"[solutions]({solved})" if solved in notebooks else ""
        named = f"[{_number(name)} {title(notebook)}]({name})" if _number(name) else f"[{title(notebook)}]({name})"
        rows.append((named, question(notebook), time(notebook), exercises))
    lines = ["# The course", ""]
    lines += [
        "How a small CLIP model is trained from a data set that strong teachers have *reinforced* once. Each page asks "
        "one question and, before it shows a result, you for a guess; then it says what its numbers say. The pages "
        "stand here as they were run; `make lab` opens the same notebooks to change and run.",
        "",
    ]
    lines += [f"![the way of a sample]({WAY})", ""] if has_picture else []
    lines += [markdown_table(("notebook", "question", "takes", "exercises"), rows, text_columns=4)]
    if documents := _documents(notebooks):
        lines += ["", "## Documents", ""]
        lines += [f"- [{title(notebooks[name])}]({name})" for name in documents]
    return "\n".join(lines)


def _linked(text: str, name: str, pages: set[str]) -> str:
    """A page whose links to sources of the book lead to their pages, and whose other relative links are words."""

    def link(found: re.Match[str]) -> str:
        before, target, after, words = found.groups()
        address, mark, place = html.unescape(target).partition("#")
        if not address or re.match(r"[a-z][a-z0-9+.-]*:|//", address, re.IGNORECASE):
            return found[0]
        there = _there(name, address)
        if there not in pages:
            return words
        to = posixpath.relpath(page(there), posixpath.dirname(name) or ".") + mark + place
        return f'<a{before}href="{html.escape(to)}"{after}>{words}</a>'

    return LINK.sub(link, text)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, data)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("give two folders: python -m mobileclip2_lite.notebook.book REPOSITORY OUT")
    print(make_book(*sys.argv[1:]))
