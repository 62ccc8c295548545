"""Samples, seconds and laws from recorded lines: by hand, and where something was never reached."""

import math

import numpy as np
import pytest

from mobileclip2_lite.studies import effects, intervals


def line(seed, curve, samples=8_000, **more):
    points = [samples * step // len(curve) for step in range(1, len(curve) + 1)]
    metrics = {"zero_shot": curve[-1]}
    return {
        "seed": seed, "samples": samples, "curve": {"samples": points, "zero_shot": curve}, "metrics": metrics,
        "data": "reinforced", "recipe": "study", **more,
    }  # fmt: skip


PRICES = [
    {
        "stages": {"pairs": 9.0, "caption": 10.0, "reinforce": 20.0},
        "rates": {"control": 1.0, "+ captions": 1.5, "+ ensemble": 2.0, "live teachers": 8.0},
    }
]


def test_the_first_evaluation_that_is_there_counts():
    one = line(0, [0.1, 0.3, 0.2, 0.4])
    assert effects.reach(one, 0.1) == 2_000
    assert effects.reach(one, 0.15) == 4_000
    assert effects.reach(one, 0.2) == 4_000, "that it is lower later does not count"
    assert effects.reach(one, 0.5) is None


def test_the_control_is_not_charged_for_what_it_did_after_it_was_there():
    student, control = [line(0, [0.3, 0.4, 0.5, 0.6])], [line(0, [0.1, 0.3, 0.25, 0.2])]
    found = effects.samples_factor(student, control)
    assert found.mean == pytest.approx(math.log(4_000 / 2_000))
    assert (found.low, found.seeds, found.times) == (None, 1, True)


def test_seconds_count_the_price_as_often_as_it_is_paid():
    student = [line(seed, [0.3, 0.4], row="+ ensemble") for seed in range(3)]
    for row, seconds, paid in (("control, full", 8_000, 0), ("+ captions", 12_000, 10)):
        other = [line(seed, [0.1, 0.2], row=row) for seed in range(3)]
        for trainings in (math.inf, 1, 10):
            found = effects.seconds_factor(student, other, PRICES, trainings)
            factor = (seconds + paid / trainings) / (8_000 + 30 / trainings)
            assert math.exp(found.mean) == pytest.approx(factor)
            step = math.log(2) / 12**0.5  # equal seeds are not certain: each was read from a curve of few points
            assert found.mean - found.low == pytest.approx(4.303 * step / 3**0.5, rel=0.02)
        assert effects.seconds_factor(student, other, [], 1) is None


def test_a_student_that_is_never_there_has_no_interval():
    student = [line(0, [0.3, 0.4]), line(1, [0.3, 0.4]), line(2, [0.01, 0.02])]
    control = [line(seed, [0.1, 0.2]) for seed in range(3)]
    found = effects.samples_factor(student, control)
    assert (found.seeds, found.low, found.high) == (2, None, None)
    assert effects.samples_factor([line(5, [0.5])], control) is None


def _row(seeds, r5, r1, items=2_000):
    """Lines that keep the hits of R@1 alone: `r1` and `r5` of the scenes, one seed like the other."""
    hits = np.arange(items) < round(r1 * items)
    texts = hits.repeat(effects.CAPTIONS)
    kept = {"retrieval_i2t_r1": hits, "retrieval_t2i_r1": texts, "zero_shot": hits}
    return [
        {
            "seed": seed, "recipe": "study",
            "metrics": {"retrieval_i2t_r5": r5 + 0.001 * seed, "retrieval_t2i_r5": r5, "zero_shot": r1},
            "hits": {name: intervals.pack(own) for name, own in kept.items()},
            "items": {name: len(own) for name, own in kept.items()},
        }
        for seed in range(seeds)
    ]  # fmt: skip


def test_retrieval_is_judged_by_both_directions_and_knows_its_test_scenes():
    first, second = _row(3, 0.10, 0.04), _row(3, 0.06, 0.02)
    found = effects.difference(first, second, effects.RETRIEVAL)
    assert found.mean == pytest.approx(0.04)
    assert found.between == pytest.approx(0, abs=1e-9), "both rows move alike with the seed"
    one, largest = 0.02 * 0.98, 0.04 + 0.02 - 0.02**2  # of R@1: half of the hits are shared
    assert found.within == pytest.approx(((0.16 - 0.04**2) / 2_000 * one / largest) ** 0.5, rel=0.02)
    assert found.mean - found.low == pytest.approx(1.96 * found.within, rel=0.02)
    assert effects.difference(first, [], effects.RETRIEVAL) is None
    assert effects.difference(first, [{**second[0], "seed": 7}], effects.RETRIEVAL) is None


def test_a_row_guesses_as_long_as_luck_would_explain_it():
    assert effects.chance("study", effects.RETRIEVAL) == pytest.approx(0.0025, rel=0.01)
    assert effects.guesses(_row(3, 0.004, 0.0005), effects.RETRIEVAL)
    assert not effects.guesses(_row(3, 0.008, 0.0005), effects.RETRIEVAL)
    assert effects.guesses(_row(3, 0.0, 1 / 120), "zero_shot")


def test_pictures_of_one_name_are_one_item():
    """A name that is known or not, all its pictures at once: 120 items, not 2,400."""
    known = (np.arange(120) < 36).repeat(20).astype(float)
    pictures = _row(3, 0.1, 0.0)
    for line in pictures:
        line["hits"]["zero_shot"], line["items"]["zero_shot"] = intervals.pack(known), len(known)
    found = effects.standing(pictures, "zero_shot")
    assert found.within == pytest.approx((0.3 * 0.7 / 120) ** 0.5, rel=0.01)


def test_live_teachers_are_timed():
    found = effects.live_factor(PRICES * 3)
    assert math.exp(found.mean) == pytest.approx(4)
    assert effects.live_factor([]) is None


def test_a_law_is_tried_by_the_row_that_it_did_not_see():
    rows = [[line(seed, [1 - 20 * n**-0.5], n) for seed in range(3)] for n in (5_000, 10_000, 20_000)]
    last = [line(seed, [0.95], 40_000) for seed in range(3)]
    assert effects.law_of([*rows, last], "samples").said == pytest.approx(20 * 40_000**-0.5, rel=1e-3)
    miss = effects.law_miss([*rows, last], "samples")
    assert miss.mean == pytest.approx(0.95 - (1 - 20 * 40_000**-0.5), abs=1e-3)
    assert miss.high - miss.low < 1e-6
    assert effects.law_miss([*rows, []], "samples") is None


def test_pairs_are_counted_by_the_data():
    assert effects.size(line(0, [0.1], data="first 4000"), "pairs") == 4_000
    assert effects.size(line(0, [0.1]), "pairs") == 2_000
    assert effects.size(line(0, [0.1], samples=40_000), "samples") == 40_000
