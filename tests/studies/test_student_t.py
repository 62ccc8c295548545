"""Student's t against the tables, and against drawing; how many seeds an answer takes."""

import math

import numpy as np
import pytest

from mobileclip2_lite.studies.student_t import MOST, degrees_of, enough_items, inside, quantile, seeds_wanted

TABLE = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 9: 2.262, 10: 2.228, 30: 2.042, 1_000: 1.962}


@pytest.mark.parametrize(("degrees", "t"), TABLE.items())
def test_shares_and_quantiles_are_those_of_the_table(degrees, t):
    assert inside(t, degrees) == pytest.approx(0.95, abs=1e-4)
    assert inside(-t, degrees) == inside(t, degrees)
    assert quantile(0.975, degrees) == pytest.approx(t, abs=6e-4)
    assert inside(0, degrees) == 0


def test_shares_are_those_of_draws():
    draws = np.abs(np.random.default_rng(0).standard_t(7, 200_000))
    for t in (0.3, 1.0, 2.5):
        assert inside(t, 7) == pytest.approx((draws < t).mean(), abs=5e-3)


def test_items_that_vary_more_than_seeds_give_more_degrees():
    assert degrees_of(1.0, 0.0, 3) == 2
    assert degrees_of(1.0, 10.0, 3) > 100
    assert degrees_of(0.0, 1.0, 3) == 1_000


def test_so_many_seeds_tell_so_large_an_effect_in_four_of_five_studies():
    draw = np.random.default_rng(1)
    seeds = seeds_wanted(1.0, 1.0, 0.0)
    found = draw.normal(1.0, 1.0, (4_000, seeds))
    t = found.mean(axis=1) / (found.std(axis=1, ddof=1) / math.sqrt(seeds))
    assert (t > quantile(0.975, seeds - 1)).mean() == pytest.approx(0.8, abs=0.06)


def test_a_small_effect_takes_more_seeds_and_one_below_the_items_error_has_none():
    counts = [seeds_wanted(distance, 1.0, 0.0) for distance in (8.0, 2.0, 1.0, 0.6)]
    assert counts == sorted(counts)
    assert counts[0] == 3
    assert counts[-1] <= MOST
    assert seeds_wanted(0.1, 1.0, 0.0) is None
    assert seeds_wanted(1.0, 0.1, 1.0) is None, "more seeds do not lessen what the items add"
    assert not enough_items(1.0, 0.4)
    assert enough_items(1.0, 0.3), "2.8 times 0.3 is below 1"
