"""Copies without prose keep code, headings and exercises."""

from __future__ import annotations

import json

import pytest

from mobileclip2_lite.notebook.copies import copy_without_prose, read_notebook, source


def write(path, *cells: tuple[str, str]) -> None:
    """A notebook file, every other text stored line by line as Jupyter does, the others whole."""
    made = []
    for number, (kind, text) in enumerate(cells):
        stored = text if number % 2 else text.splitlines(keepends=True)
        cell = {"cell_type": kind, "id": f"c{number}", "metadata": {"tags": ["kept"]}, "source": stored}
        if kind == "code":
            output = {"output_type": "stream", "name": "stdout", "text": ["told\n"]}
            cell |= {"outputs": [output], "execution_count": number}
        made.append(cell)
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"cells": made, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}), "utf-8")


FIRST = (
    (
        "markdown",
        "# First\n\n**The question: what is a | bar?**\n\nRead the [glossary](../docs/glossary.md#word) first.",
    ),
    ("code", "x = 1"),
    ("markdown", "Only prose.\n\n```\n# no heading\n```"),
    ("code", "print('told')"),
    ("markdown", "## Exercises\n\nSome words.\n\n1. *(5 minutes)* Set `answer_1`.\n2. a list item"),
    (
        "markdown",
        "Next: [second](10_second.ipynb), not [the code](../mobileclip2_lite/pipeline.py), [arXiv](https://x.y/z).",
    ),
)


def test_a_copy_without_prose_keeps_code_headings_and_exercises(tmp_path):
    write(tmp_path / "notebooks" / "00_start_here.ipynb", *FIRST)
    before = (tmp_path / "notebooks" / "00_start_here.ipynb").read_bytes()
    (path,) = copy_without_prose(tmp_path / "notebooks", tmp_path / "bare")
    cells = read_notebook(path)["cells"]
    assert [source(cell) for cell in cells] == [
        "# First",
        "x = 1",
        "print('told')",
        "## Exercises\n\n1. *(5 minutes)* Set `answer_1`.",
    ]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells if "outputs" in cell)
    assert all(cell["metadata"] == {"tags": ["kept"]} for cell in cells)
    assert (tmp_path / "notebooks" / "00_start_here.ipynb").read_bytes() == before


def test_a_copy_refuses_what_would_lose_something(tmp_path):
    with pytest.raises(ValueError, match="no notebooks in"):
        copy_without_prose(tmp_path, tmp_path / "out")
    write(tmp_path / "00_start_here.ipynb", *FIRST)
    with pytest.raises(ValueError, match="would replace"):
        copy_without_prose(tmp_path, tmp_path)
    (tmp_path / "10_broken.ipynb").write_text("{")
    with pytest.raises(ValueError, match=r"10_broken\.ipynb is not a notebook"):
        copy_without_prose(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists(), "nothing is written before all are read"
