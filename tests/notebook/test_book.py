"""The book's pages hold together, need no web, and can be read on a phone, by day and by night."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from doubles.browser import chromium

from mobileclip2_lite.notebook.book import make_book

pytest.importorskip("nbconvert", reason="needs the extra `notebooks`")
pytest.importorskip("latex2mathml", reason="needs the extra `notebooks`")
ROOT = Path(__file__).resolve().parents[2]


def write(path: Path, *cells: tuple[str, str]) -> None:
    """A notebook file, every other text stored line by line as Jupyter does, the others whole."""
    made = []
    for number, (kind, text) in enumerate(cells):
        stored = text if number % 2 else text.splitlines(keepends=True)
        cell = {"cell_type": kind, "id": f"c{number}", "metadata": {}, "source": stored}
        if kind == "code":
            output = {"output_type": "stream", "name": "stdout", "text": ["told\n"]}
            cell |= {"outputs": [output], "execution_count": number}
        made.append(cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}), "utf-8")


FIRST = (
    (
        "markdown",
        "# First: of two\n\n**The question: what is a | bar?**\n\nTime: about three minutes. Read the "
        "[glossary](../docs/glossary.md#word) first.",
    ),
    ("code", "x = 1  # costs $2 or $3"),
    ("markdown", "## 1. A `loss`, by hand\n\nWith $x_1$ pairs\n\n$$\\frac{1}{2}\\sum_i x_i$$"),
    ("code", "print('told')"),
    (
        "markdown",
        "Next: [second](10_second.ipynb), not [the code](../mobileclip2_lite/pipeline.py), [arXiv](https://x.y/z).",
    ),
)  # fmt: skip


@pytest.fixture
def book(tmp_path) -> Path:
    write(tmp_path / "notebooks" / "00_start_here.ipynb", *FIRST)
    write(tmp_path / "notebooks" / "10_second.ipynb", ("markdown", "# Second\n\nBack to [first](00_start_here.ipynb)."))
    write(
        tmp_path / "notebooks" / "solutions" / "00_start_here.ipynb",
        ("markdown", "# Solutions: First\n\n[up](../00_start_here.ipynb)"),
    )
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "glossary.md").write_text(
        '# Words\n\n<a id="word"></a>**word** [first](../notebooks/00_start_here.ipynb)\n', "utf-8"
    )
    (tmp_path / "docs" / "way.png").write_bytes(b"a picture")
    (tmp_path / "README.md").write_text("# The project\n\n![the way](docs/way.png)\n", "utf-8")
    return make_book(tmp_path, tmp_path / "book").parent


def broken(folder: Path) -> list[str]:
    """Links between the pages of a book that lead nowhere."""
    pages = {path: path.read_text("utf-8") for path in folder.rglob("*.html")}
    wrong, followed = [], 0
    for path, text in pages.items():
        for target, place in re.findall(r'<a\b[^>]*\bhref="([^"#:]*)(?:#([^":]*))?"', text):
            there = (path.parent / target).resolve() if target else path
            followed += 1
            if there not in pages or (place and f'id="{place}"' not in pages[there]):
                wrong.append(f"{path.name}: {target}#{place}")
    assert followed >= 8
    return wrong


def test_the_book_has_a_page_a_notebook_and_no_broken_link(book):
    pages = sorted(path.relative_to(book).as_posix() for path in book.rglob("*.html"))
    assert pages == [
        "README.html",
        "docs/glossary.html",
        "index.html",
        "notebooks/00_start_here.html",
        "notebooks/10_second.html",
        "notebooks/solutions/00_start_here.html",
    ]
    assert broken(book) == []
    for path in book.rglob("*.html"):
        assert not re.search(r'href="[^"]*\.(ipynb|md)\b', path.read_text("utf-8")), "a link to a source"
    assert (book / "docs" / "way.png").read_bytes() == b"a picture"


def test_a_page_links_to_its_neighbours_its_solutions_and_its_own_headings(book):
    first = (book / "notebooks" / "00_start_here.html").read_text("utf-8")
    assert 'href="../docs/glossary.html#word"' in first
    assert 'href="https://x.y/z"' in first
    assert "the code" in first
    assert "pipeline.py" not in first, "what is no page is no link"
    assert "told" in first, "outputs as they were run"
    assert first.count('href="../index.html">Contents</a>') == 2, "above and below"
    assert 'href="10_second.html">10 Second →</a>' in first
    assert 'href="solutions/00_start_here.html">Solutions</a>' in first
    assert '<a href="#1-a-loss-by-hand">1. A <code>loss</code>, by hand</a>' in first
    second = (book / "notebooks" / "10_second.html").read_text("utf-8")
    assert 'href="00_start_here.html">← 00 First</a>' in second
    index = (book / "index.html").read_text("utf-8")
    assert "What is a | bar?" in index
    assert "three minutes" in index
    assert index.index("00 First") < index.index("10 Second")


def test_a_page_needs_no_web_and_draws_its_formulas(book):
    for path in book.rglob("*.html"):
        text = path.read_text("utf-8")
        assert "<script" not in text
        assert not re.search(r'(?:src|@import)\s*=?\s*"https?://', text), "loads something"
    first = (book / "notebooks" / "00_start_here.html").read_text("utf-8")
    assert first.count("<math ") == 2
    assert "<mfrac>" in first
    assert "\\frac" not in first
    assert "costs $2 or $3" in first, "code is no formula"


def test_a_formula_that_cannot_be_read_is_named(tmp_path):
    write(tmp_path / "notebooks" / "00_start_here.ipynb", ("markdown", "# First\n\n$\\left($"))
    with pytest.raises(ValueError, match=r"notebooks/00_start_here\.ipynb: the formula \$\\left\(\$ cannot be read"):
        make_book(tmp_path, tmp_path / "book")


def test_a_book_without_notebooks_says_which_folder_it_wants(tmp_path):
    with pytest.raises(ValueError, match="give the folder of the repository"):
        make_book(tmp_path, tmp_path / "book")


WIDER = """() => {
  const edge = document.documentElement.clientWidth;
  const moved = (node) => {
    for (let at = node; at && at !== document.body; at = at.parentElement)
      if (["auto", "scroll"].includes(getComputedStyle(at).overflowX) && at.getBoundingClientRect().right <= edge + 1)
        return true;
    return false;
  };
  return [...document.querySelectorAll("main *")]
    .filter((node) => node.getBoundingClientRect().right > edge + 1 && !moved(node))
    .map((node) => node.outerHTML.slice(0, 80));
}"""
"""What stands out of the window to the right and lies in no box that can be moved sideways."""
GROUND = "() => getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"


@pytest.mark.slow
def test_real_pages_read_on_a_phone_at_night_and_without_the_web(tmp_path):
    for name in ("05_clip_by_hand", "70_scaling"):  # formulas and wide figures, wide tables
        (tmp_path / "notebooks").mkdir(exist_ok=True)
        shutil.copy(ROOT / "notebooks" / f"{name}.ipynb", tmp_path / "notebooks")
    (tmp_path / "docs").mkdir()
    for name in ("claims", "glossary", "lab_log"):
        shutil.copy(ROOT / "docs" / f"{name}.md", tmp_path / "docs")
    index = make_book(tmp_path, tmp_path / "book")
    links = [line for line in broken(index.parent) if "notebooks/" not in line]
    assert links == [], "marks of the glossary and headings are there"
    pages = [index, *sorted((index.parent / "notebooks").glob("*.html")), index.parent / "docs" / "claims.html"]
    with chromium() as browser:
        for width, scheme in ((400, "dark"), (1280, "light")):
            look = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
            for path in pages:
                tab = look.new_page()
                tab.goto(path.as_uri())
                assert tab.evaluate("document.documentElement.scrollWidth") <= width, path.name
                assert tab.evaluate(WIDER) == [], path.name
                ground = tab.evaluate(GROUND)
                assert max(ground) < 60 if scheme == "dark" else min(ground) > 200
                assert tab.locator("nav.book").is_visible() == (width == 1280)
                tab.close()
            look.close()
