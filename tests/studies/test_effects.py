"""Samples, seconds and laws from recorded lines: by hand, and where something was never reached."""

import math

import pytest

from mobileclip2_lite.studies import effects


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
            assert math.exp(found.low) == pytest.approx(factor)
        assert effects.seconds_factor(student, other, [], 1) is None


def test_a_student_that_is_never_there_has_no_interval():
    student = [line(0, [0.3, 0.4]), line(1, [0.3, 0.4]), line(2, [0.01, 0.02])]
    control = [line(seed, [0.1, 0.2]) for seed in range(3)]
    found = effects.samples_factor(student, control)
    assert (found.seeds, found.low, found.high) == (2, None, None)
    assert effects.samples_factor([line(5, [0.5])], control) is None


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
