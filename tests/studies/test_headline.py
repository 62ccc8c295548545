"""README's results are what a recorded run measured."""

from __future__ import annotations

import json

import pytest

from mobileclip2_lite import recipes
from mobileclip2_lite.studies import headline, recorded
from mobileclip2_lite.studies.record import generation

LINE = {
    "command": "mobileclip2-lite run --recipe tiny --seeds 0 1",
    "recipe": "tiny",
    "date": "2026-11-30",
    "seeds": [0, 1],
    "evaluation": {
        "control": [dict.fromkeys(headline.ROWS, 0.1), dict.fromkeys(headline.ROWS, 0.2)],
        "student": [dict.fromkeys(headline.ROWS, 0.5)] * 2,
        "teachers": {"lite-teacher-conv": dict.fromkeys(headline.ROWS, 0.75)},
    },
}


PAGES = {"lite": "README.md", "emoji": "docs/all_names.md"}
"""Recipe -> page with the table of its recorded run."""


@pytest.mark.parametrize("name", PAGES)
def test_the_page_shows_the_recorded_run(name, repository):
    line = headline.recorded(name, recorded.results_folder(None))
    text = (repository / PAGES[name]).read_text("utf-8")
    command = f"mobileclip2-lite headline runs/{name} --recipe {name} --readme {PAGES[name]}"
    assert headline.written(text, line) == text, f"run `{command}`"


@pytest.mark.parametrize("name", PAGES)
def test_the_recorded_run_is_of_these_weights_and_settings(name):
    line, recipe = headline.recorded(name, recorded.results_folder(None)), recipes.named(name)
    assert line["generation"] == generation(recipe), "data, teachers or captioners are others: run and record again"
    assert line["samples"] == {"control": recipe.control.samples, "student": recipe.student.samples}


def test_the_table_has_means_and_deviations():
    lines = headline.table(LINE).splitlines()
    assert lines[0] == "| | control | reinforced student | chance | teacher conv |"
    assert lines[2] == "| zero-shot over 24 names, top-1 | 15.0 ± 7.1 | **50.0 ± 0.0** | 4.2 | 75.0 |"
    assert len(lines) == 2 + len(headline.ROWS)


def test_it_is_written_between_its_marks_and_nowhere_else():
    page = f"before\n{headline.BEGIN}\nold\n{headline.END}\nafter\n"
    new = headline.written(page, LINE)
    assert new.startswith("before\n")
    assert new.endswith("\nafter\n")
    assert "old" not in new
    assert "2026-11-30, seeds 0, 1; % right, mean ± standard deviation." in new
    assert headline.written(new, LINE) == new
    with pytest.raises(ValueError, match="the page needs the lines"):
        headline.written("a page", LINE)


def test_a_tiny_run_is_recorded(tiny_run, tmp_path):
    path = headline.record(tiny_run, recipes.tiny(), tmp_path)
    line = headline.recorded("tiny", tmp_path)
    assert line == json.loads(path.read_text("utf-8"))
    assert line["evaluation"] == json.loads((tiny_run / "evaluation.json").read_text("utf-8"))
    assert line["seeds"] == [0]
    assert line["training_seconds"]["student"] > 0
    with pytest.raises(FileNotFoundError, match="records a run"):
        headline.recorded("lite", tmp_path)


def test_the_recorded_rows_are_of_these_weights_and_settings():
    found = {line["generation"] for line in recorded.all_lines(recorded.results_folder(None)) if "generation" in line}
    assert generation(recipes.named("study")) in found, "no row is of the present data: nothing new joins the old rows"
