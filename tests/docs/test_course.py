"""What a page of the course owes its reader: results that are read, sentences with their numbers, terms explained."""

from __future__ import annotations

import ast
import json
import re
import string
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))
notebooks = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
READING = tuple(f"notebook.{name}(" for name in ("claim", "recap", "study", "verdicts", "temperatures", "tally"))
"""Calls that say in words what a result says."""


def cells_of(path: Path) -> list[dict]:
    """A notebook's cells, each with its source as one text."""
    return [{**cell, "source": "".join(cell["source"])} for cell in json.loads(path.read_text("utf-8"))["cells"]]


def shows(cell: dict) -> bool:
    """Whether a code cell was published with a figure or a table."""
    data = [output.get("data", {}) for output in cell.get("outputs", [])]
    return any("image/png" in one or "".join(one.get("text/markdown", "")).startswith("|") for one in data)


@notebooks
def test_every_result_is_followed_by_its_reading(path):
    cells = cells_of(path)
    for place, cell in enumerate(cells):
        if not shows(cell) or "life_of_a_sample" in cell["source"]:
            continue
        after = cells[place + 1]
        words = after["cell_type"] == "markdown" and not after["source"].startswith("#")
        read = any(call in cell["source"] or call in after["source"] for call in READING)
        assert words or read, f"nothing is said of the result of: {cell['source'][:80]!r}"


def sentences(tree: ast.Module) -> list[tuple[set[str], set[str]]]:
    """For each claim or recap of a cell: the names in the braces of its sentences, and the numbers that it is given."""
    found = []
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        if node.func.attr in ("claim", "recap"):
            texts = [part.elts[0] if isinstance(part, ast.Tuple) else part for part in node.args]
            lines = [part.value for part in texts if isinstance(part, ast.Constant) and isinstance(part.value, str)]
            names = {name for line in lines for _, name, _, _ in string.Formatter().parse(line) if name}
            found.append(({re.split(r"[.\[]", name)[0] for name in names}, {word.arg for word in node.keywords}))
    return found


@notebooks
def test_sentences_find_their_numbers_in_the_cells_above(path):
    known, counted = set(), 0
    for cell in (cell for cell in cells_of(path) if cell["cell_type"] == "code"):
        tree = ast.parse(cell["source"])
        known |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        for names, given in sentences(tree):
            counted += 1
            assert names <= known | given, f"{sorted(names - known - given)} is nowhere: {cell['source'][:80]!r}"
            assert given <= names, f"{sorted(given - names)} stands in no sentence: {cell['source'][:80]!r}"
    assert counted >= 2, "a notebook says what its numbers say"


def conditions(tree: ast.Module) -> list[ast.expr]:
    """What the claims of a cell, and the lines of its recap, hold their numbers to."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr == "claim":
                found.append(node.args[1])
            if node.func.attr == "recap":
                found += [line.elts[1] for line in node.args if isinstance(line, ast.Tuple)]
    return found


def written_down(trees: list[ast.Module]) -> set[str]:
    """Names to which a notebook gives nothing but numbers and texts that stand in it."""
    stated, made = set(), set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        if not (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)):
            continue
        made.add(node.id)
    for node in (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Assign)):
        names = [part.id for target in node.targets for part in ast.walk(target) if isinstance(part, ast.Name)]
        parts = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
        if all(isinstance(part, ast.Constant) for part in parts):
            stated |= set(names)
        else:
            made -= set(names)
    return stated & made


@notebooks
def test_what_a_sentence_is_held_to_was_measured(path):
    """A condition on nothing but what the notebook writes down itself cannot fail."""
    trees = [ast.parse(cell["source"]) for cell in cells_of(path) if cell["cell_type"] == "code"]
    stated = written_down(trees)
    for condition in (one for tree in trees for one in conditions(tree)):
        names = {node.id for node in ast.walk(condition) if isinstance(node, ast.Name)}
        assert names - stated, f"cannot fail: {ast.unparse(condition)}"
        assert not re.fullmatch(r"(\w+\.)?\w+ >= 0|len\(.+\) > 0", ast.unparse(condition)), ast.unparse(condition)


@notebooks
def test_the_recap_has_numbers_and_the_comparison_with_the_paper_a_verdict(path):
    cells = cells_of(path)
    (place,) = [k for k, cell in enumerate(cells) if re.search(r"^## Recap$", cell["source"], re.MULTILINE)]
    assert cells[place + 1]["source"].startswith("notebook.recap("), "made from the numbers of this run"
    (names, _), *_ = sentences(ast.parse(cells[place + 1]["source"]))
    assert names, "a recap without a number"
    text = "\n".join(cell["source"] for cell in cells if cell["cell_type"] == "markdown")
    beside = re.search(r"^## Here and in the paper$(.*?)^## ", text, re.MULTILINE | re.DOTALL)[1]
    assert re.search(r"agrees?\b|disagrees?\b|cannot (?:be )?tell|cannot be told", beside), "agreeing, or not, or open"


@notebooks
def test_terms_lead_to_their_line_in_the_glossary(path):
    explained = set(re.findall(r'<a id="([^"]+)"></a>', (ROOT / "docs" / "glossary.md").read_text("utf-8")))
    text = "\n".join(cell["source"] for cell in cells_of(path) if cell["cell_type"] == "markdown")
    linked = re.findall(r"glossary\.md#([^)]+)\)", text)
    assert len(linked) >= 5, "terms link to the glossary at first use"
    assert len(linked) == len(set(linked)), "at first use, and then no more"
    assert set(linked) <= explained


@notebooks
def test_the_minutes_at_its_top_are_those_of_the_readme(path):
    numbers = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    (said,) = re.findall(r"\bTime: (?:about )?(?:under )?(\w+) minutes?", cells_of(path)[0]["source"])
    readme = (ROOT / "README.md").read_text("utf-8")
    (told,) = re.findall(rf"^\| \[[^]]+\]\(notebooks/{path.name}\) \|.*\| (\d+) \|$", readme, re.MULTILINE)
    assert numbers.index(said) == int(told)
