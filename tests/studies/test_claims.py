"""The ledger: verdicts that a referee would sign, and a page that is what the lines say."""

import numpy as np
import pytest

from mobileclip2_lite.studies import claims, intervals, recorded
from mobileclip2_lite.studies.claims import CLAIMS, Claim, entries, judge
from mobileclip2_lite.studies.intervals import Interval
from mobileclip2_lite.studies.ledger import ledger
from mobileclip2_lite.studies.rows import ROWS, STUDIES

BETTER, WORSE, SAME = (Claim("c", "ours", "a", "b", sign=sign) for sign in (1, -1, 0))


@pytest.mark.parametrize(
    ("claim", "found", "verdict"),
    [
        (BETTER, Interval(0.05, 0.01, 0.09, 3), "agrees"),
        (BETTER, Interval(-0.05, -0.09, -0.01, 3), "disagrees"),
        (BETTER, Interval(0.05, -0.01, 0.11, 3), "cannot tell"),
        (BETTER, Interval(0.50, 0.49, 0.51, 2), "cannot tell"),  # two seeds are never agreement
        (BETTER, Interval(0.50, None, None, 1), "cannot tell"),
        (BETTER, None, "not tested"),
        (WORSE, Interval(-0.05, -0.09, -0.01, 3), "agrees"),
        (WORSE, Interval(0.05, 0.01, 0.09, 5), "disagrees"),
        (SAME, Interval(0.00, -0.01, 0.01, 3), "agrees"),
        (SAME, Interval(0.00, -0.05, 0.05, 3), "cannot tell"),
        (SAME, Interval(0.06, 0.03, 0.09, 3), "disagrees"),
        (SAME, Interval(0.015, 0.01, 0.03, 3), "cannot tell"),
    ],
)
def test_verdicts(claim, found, verdict):
    assert judge(claim, found) == verdict


def test_every_claim_names_rows_and_every_row_belongs_to_a_study():
    for claim in CLAIMS:
        assert bool(claim.first) == bool(claim.second)
        assert not claim.first or {claim.first, claim.second} <= set(ROWS)
        assert claim.measure in claims.MEASURES
    studied = {row for study in STUDIES.values() for row in study.rows.values()}
    assert studied == set(ROWS)
    for study in STUDIES.values():
        assert study.control in study.rows


def _lines(row, hits):
    return [
        {
            "row": row,
            "seed": seed,
            "generation": "g",
            "samples": 10,
            "seconds": 1.0,
            "command": f"study {row}",
            "metrics": dict.fromkeys(claims.MEASURES, float(own.mean())),
            "hits": dict.fromkeys(claims.MEASURES, intervals.pack(own)),
            "items": dict.fromkeys(claims.MEASURES, len(own)),
        }
        for seed, own in enumerate(hits)
    ]


def test_the_ledger_follows_its_lines():
    draw = np.random.default_rng(0)
    low, high = draw.random((3, 400)) < 0.2, draw.random((3, 400)) < 0.7
    found = [*_lines("+ captions", high), *_lines("control", low)]
    by_text = {(entry.claim.text, entry.claim.measure): entry for entry in entries(found)}
    entry = by_text["Synthetic captions help plain training", "zero_shot"]
    assert entry.verdict == "agrees"
    assert entry.found.mean == pytest.approx(high.mean() - low.mean())
    assert entry.command == "`study + captions` and `study control`"
    assert by_text["Distillation adds to captions", "zero_shot"].verdict == "not tested"
    text = ledger(found)
    assert "| + captions | 10 |" in text
    swapped = [*_lines("+ captions", low), *_lines("control", high)]
    assert "| disagrees |" in ledger(swapped)
    assert "| disagrees |" not in text
    few = [line for line in found if line["seed"] < 2]
    assert {entry.verdict for entry in entries(few)} == {"cannot tell", "not tested"}


def test_the_page_is_what_the_recorded_lines_say(repository):
    text = (repository / "docs" / "claims.md").read_text("utf-8")
    assert text == ledger(recorded.all_lines(recorded.results_folder())), "run: mobileclip2-lite claims"
