"""The GPU's benchmark at small shapes on the CPU; on a machine without a GPU it says that it was not run."""

from __future__ import annotations

import json
import runpy
import sys

import pytest
import torch


def run(repository, monkeypatch, *words) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu.py", *map(str, words)])
    monkeypatch.syspath_prepend(repository / "benchmarks")  # as for a program that is started there
    runpy.run_path(str(repository / "benchmarks" / "gpu.py"), run_name="__main__")


def test_small_shapes_on_the_cpu(repository, monkeypatch, tmp_path, capsys):
    shapes = ["--teachers", "lite-teacher-se", "--captioner", "lite-coca", "--students", "lite-mci-s"]
    quick = ["--batch-size", 5, "--seconds", 0.01, "--peak", 2, "--out", tmp_path / "gpu.jsonl"]
    run(repository, monkeypatch, "--device", "cpu", *shapes, *quick)
    rows = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text("utf-8").splitlines()]
    assert [(row["part"], row["what"]) for row in rows] == [
        ("agreement", "image"),
        ("agreement", "text"),
        ("reinforce", "views"),
        ("reinforce", "texts"),
        ("train", "samples"),
        ("caption", "captions"),
        ("loader", "views replayed"),
        ("loader", "samples loaded"),
    ]
    agreed, reinforced, trained = rows[:2], rows[2], rows[4]
    assert all(0.99 < row["lowest_cosine"] <= 1.000001 for row in agreed)
    for row in (reinforced, trained):
        assert row["of_peak"] == pytest.approx(row["tflops"] / 2)
        assert row["tflops"] > 0
    fed = rows[7]["cores_for_the_device"] * rows[7]["a_second"]
    assert fed == pytest.approx(trained["a_second"])
    assert all(row["device"] and row["precision"] in ("bf16", "fp32") for row in rows)
    run(repository, monkeypatch, "--device", "cpu", *shapes, *quick, "--limit", 0)
    later = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text("utf-8").splitlines()][len(rows) :]
    assert {row["left_out"] for row in later} == {"no time was left"}


def test_the_part_that_the_deadline_meets_is_ended_and_the_others_left_out(repository, monkeypatch, tmp_path):
    """Eight minutes are eight minutes, also where compiling takes longer than anybody thought."""
    shapes = ["--teachers", "lite-teacher-se", "--captioner", "lite-coca", "--students", "lite-mci-s"]
    endless = ["--batch-size", 5, "--seconds", 10**6, "--deadline", 6, "--out", tmp_path / "gpu.jsonl"]
    run(repository, monkeypatch, "--device", "cpu", *shapes, *endless)
    rows = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text("utf-8").splitlines()]
    ended = [row["left_out"] for row in rows if "left_out" in row]
    assert ended[0] == "it was ended when the time was up"
    assert set(ended[1:]) == {"no time was left"}
    assert rows[-1]["part"] == "loader"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_measured(repository, monkeypatch, tmp_path, capsys):
    run(repository, monkeypatch, "--out", tmp_path / "gpu.jsonl")
    assert "not run" in capsys.readouterr().out
    assert not (tmp_path / "gpu.jsonl").exists()
