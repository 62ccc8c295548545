"""Recorded rows: read of one generation, put beside their control, drawn."""

from __future__ import annotations

import pytest

from mobileclip2_lite.studies import figures as figures_training
from mobileclip2_lite.studies import recorded
from mobileclip2_lite.studies.questions import STUDIES
from mobileclip2_lite.studies.recorded import (
    MEASURES,
    MISSING,
    reached,
    read_rows,
    study_table,
    temperature_table,
    values,
)


def line(row: str, seed: int, zero_shot: list[float], samples: int = 300, **changes) -> dict:
    measured = dict.fromkeys(MEASURES, 0.5) | {"zero_shot": zero_shot[-1]}
    steps = [samples * (place + 1) // len(zero_shot) for place in range(len(zero_shot))]
    found = {"row": row, "seed": seed, "generation": "g", "samples": samples, "metrics": measured}
    return {**found, "curve": {"samples": steps, "zero_shot": zero_shot}, **changes}


def test_recorded_lines_are_read_of_one_generation_and_newest_first(tmp_path):
    found = [line("control", 1, [0.2]), line("control", 0, [0.1]), line("control", 0, [0.9], generation="old")]
    found += [line("control", 1, [0.3]), line("lite-teacher-se at 5", 0, [0.4])]
    recorded.append_rows(tmp_path, found)
    assert len(recorded.read_lines(tmp_path / "rows.jsonl")) == 4
    assert len(recorded.read_lines(tmp_path / "temperature.jsonl")) == 1
    ladder = read_rows(tmp_path)
    assert values(ladder, "control", "zero_shot") == [0.1, 0.3]
    assert recorded.mean(ladder, "control") == pytest.approx(0.2)
    assert read_rows(tmp_path / "none") == {}
    (tmp_path / "rows.jsonl").write_text("{}\n{", "utf-8")
    with pytest.raises(ValueError, match="line 2 is not JSON"):
        read_rows(tmp_path)


def test_samples_to_the_controls_end():
    ladder = {
        "control": [line("control", seed, [0.05, 0.1, 0.2]) for seed in (0, 1)],
        "+ ensemble": [line("+ ensemble", 0, [0.1, 0.2, 0.4]), line("+ ensemble", 1, [0.1, 0.4, 0.8])],
    }
    assert reached(ladder, "+ ensemble", 0.2) == 150  # between 0.1 at 100 and 0.3 at 200
    assert reached(ladder, "+ ensemble", 0.05) == 50  # before the first evaluation
    assert reached(ladder, "control", 0.3) is None
    header, rows = study_table(ladder, STUDIES["ladder"], ("zero_shot",), "control")
    assert header == ["% right", "zero-shot, top-1", "against control", "seeds", "samples to 20.0 % zero-shot"]
    assert rows[0] == ["control", "20.0 ± 0.0", "", "2", "300"]
    assert rows[1] == ["+ captions", "", "", MISSING, ""]
    assert rows[-1] == ["+ ensemble", "60.0 ± 28.3", "+40.0", "2", "150"]


def test_figures_draw_what_is_there_and_name_what_is_missing():
    study = STUDIES["lambda"]
    (said,) = figures_training.study_bars({}, study).axes[0].texts
    assert "mobileclip2-lite study lambda --recipe study --record" in said.get_text()
    (said,) = figures_training.study_curves({}, study).axes[0].texts
    assert "--record" in said.get_text()
    ladder = {row: [line(row, 0, [0.1, 0.2]), line(row, 1, [0.2, 0.4])] for row in ("lambda 0.5", "lambda 1")}
    made = figures_training.study_bars(ladder, study, ("zero_shot", "binding"), {"zero_shot": 0.01, "binding": 0.5})
    assert [text.get_text() for text in made.axes[0].get_yticklabels()] == ["λ = 0.5", "λ = 1"]
    assert [bar.get_width() for bar in made.axes[0].patches] == pytest.approx([30, 30])
    assert [bar.get_width() for bar in made.axes[1].patches] == [50, 50]
    assert made.axes[0].get_xlabel() == "right on the test split (%)"
    made = figures_training.study_curves(ladder, study, ("zero_shot",), "lambda 1")
    assert list(made.axes[0].lines[0].get_ydata()) == pytest.approx([15, 30])
    assert made.axes[0].lines[-1].get_ydata()[0] == pytest.approx(30)
    assert made.axes[0].get_ylabel() == "right, validation split (%)"


def test_temperature_table_and_curve():
    points = {5: [0.1, 0.3], 20: [0.5, 0.7], 80: [0.2, 0.2]}
    ladder = {
        f"lite-teacher-conv at {scale}": [line("", seed, [value]) for seed, value in enumerate(found)]
        for scale, found in points.items()
    }
    found = recorded.searches({**ladder, "control": [line("control", 0, [0.9])]})
    search = found["lite-teacher-conv"]
    assert list(found) == ["lite-teacher-conv"]
    assert (search["best"], [point["scale"] for point in search["curve"]]) == (20, [5, 20, 80])
    header, rows = temperature_table(found)
    assert header[2:] == ["logit scale", "of the best", "zero-shot, top-1 (%)", "lost (points)"]
    assert rows[0] == ["lite-teacher-conv", "best measured", "20", "1", "60.0 ± 14.1", "0"]
    assert rows[1][1] == "the teacher's own"
    made = figures_training.temperature_curves(found)
    mean = next(drawn for drawn in made.axes[0].lines if drawn.get_label() == "student, mean")
    assert list(mean.get_xdata()) == [5, 20, 80]
    (said,) = figures_training.temperature_curves({}).axes[0].texts
    assert "mobileclip2-lite study temperature" in said.get_text()
