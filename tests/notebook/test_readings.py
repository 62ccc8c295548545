"""What a notebook says of recorded lines is written from the lines."""

from __future__ import annotations

import numpy as np
import pytest
from doubles.recorded_lines import recorded_lines

from mobileclip2_lite import notebook
from mobileclip2_lite.studies import recorded


def lines(row: str, share: float, seeds: int = 3, spread: float = 0.0) -> list[dict]:
    """A line a seed whose hits are `share` of 400 items, `spread` more and less from seed to seed."""
    hits = (np.arange(400) < round(400 * (share + spread * (seed - 1))) for seed in range(seeds))
    return recorded_lines(row, [np.random.default_rng(seed).permutation(some) for seed, some in enumerate(hits)])


def test_verdicts_are_read_in_sentences(tmp_path, capsys):
    recorded.append_rows(tmp_path, [*lines("control", 0.2), *lines("+ captions", 0.7), *lines("+ ensemble", 0.1, 1)])
    found = notebook.verdicts("help plain training", "helps distillation", "gated", results=tmp_path)
    said = capsys.readouterr().out
    assert found["Synthetic captions help plain training (zero-shot)"] == "agrees"
    assert "Our measurement **agrees** with “Synthetic captions help plain training” (zero-shot): +50.0 (" in said
    assert "points with 3 seeds." in said
    assert f"Of {len(found)} claims 2 agree with what is claimed, 0 disagree, 0 cannot be told with our seeds" in said
    notebook.verdicts("λ", results=tmp_path / "nothing")
    assert "Nothing is decided." in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"see docs/claims\.md"):
        notebook.verdicts("lunch", results=tmp_path)


def test_of_many_verdicts_that_agree_the_clearest_is_read(tmp_path, capsys):
    shares = {"control": 0.2, "+ captions": 0.4, "+ ensemble": 0.9, "control + web captions": 0.1}
    for row, share in shares.items():
        recorded.append_rows(tmp_path, lines(row, share, spread=0.01))
    found = notebook.verdicts("help plain training", "student's captions", results=tmp_path)
    said, counts = capsys.readouterr().out, list(found.values())
    assert counts.count("agrees") > 2
    assert f"The clearest of {counts.count('agrees')} that agree: Our measurement **agrees** with “" in said
    assert said.count("Our measurement **agrees**") == 1, "the others stand in the table"
    assert said.count("Our measurement **disagrees**") == counts.count("disagrees") > 0


def test_a_claim_that_the_lines_contradict_is_said_to_disagree(tmp_path, capsys):
    recorded.append_rows(tmp_path, [*lines("control", 0.6), *lines("+ captions", 0.2)])
    found = notebook.verdicts("synthetic captions help plain", results=tmp_path)
    assert set(found.values()) == {"disagrees"}
    assert "Our measurement **disagrees** with" in capsys.readouterr().out


def test_a_tally_counts_and_refuses_what_is_no_verdict(capsys):
    assert notebook.tally({"a": "agrees", "b": "cannot tell", "c": "agrees"})["agrees"] == 2
    assert "Of 3 claims 2 agree with what is claimed, 0 disagree, 1 cannot be told" in capsys.readouterr().out
    with pytest.raises(ValueError, match="perhaps: a verdict is one of agrees"):
        notebook.tally({"a": "perhaps"})


def test_a_study_says_what_is_highest_and_what_is_missing(tmp_path, capsys):
    assert notebook.study("ladder", results=tmp_path) == {}
    assert (
        "No line is recorded of “ladder”, so nothing is compared: `mobileclip2-lite study 'ladder'"
        in capsys.readouterr().out
    )
    recorded.append_rows(tmp_path, lines("control", 0.2, spread=0.01))
    assert notebook.study("ladder", results=tmp_path) == {}
    assert "Of “ladder” only control is recorded, so nothing is compared" in capsys.readouterr().out
    recorded.append_rows(tmp_path, lines("+ captions", 0.7, spread=0.01))
    means = notebook.study("ladder", results=tmp_path)
    said = capsys.readouterr().out
    assert means == pytest.approx({"+ captions": 0.7, "control": 0.2})
    assert "In zero-shot, top-1, **+ captions** is highest (70.0 %, 3 seeds), 50.0 points above control, more" in said
    assert "Not recorded: + distillation, + ensemble." in said
    with pytest.raises(KeyError, match="'lunch' is no study"):
        notebook.study("lunch")


@pytest.mark.parametrize(
    ("rival", "words"),
    [
        (lines("control", 0.68, spread=0.05), "less than the two spread over their seeds."),
        (lines("control", 0.2, seeds=1), "with too few seeds to rank them."),
    ],
)
def test_rows_that_are_not_told_apart_are_not_ranked(rival, words, tmp_path, capsys):
    recorded.append_rows(tmp_path, [*rival, *lines("+ captions", 0.7, spread=0.05)])
    notebook.study("ladder", results=tmp_path)
    assert words in capsys.readouterr().out


def test_the_recorded_scales_are_read(tmp_path, capsys):
    assert notebook.temperatures(results=tmp_path) == {}
    assert "study temperature --recipe study --record" in capsys.readouterr().out
    shares = {1: 0.1, 20: 0.6, 40: 0.58, 160: 0.2}
    for scale, share in shares.items():
        recorded.append_rows(tmp_path, lines(f"lite-teacher-conv at {scale}", share, spread=0.02))
    assert notebook.temperatures(results=tmp_path) == {"lite-teacher-conv": 20.0}
    said = capsys.readouterr().out
    assert "highest at logit scale **20** (60.0 % zero-shot), of 4 scales from 1 to 160, 3 seeds each" in said
    assert said.rstrip().endswith("within the seeds' spread of it: 40.")


def test_settings_that_are_not_told_from_the_best_are_at_the_top():
    sweep = {1: [0.2, 0.21, 0.22], 10: [0.68, 0.70, 0.69], 20: [0.70, 0.71, 0.69], 100: [0.6, 0.61, 0.59]}
    assert notebook.at_the_top(sweep) == [10, 20]
    assert notebook.at_the_top({1: [0.2], 20: [0.7]}) == [20], "one seed has no error"
