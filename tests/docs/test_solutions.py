"""The solutions of the exercises run at recipe tiny in one process, and answer what the notebooks ask."""

from __future__ import annotations

import ast
import json
import re
import shutil
from pathlib import Path

import matplotlib
import pytest

from mobileclip2_lite import notebook

ROOT = Path(__file__).resolve().parents[2]
SOLUTIONS = sorted(ROOT.glob("notebooks/solutions/*.ipynb"))
NO_SOLUTION = re.compile(r"\(No solution is given: \S.{20,}\)")
"""What an exercise says that only its reader can answer."""
solutions = pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)


def cells(path: Path, kind: str, tag: str = "") -> list[str]:
    """Sources of a notebook's cells of one kind, all or those with a tag."""
    found = [cell for cell in json.loads(path.read_text("utf-8"))["cells"] if cell["cell_type"] == kind]
    return ["".join(cell["source"]) for cell in found if not tag or tag in cell["metadata"].get("tags", [])]


def statements(path: Path) -> dict[str, str]:
    """Exercises by number, as a notebook's prose states them."""
    text = "\n".join(cells(path, "markdown"))
    return dict(re.findall(r"^(\d)\. (\*\(.*)$", text, re.MULTILINE))


def test_every_exercise_has_a_solution_or_the_notebook_says_why_not():
    asking = [path for path in ROOT.glob("notebooks/*.ipynb") if cells(path, "code", "exercise")]
    assert asking
    for path in asking:
        solved = path.parent / "solutions" / path.name
        assert solved in SOLUTIONS, f"{path.name} has exercises and no solutions"
        open_ones = {number: text for number, text in statements(path).items() if number not in statements(solved)}
        for number, text in open_ones.items():
            assert NO_SOLUTION.search(text), f"{path.name}, exercise {number}: solve it, or say there why not"


@solutions
def test_solutions_are_headed_by_the_exercises_and_assert_their_answers(path):
    solved = cells(path, "code", "solution")
    numbers = [int(re.search(r"^\(?answer_(\d)\b.* = ", code, re.MULTILINE)[1]) for code in solved]
    assert [str(number) for number in numbers] == list(statements(path))
    for code in solved:
        assert any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(code))), f"asserts nothing: {code}"
    asking = path.parents[1] / path.name
    if asking.is_file() and cells(asking, "code", "exercise"):
        asked = statements(asking)
        assert statements(path).items() <= asked.items(), "the exercise was changed: solve it as it stands now"


@pytest.fixture(scope="module")
def course(tmp_path_factory, tiny_run) -> Path:
    """A folder with the tiny run where the solutions look for it."""
    folder = tmp_path_factory.mktemp("solutions")
    shutil.copytree(tiny_run, folder / "runs" / "tiny")
    return folder


@pytest.mark.slow
@solutions
def test_solutions_are_right_at_tiny(path, request, tmp_path, monkeypatch, capsys):
    needs_run = any("run_folder(" in code for code in cells(path, "code"))
    monkeypatch.chdir(request.getfixturevalue("course") if needs_run else tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setitem(notebook._STATE, "recipe", "tiny")
    names: dict = {"__name__": path.stem}
    with matplotlib.rc_context():
        for number, code in enumerate(cells(path, "code")):
            source = 'recipe = "tiny"' if number == 0 else code
            exec(compile(source, f"{path.stem}, code cell {number}", "exec"), names)  # our own tracked files
    wanted = {f"answer_{number}" for number in statements(path)}
    assert wanted <= set(names)
    assert all(names[name] is not ... and names[name] is not None for name in wanted)
