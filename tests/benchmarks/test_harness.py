"""The speed programs stand on one harness, and one of them runs to its end."""

from __future__ import annotations

import ast
import importlib
import sys

import pytest

from mobileclip2_lite.work.json_lines import read_lines


@pytest.fixture
def programs(repository, monkeypatch):
    """Imports a module of benchmarks/, which is no package."""
    monkeypatch.syspath_prepend(repository / "benchmarks")
    names = [path.stem for path in (repository / "benchmarks").glob("*.py")]
    yield importlib.import_module
    for name in names:
        sys.modules.pop(name, None)


def test_ways_run_in_turns_and_ratios_are_those_of_a_round(programs):
    harness = programs("harness")
    now, order = [0.0], []

    def way(name, seconds):
        def run(number):
            order.append((name, number))
            now[0] += seconds[number]

        return run

    ways = {"theirs": way("theirs", [4.0, 40.0, 4.0]), "ours": way("ours", [1.0, 10.0, 2.0])}
    seconds = harness.in_turns(ways, 3, clock=lambda: now[0])
    assert order == [(name, number) for number in range(3) for name in ("theirs", "ours")]
    found = harness.compared(seconds, {"theirs": 8, "ours": 8}, "theirs")
    assert found["theirs"] == (2.0, 0.2, 2.0, 1.0, 3)
    assert found["ours"] == (4.0, 0.8, 8.0, 4.0, 3), "a round that was disturbed disturbs both, and not their ratio"
    alone = harness.compared({"ours": [2.0]}, {"ours": 8}, "theirs")
    assert alone["ours"].ratio is None


def test_every_program_takes_the_harness(repository):
    for path in sorted((repository / "benchmarks").glob("*.py")):
        if path.stem in ("harness", "inputs"):
            continue
        tree = ast.parse(path.read_text("utf-8"))
        called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        assert {"harness.parser", "harness.keep"} <= called, path.name
        assert not called & {"time.perf_counter", "time.process_time", "json.dump", "argparse.ArgumentParser"}, (
            path.name
        )


def test_the_loaders_program_runs_and_keeps_lines_with_the_machine(programs, tmp_path, monkeypatch, capsys):
    pytest.importorskip("webdataset")
    loader = programs("loader")
    command = ["--count", "3", "--views", "2", "--size", "48", "--batch-size", "2", "--repeats", "1"]
    monkeypatch.setattr(
        sys, "argv", [str(tmp_path / "loader.py"), *command, "--out", str(tmp_path / "new" / "l.jsonl")]
    )
    monkeypatch.setenv("MOBILECLIP2_LITE_PHOTOS", "")
    loader.main()
    lines = list(read_lines(tmp_path / "new" / "l.jsonl"))
    assert [line["way"] for line in lines][:3] == ["official", "official, not normalised", "exact"]
    assert lines[0]["ratio_to_official"] == 1.0
    assert lines[0]["command"] == f"python benchmarks/loader.py {' '.join(command)} --out l.jsonl"
    assert {"machine", "threads", "repeats"} <= lines[0].keys()
    assert "| official |" in capsys.readouterr().out


def test_the_searchs_program_asks_every_kind_of_question_and_indexes(programs, tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxruntime", reason="needs the extra `export`")
    pytest.importorskip("onnxscript", reason="needs the extra `export`")
    search = programs("search")
    command = ["--count", "3", "--images", "200", "--repeats", "1", "--out", str(tmp_path / "s.jsonl")]
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "search.py"), *command])
    monkeypatch.delenv("MOBILECLIP2_LITE_PHOTOS", raising=False)
    search.main()
    lines = list(read_lines(tmp_path / "s.jsonl"))
    asked, made = ([line for line in lines if line["benchmark"] == kind] for kind in ("search", "index"))
    assert [line["way"] for line in asked][1:4] == ["a text", "an image", "both, without a text"]
    assert all(line["milliseconds"] > 0 and line["images"] == 200 for line in asked)
    assert made[0]["ratio_to_encoder"] == 1.0
    assert "| near-duplicates |" in capsys.readouterr().out


def test_a_recorded_answer_over_fifty_thousand_images_takes_far_less_than_a_second(repository):
    lines = list(read_lines(repository / "benchmarks" / "results" / "search.jsonl"))
    times = {line["way"]: line["milliseconds"] for line in lines if line.get("images", 0) >= 50_000}
    assert {"open the index", "a text", "an image", "both, without a text"} <= times.keys()
    assert all(value < 500 for way, value in times.items() if way != "near-duplicates")
    text = " ".join((repository / "README.md").read_text("utf-8").split())
    said = f"{times['open the index'] / 1e3:.1f} s to open its index and {times['a text']:.0f} ms an answer"
    assert f"`search` over 50,000 images takes {said} (`benchmarks/search.py`)" in text
    rates = {line["way"]: line["ratio_to_encoder"] for line in lines if line["benchmark"] == "index"}
    assert all(ratio > 0.75 for ratio in rates.values()), "an index is made at the encoder's speed, nearly"
