"""docs/when_it_does_not_learn.md: every number is a logarithm, a recorded line's, or the lab log's under its date."""

import math
import re

import pytest

from mobileclip2_lite.studies import recorded

ROWS = {
    "control": "control {} %",
    "+ ensemble": "student {} % zero-shot",
    "+ captions": "the control on captions {} %",
    "control, filtered": "on filtered pairs {} %",
    "student, strong views": "{} % zero-shot on such crops",
    "lite-teacher-conv at 1": "{} % at scale 1,",
    "lite-teacher-conv at 5": "{} % at 5,",
    "lite-teacher-conv at 20": "{} % at 20,",
    "lite-teacher-conv at 80": "{} % at 80 ",
    "student, 5,000 samples": "names {} % right",
    "student, 10,000 samples": "after 10,000 {} %",
}
"""Row -> where its zero-shot stands."""
CASES = {
    "healthy": ("to {loss:.2f} (", "healthy: {same_text:.2f}", "healthy: {loss:.2f} at a scale of {logit_scale:.1f}"),
    "rate too high": ("loss {loss:.2f} of {guessing:.2f}, cosine {same_text:.2f}",),
    "every text wrong": ("the loss ends at {loss:.2f}",),
    "scale at its limit": ("loss {loss:.2f} (healthy",),
    "batches of two": ("loss {loss:.2f} of ln 2 = {guessing:.2f}",),
}


@pytest.fixture(scope="module")
def guide(repository) -> str:
    return " ".join((repository / "docs" / "when_it_does_not_learn.md").read_text("utf-8").split())


def test_what_the_guide_says_of_rows_is_recorded(guide):
    rows = recorded.read_rows()
    for row, words in ROWS.items():
        said = words.format(f"{100 * recorded.mean(rows, row):.1f}")
        assert said in guide, f"`{row}`: the guide should say {said!r}"
        assert f"`{row}`" in guide or row.startswith("lite-teacher") or row == "student, 10,000 samples"


def test_what_the_guide_says_of_failed_trainings_is_recorded(guide):
    found = {line["case"]: line for line in recorded.all_lines(recorded.results_folder()) if "case" in line}
    for case, phrases in CASES.items():
        for words in phrases:
            said = words.format(**found[case])
            assert said in guide, f"`{case}`: the guide should say {said!r}"
    chance = 2 / 120  # of 120 pictures one is right by luck, two are no more than that
    for case in ("rate too high", "every text wrong", "batches of two"):
        assert found[case]["zero_shot"] < chance


def test_every_other_number_of_the_guide_is_a_logarithm_or_in_the_lab_log(guide, repository):
    rows = recorded.read_rows()
    known = {f"{100 * recorded.mean(rows, row):.1f}" for row in ROWS}
    for line in (line for line in recorded.all_lines(recorded.results_folder()) if "case" in line):
        known |= {f"{line[key]:.2f}" for key in ("loss", "guessing", "same_text")} | {f"{line['logit_scale']:.1f}"}
    known |= {f"{math.log(batch):.2f}" for batch in (2, 32, 128, 256, 8_192)}
    log = (repository / "docs" / "lab_log.md").read_text("utf-8")
    strange = [
        number for number in re.findall(r"(?<![\w.])\d+\.\d+", guide) if number not in known and number not in log
    ]
    assert not strange, f"{strange}: neither recorded nor in the lab log"
    for number in ("857", "105", "668"):
        assert number in log
