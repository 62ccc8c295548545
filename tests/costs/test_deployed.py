"""Deployed models side by side: the files' own numbers, and what a precision costs."""

from __future__ import annotations

import numpy as np
import pytest

from mobileclip2_lite.costs.deployed import DeployedRow, as_model, compare, table
from mobileclip2_lite.evaluation.suite import evaluate
from mobileclip2_lite.models.embedded import data_folder
from mobileclip2_lite.models.zoo import create_model
from mobileclip2_lite.recipes import Evaluate, World

WORLD, SETTINGS = World(names=16, image_size=64, max_objects=2), Evaluate(renders=2, scenes=24)


def row(name, precision, *hit):
    return DeployedRow(name, precision, 1.0, 1.0, 1.0, {"zero_shot": np.array(hit, float)})


def test_a_price_is_a_paired_difference():
    whole, half = row("a", "fp32", 1, 1, 0, 1), row("a", "int8", 1, 0, 0, 1)
    loss, width = half.price("zero_shot", whole)
    assert (whole.share("zero_shot"), loss) == (0.75, 0.25)
    assert width == pytest.approx(1.96 * np.std([0, 1, 0, 0], ddof=1) / 2)
    assert whole.price("zero_shot", whole) == (0, 0)
    assert "| a | int8 | 1.0 | 1.00 | 1.00 | 50.0 (-25.0 ± 49.0) |" in table([whole, half], ["zero_shot"])
    assert "| image, ms | text, ms | zero-shot, top-1 (%) |" in table([whole, half], ["zero_shot"])
    with pytest.raises(ValueError, match="same zero_shot questions"):
        half.price("zero_shot", row("b", "fp32", 1))


def test_the_files_are_measured_and_stand_beside_each_other(tmp_path):
    pytest.importorskip("onnxruntime", reason="needs the extra `export`")
    pytest.importorskip("onnxscript", reason="needs the extra `export`")
    from mobileclip2_lite.deployment.runtime import load_exported

    teacher = create_model(data_folder() / "teachers" / "lite-teacher-conv")
    models = {"teacher": teacher, "untrained": create_model("lite-mci-s")}
    rows = compare(models, tmp_path, WORLD, SETTINGS, ("fp32", "int8"))
    assert [(one.name, one.precision) for one in rows] == [
        (name, precision) for name in models for precision in ("fp32", "int8")
    ]
    by_torch = evaluate(teacher, WORLD, SETTINGS, ("zero_shot", "retrieval"))
    for measure in ("zero_shot", "retrieval_t2i_r1"):
        assert rows[0].share(measure) == pytest.approx(by_torch[measure], abs=0.04)
    assert rows[0].share("zero_shot") > rows[2].share("zero_shot") + 0.3, "the untrained one guesses"
    assert rows[1].megabytes < rows[0].megabytes / 2
    files = sum((tmp_path / "teacher" / name).stat().st_size for name in ("image.onnx", "text.onnx"))
    assert rows[0].megabytes == pytest.approx(files / 1e6, abs=2e-3)
    assert table(rows).count("\n") == 5
    loaded = as_model(load_exported(tmp_path / "teacher"))
    assert evaluate(loaded, WORLD, SETTINGS, ("binding",))["binding"] > 0.4


def test_the_command_sets_files_side_by_side(tmp_path, capsys):
    pytest.importorskip("onnxruntime", reason="needs the extra `export`")
    pytest.importorskip("onnxscript", reason="needs the extra `export`")
    from mobileclip2_lite.cli import main

    teachers = [str(data_folder() / "teachers" / f"lite-teacher-{name}") for name in ("conv", "se")]
    sizes = ["--recipe", "tiny", "--renders", "1", "--scenes", "8", "--precisions", "fp16"]
    main(["compare", *teachers, "--out", str(tmp_path), *sizes])
    said = capsys.readouterr().out
    assert [line.split(" | ")[:2] for line in said.splitlines()[2:6]] == [
        [f"| {name}", precision] for name in ("lite-teacher-conv", "lite-teacher-se") for precision in ("fp32", "fp16")
    ]
    assert " ± " in said
    assert "In parentheses: points against the same model's fp32" in said
    with pytest.raises(SystemExit):
        main(["compare", teachers[0], teachers[0], "--out", str(tmp_path)])
    assert "each with a name of its own" in capsys.readouterr().err
