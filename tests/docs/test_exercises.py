"""Check cells of exercises that only a training answers: a right answer passes, the usual wrong one is told why."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mobileclip2_lite import notebook
from mobileclip2_lite.studies import recorded

ROOT = Path(__file__).resolve().parents[2]


def check_cell(stem: str, number: int) -> str:
    """The source of an exercise's check cell, without its line `answer_N = ...`."""
    (path,) = ROOT.glob(f"notebooks/{stem}_*.ipynb")
    cells = json.loads(path.read_text("utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if "exercise" in cell["metadata"].get("tags", [])]
    return sources[number - 1].removeprefix(f"answer_{number} = ...\n")


def hits(score: float):
    return lambda *asked, **more: [SimpleNamespace(score=score)]


SWEEP = {1: [0.20, 0.21, 0.22], 20: [0.70, 0.71, 0.69], 100: [0.60, 0.61, 0.59]}
LATER = {1: [0.20, 0.21, 0.22], 20: [0.60, 0.61, 0.59], 100: [0.70, 0.71, 0.69]}
TUNING = {"points": {0: 5.42, 3_840: 0.64}, "last": 0.64}
PRECISION = SimpleNamespace(measure_captions=lambda texts, scenes, world: {"objects_precision": 0.55})
DECODING = {"strategies": {"greedy": 1}, "written": {"greedy": []}, "metrics": PRECISION, "scenes": [], "world": None}
COVERED = {"ones": [{"objects_coverage": 0.82}, {"objects_coverage": 0.78}], "several": {"objects_coverage": 0.81}}
HILL = {"mean": {1: 0.72, 10: 0.88}, "best": 10, "tried": (1, 10), "np": np}
ALBUM = {"index": SimpleNamespace(search=hits(0.4)), "pairs": [SimpleNamespace(texts=["a dog"])]}
HELD = {"control": 20.3, "student": 26.7, "asked": [None] * 59, "images": "own", "found": {"t2i_r5": 0.4}}
FILES = {
    "album": "album",
    "towers": {"fp32": None},
    "search": SimpleNamespace(build_index=lambda *_: SimpleNamespace(dropped={"not_an_image": 1})),
}
CASES = [  # notebook, exercise, what its cells have made, a right answer, wrong ones and what is said of them
    ("00", 5, {"mean": {"student": 91.0}}, 12.5, [(91.0, "take the difference"), ("a", "kind")]),
    ("20", 3, TUNING, 1.1, [(5.5, "was this one trained?"), (0.3, "two of three"), (float("nan"), "not below")]),
    ("20", 4, TUNING, (0.9, 0.26), [
        ((0.9, 0.9), "less the 0.64"), ((0.4, -0.24), "cannot teach more"), ((6.0, 5.36), "was it trained?"),
        (0.2, "kind")]),
    ("20", 5, {}, 0.35, [(35, "between 0 and 1"), (0.33, "twentieths")]),
    ("21", 3, DECODING, ("greedy", 0.4), [
        (("greedy", 0.6), "no lower"), (("fast", 0.4), "one of greedy"), (("greedy", 40), "a share"), (0.4, "kind")]),
    ("21", 4, COVERED, (0.9, True), [
        ((0.9, False), "compare"), ((0.5, False), "objects_coverage"), ((90, True), "a share"), (True, "kind")]),
    ("21", 5, {"world": SimpleNamespace(names=120)}, (0.3, 0.32), [
        ((30, 32), "divide percents"), ((0.008, 0.3), "than a guess does"), ((0.3, 0.3), "asked twice"),
        (False, "kind")]),
    ("30", 4, HILL, (9, 25), [
        ((25, 9), "first of the two"), ((0.5, 2), "are 1 or 3 among"), ((0.1, 0.2), "in points"), (True, "kind")]),
    ("30", 5, HILL, (SWEEP, LATER, True), [
        ((SWEEP, LATER, False), "[20] and [100]"), ((SWEEP, SWEEP, True), "have they one in common"),
        (({20: [1, 2, 3]}, SWEEP, True), "three scales"), (({**SWEEP, 1: [0.2]}, SWEEP, False), "three seeds"),
        (True, "kind")]),
    ("40", 3, {}, 4, [(7, "Six images"), (0.5, "Six images")]),
    ("41", 3, {}, 3.47, [(1.83, "their number"), (4.0, "Hint"), ("3.47", "kind")]),
    ("60", 3, {"index": SimpleNamespace(search=hits(0.4))}, ("a", "b", 0.4), [
        (("a", "b", 1.0), "the image alone"), (("a", "b", 0.3), "another score"), (0.4, "kind")]),
    ("60", 4, FILES, "not_an_image", [("broken.jpg", "No file of the album")]),
    ("80", 3, ALBUM, ("a cow", 0.4), [(("a dog", 0.4), "came with the folder"), (("a cow", 0.9), "another score")]),
    ("80", 4, HELD, (18.0, 30.0), [
        ((0.18, 0.3), "in percent"), ((20.3, 26.7), "of seed 0"), ((18.0, 5.0), "at chance"), (True, "kind")]),
    ("80", 5, HELD, 0.4, [(0.9, "another share")]),
    ("80", 5, {**HELD, "images": ""}, None, [(0.4, "still empty")]),
]  # fmt: skip


def said(stem: str, number: int, names: dict, answer, capsys) -> str:
    source = check_cell(stem, number)
    exec(compile(source, stem, "exec"), {"notebook": notebook, f"answer_{number}": answer, **names})
    return capsys.readouterr().out


@pytest.mark.parametrize(("stem", "number", "names", "right", "wrong"), CASES, ids=[f"{c[0]}-{c[1]}" for c in CASES])
def test_a_right_answer_passes_and_a_wrong_one_is_told_why(stem, number, names, right, wrong, capsys):
    if right is not None:
        assert said(stem, number, names, right, capsys) == "Right.\n"
    for answer, why in wrong:
        told = said(stem, number, names, answer, capsys)
        assert told.startswith("Not yet."), f"{answer} passed"
        assert why in told
        assert told.count("\n") == 1, "in one sentence"


def test_the_claims_of_the_ledger_are_counted_and_not_those_of_the_page(monkeypatch, capsys):
    from mobileclip2_lite.studies import claims, verdicts

    def entries(lines, wanted):
        assert wanted is claims.CLAIMS
        return [SimpleNamespace(verdict=word) for word in ["not tested"] * 7 + ["agrees"] * 3]

    monkeypatch.setattr(verdicts, "entries", entries)
    names = {"recorded": recorded, "tally": {"not tested": 1}}
    assert said("41", 4, names, 7, capsys) == "Right.\n"
    assert "this page alone" in said("41", 4, names, 1, capsys)
    assert "counts another number" in said("41", 4, names, 10, capsys)


def test_what_is_published_below_a_check_is_what_it_says_before_there_is_an_answer():
    for path in sorted(ROOT.glob("notebooks/*.ipynb")):
        for cell in json.loads(path.read_text("utf-8"))["cells"]:
            if "exercise" not in cell["metadata"].get("tags", []):
                continue
            nodes = [node for node in ast.walk(ast.parse("".join(cell["source"]))) if isinstance(node, ast.Call)]
            (hint,) = [ast.literal_eval(n.args[2]) for n in nodes if getattr(n.func, "attr", "") == "check"]
            printed = "".join("".join(output.get("text", [])) for output in cell["outputs"])
            assert printed == f"Nothing to check yet. Hint: {hint}\n", path.name
