"""The ledger: verdicts that a referee would sign, and a page that is what the lines say."""

import numpy as np
import pytest
from doubles.recorded_lines import recorded_lines

from mobileclip2_lite.studies import claim as words
from mobileclip2_lite.studies import effects, paper, recorded
from mobileclip2_lite.studies.claim import MEASURES, ZERO, Claim
from mobileclip2_lite.studies.claims import CLAIMS
from mobileclip2_lite.studies.effects import RETRIEVAL, chance
from mobileclip2_lite.studies.hills import hill, section
from mobileclip2_lite.studies.intervals import Interval, pack
from mobileclip2_lite.studies.ledger import ledger, shown_effect
from mobileclip2_lite.studies.questions import STUDIES
from mobileclip2_lite.studies.rows import HILLS, PRICE, ROWS
from mobileclip2_lite.studies.verdicts import KINDS, MARGIN, entries, judge, margin_of, standing

BETTER, WORSE, SAME, NO_BETTER = (
    Claim("c", "ours", "a", "b", says=says) for says in ("better", "worse", "same", "no better")
)


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
        (NO_BETTER, Interval(-0.20, -0.30, -0.10, 3), "agrees"),  # worse is no better
        (NO_BETTER, Interval(0.01, 0.005, 0.015, 3), "agrees"),
        (NO_BETTER, Interval(0.01, -0.02, 0.04, 3), "cannot tell"),
        (NO_BETTER, Interval(0.05, 0.03, 0.07, 3), "disagrees"),
    ],
)
def test_verdicts(claim, found, verdict):
    assert judge(claim, found) == verdict


def test_every_claim_names_rows_and_every_row_belongs_to_a_study():
    for claim in CLAIMS:
        rows = {claim.first, claim.second, *claim.fitted}
        assert rows - set(ROWS) <= ({""} if claim.fitted else set())
        assert claim.kind in KINDS
        assert bool(claim.fitted) == claim.kind.startswith("law")
        assert claim.measure in MEASURES
    keys = [(claim.text, claim.measure, claim.first, claim.second) for claim in CLAIMS]
    assert len(set(keys)) == len(keys)
    studied = {row for study in STUDIES.values() for row in study.rows.values()}
    assert studied == set(ROWS)
    for study in STUDIES.values():
        assert study.control in study.rows


def test_the_ledger_follows_its_lines():
    draw = np.random.default_rng(0)
    low, high = draw.random((3, 400)) < 0.2, draw.random((3, 400)) < 0.7
    found = [*recorded_lines("+ captions", high), *recorded_lines("control", low)]
    by_text = {(entry.claim.text, entry.claim.measure): entry for entry in entries(found)}
    entry = by_text["Synthetic captions help plain training", "zero_shot"]
    assert entry.verdict == "agrees"
    assert entry.found.mean == pytest.approx(high.mean() - low.mean())
    assert entry.command == "`study + captions` and `study control`"
    assert by_text["Synthetic captions help plain training", RETRIEVAL].verdict == "agrees"
    assert by_text["Distillation adds to captions", "zero_shot"].verdict == "not tested"
    text = ledger(found)
    assert "| + captions | 10 |" in text
    assert "| MobileCLIP, components | +7.4 | zero-shot |" in text
    swapped = [*recorded_lines("+ captions", low), *recorded_lines("control", high)]
    assert "| disagrees |" in ledger(swapped)
    assert "| disagrees |" not in text
    few = [line for line in found if line["seed"] < 2]
    assert {entry.verdict for entry in entries(few)} == {"cannot tell", "not tested"}
    assert "of 3 seeds 2" in {entry.note for entry in entries(few)}


def test_rows_that_guess_decide_nothing_of_each_other():
    """Half a point between two rows at chance, seed by seed the same, is no finding."""
    guessed = chance("study", "zero_shot")
    assert guessed == pytest.approx(1 / 120)
    low, high = (np.tile(np.arange(2_400) < count, (3, 1)) for count in (16, 28))  # 0.7 and 1.2 % of 0.8
    (found,) = entries(
        [*recorded_lines("+ captions", high), *recorded_lines("control", low)], [_claim("+ captions", "control")]
    )
    assert (found.verdict, found.note) == ("cannot tell", "both rows guess")
    better = np.tile(np.arange(2_400) % 40 < 6, (3, 1))  # 15 %, of every name
    (found,) = entries(
        [*recorded_lines("+ captions", better), *recorded_lines("control", low)], [_claim("+ captions", "control")]
    )
    assert found.verdict == "agrees", "one row that guesses beside one that does not is a finding"


def _claim(first, second):
    return next(claim for claim in CLAIMS if (claim.first, claim.second, claim.measure) == (first, second, ZERO))


def test_what_stands_stands_among_all_claims():
    """Benjamini and Hochberg's own kind of example: p is held against its rank."""
    assert standing([0.001, 0.008, 0.039, 0.041, 0.042, 0.06]) == 0.008
    assert standing([0.04]) == 0.04
    assert standing([0.04, 0.9, 0.9]) == 0.0
    assert standing([0.04, 0.045, 0.05]) == 0.05, "together they may stand where the first alone would not"
    assert standing([]) == 0.0


def test_a_claim_that_is_clear_alone_is_not_decided_among_many(monkeypatch):
    """One effect of p = 0.04 beside many of none."""
    draw, rows = np.random.default_rng(0), {}
    base = draw.random((3, 2_400)) < 0.3
    wanted = {row for claim in CLAIMS for row in (claim.first, claim.second) if claim.kind == "difference"}
    for row in wanted:
        noise = base.copy()
        for seed, share in enumerate(draw.permutation([0.02, 0.0, -0.02])):
            changed = draw.permutation(2_400)[: round(abs(share) * 2_400)]
            noise[seed, changed] = share > 0
        rows[row] = noise
    one = base.copy()
    for seed, more in enumerate((0.05, 0.07, 0.10)):
        one[seed] = rows["control"][seed] | (draw.random(2_400) < more / 0.7)
    rows["+ captions"] = one
    lines = [line for row, hits in rows.items() for line in recorded_lines(row, hits)]
    claim = _claim("+ captions", "control")
    by_claim = {entry.claim: entry for entry in entries(lines)}
    assert judge(claim, by_claim[claim].found) == "agrees"
    assert by_claim[claim].verdict == "cannot tell"
    assert by_claim[claim].note.startswith("clear alone, not among ")
    assert " seeds" in by_claim[claim].note
    assert entries(lines, [claim])[0] == by_claim[claim], "whichever are asked for, all are in the family"


def test_what_is_said_to_be_a_paper_s_is_what_its_table_says():
    """The sign of a paper's own effect is what is claimed of it, and its size is in the table."""
    cells = [[cell for cell in row if isinstance(cell, float)] for _, rows in paper.PAPER.values() for row in rows]
    numbers = {value for row in cells for value in row}
    differences = {round(one - other, 1) for one in numbers for other in numbers}
    for claim in CLAIMS:
        if claim.source == words.OURS:
            assert claim.theirs is None, claim.text
        if claim.theirs is None or claim.kind != "difference":
            continue
        assert claim.theirs in differences or -claim.theirs in differences, claim
        right = {
            "better": claim.theirs > 0, "worse": claim.theirs < 0, "same": abs(claim.theirs) < 0.5,
            "no better": claim.theirs < 0.5,
        }  # fmt: skip
        assert right[claim.says], claim


def test_a_margin_is_no_larger_than_a_fifth_of_the_level():
    low, high = ([{"metrics": {"zero_shot": level}}] for level in (0.02, 0.5))
    assert margin_of(low, "zero_shot") == pytest.approx(0.004)
    assert margin_of(high, "zero_shot") == MARGIN
    assert judge(SAME, Interval(0, -0.01, 0.01, 3), margin_of(low, "zero_shot")) == "cannot tell"


def _curves(row, ends, samples=8_000):
    """A row whose curve rises evenly to its end."""
    lines = recorded_lines(row, [np.random.default_rng(seed).random(400) < end for seed, end in enumerate(ends)])
    for line, end in zip(lines, ends, strict=True):
        points = [samples * step // 4 for step in range(1, 5)]
        line |= {"samples": samples, "recipe": "study", "data": "reinforced"}
        line["metrics"]["zero_shot"] = end
        line["curve"] = {"samples": points, "zero_shot": [end * n / samples for n in points]}
    return lines


def _prices(seeds=3):
    return [
        {"row": PRICE, "seed": seed, "generation": "g", "pairs": 2_000, "command": "study price",
         "stages": {"pairs": 1.0, "caption": 30.0, "reinforce": 50.0},
         "rates": {"control": 0.004, "+ captions": 0.004, "+ ensemble": 0.005, "live teachers": 0.02}}
        for seed in range(seeds)
    ]  # fmt: skip


def test_factors_and_laws_stand_in_the_ledger():
    rows = [*_curves("+ ensemble", [0.4, 0.4, 0.44]), *_curves("+ captions", [0.1, 0.1, 0.1], 16_000)]
    found = {entry.claim.kind: entry for entry in entries([*rows, *_prices()]) if entry.claim.kind != "difference"}
    assert found["samples"].verdict == "agrees"
    assert shown_effect(found["samples"].found).startswith("× 8 (")
    assert shown_effect(found["seconds"].found).startswith("× 6.4 (")
    assert shown_effect(found["all seconds"].found).startswith("× 1 ("), "64 + 30 s against 10 + 80 s"
    assert shown_effect(found["shared seconds"].found).startswith("× 3.7 ("), "64 + 3 s against 10 + 8 s"
    assert shown_effect(found["live"].found) == "× 4 (4 to 4)"
    assert "to 10.0 % on the validation split" in found["samples"].note
    text = ledger([*rows, *_prices()])
    assert "caption 30, reinforce 50" in text
    assert "| samples to that zero-shot | × 8 (" in text
    without = {entry.claim.kind: entry.verdict for entry in entries(rows)}
    assert without["all seconds"] == without["live"] == "not tested"
    sizes = [(f"student, {n:,} samples", n) for n in (10_000, 14_000, 28_000)] + [("student, full", 40_000)]
    law = [line for row, n in sizes for line in _curves(row, [1 - 20 * n**-0.5] * 3, n)]
    twenty = _curves("+ ensemble", [1 - 20 * 20_000**-0.5] * 3, 20_000)
    text = ledger([*law, *twenty])
    assert "| samples | 0.00 + 20 n^-0.50 |" in text
    assert "| 40,000 | 90.0 | 9" in text


def test_the_page_is_what_the_recorded_lines_say(repository):
    text = (repository / "docs" / "claims.md").read_text("utf-8")
    assert text == ledger(recorded.all_lines(recorded.results_folder())), "run: mobileclip2-lite claims"


def test_what_the_readme_says_in_short_is_what_the_ledger_says(repository):
    """Its statements, each by the verdicts that it stands on."""
    lines = recorded.all_lines(recorded.results_folder())
    ledger = entries(lines)
    plain = [entry for entry in ledger if entry.claim.kind == "difference"]
    text = " ".join((repository / "README.md").read_text("utf-8").split())
    found = {(entry.claim.first, entry.claim.second, entry.claim.measure): entry.verdict for entry in plain}
    opponents = ("control", "control, full", "control + annotated pairs", "+ captions")
    assert "at naming images the student beats every opponent" in text
    assert {found["+ ensemble", opponent, ZERO] for opponent in opponents} == {"agrees"}
    assert "plain training that may also read the captioners' clean pairs **beats the student**" in text
    assert found["+ ensemble", "control + annotated pairs", RETRIEVAL] == "disagrees"
    rows = recorded.by_row(lines)
    levels = (100 * effects.standing(rows[row], RETRIEVAL).mean for row in ("control + annotated pairs", "+ ensemble"))
    said = "(R@5 {:.1f} % against {:.1f})".format(*levels)
    assert said in text, f"README should say {said}"
    assert "captions and distillation each add, a second teacher does not show" in text
    assert found["+ captions", "control", ZERO] == found["+ distillation", "+ captions", ZERO] == "agrees"
    assert found["+ ensemble", "+ distillation", ZERO] == "cannot tell"
    assert "three captioners are better at retrieval than three captions of one" in text
    assert found["+ ensemble", "captions: short, 3 each", RETRIEVAL] == "disagrees"  # with that they are no better
    assert "a filtered web makes plain training better at naming" in text
    assert found["control, filtered", "control", ZERO] == "agrees"
    assert "strong augmentation, which the paper wants with distillation, costs the student 21 points" in text
    assert found["student, strong views", "+ ensemble", ZERO] == "disagrees"
    strong = next(entry for entry in plain if entry.claim.first == "student, strong views")
    assert -0.22 < strong.found.mean < -0.21
    price = {entry.claim.kind: entry for entry in ledger if entry.claim.second in ("live teachers", "control, full")}
    live, soon, shared = (f"{np.exp(price[kind].found.mean):.1f}" for kind in ("live", "seconds", "shared seconds"))
    assert f"costs {live} times less time than one with teachers that run along, as in the paper;" in text
    assert price["live"].claim.theirs == float(live)
    assert f"the student reaches {soon} times as soon, {shared} times where ten trainings share the price" in text
    decided = [price[kind].verdict for kind in ("live", "seconds", "shared seconds", "all seconds")]
    assert decided == ["agrees", "agrees", "agrees", "cannot tell"]


def test_a_hill_names_its_top_and_what_cannot_be_told_from_it():
    named = HILLS["conv"]
    sure = np.tile([1.0] * 3 + [0.0], 100)  # 75 % right, alike for every seed
    lines = [
        {**line, "seed": seed, "generation": "g", "recipe": "study", "metrics": {"zero_shot": float(hits.mean())}}
        for seed in range(3)
        for scale, hits in ((5, np.zeros(400)), (20, sure), (80, np.roll(sure, 1)))
        for line in [{"row": named[scale], "hits": {"zero_shot": pack(hits)}, "items": {"zero_shot": 400}}]
    ]
    made = hill(recorded.by_row(lines), named)
    assert (made.best, made.near, made.seeds) == (20, (80,), 3)
    assert made.means == {5: 0.0, 20: 0.75, 80: 0.75}
    header, table = section(lines)
    assert table == [["conv", "", "", "0.0", "", "75.0", "", "75.0", "", "20", "80", "3"]]
    assert len(header) == len(table[0])
    assert hill(recorded.by_row(lines[:1]), named) is None, "one scale is no hill"
    assert section([]) is None
