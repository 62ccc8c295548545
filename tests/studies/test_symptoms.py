"""Trainings that fail on purpose: each is looked at, and the one without right texts understands nothing."""

import json

import pytest

from mobileclip2_lite.studies import recorded, symptoms
from mobileclip2_lite.studies.ledger import ledger


def test_every_case_changes_one_thing():
    healthy = symptoms.settings(symptoms.CASES["healthy"])
    for name, case in symptoms.CASES.items():
        assert (symptoms.settings(case) != healthy) == bool(case.changes)
        assert name == "healthy" or bool(case.changes) != bool(case.mismatch)


def test_a_case_is_trained_and_looked_at(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(symptoms, "PAIRS", 32)
    monkeypatch.setattr(symptoms, "BATCH", 16)
    monkeypatch.setattr(symptoms, "CASES", {name: symptoms.CASES[name] for name in ("every text wrong",)})
    symptoms.main(["--work", str(tmp_path / "work"), "--record", "--results", str(tmp_path)])
    (found,) = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert recorded.all_lines(tmp_path) == [found]
    assert recorded.read_rows(tmp_path).keys() == {"symptom: every text wrong"}
    assert "| every text wrong | mismatch 1 |" in ledger([found])
    assert found["guessing"] == pytest.approx(2.773, abs=1e-3)
    assert 0 < found["loss"] < 4
    assert found["changes"] == {"mismatch": 1.0}
    assert found["zero_shot"] < 0.1
    assert -1 <= found["same_text"] <= 1
