"""Intervals: they hold what they say, pair what is shared, and refuse what they cannot know."""

import base64
import statistics

import numpy as np
import pytest

from mobileclip2_lite.studies.intervals import difference, interval, item_error, of_seeds, pack, unpack


def test_hits_survive_packing():
    hits = np.random.default_rng(0).random(1_003) < 0.03
    text = pack(hits)
    assert len(text) < 120, "most are misses"
    assert np.array_equal(unpack(text, 1_003), hits)
    with pytest.raises(ValueError, match="are not those of 900"):
        unpack(text, 900)
    with pytest.raises(ValueError, match="damaged"):
        unpack(text[:-8], 1_003)


def test_lines_that_were_packed_without_compression_are_read():
    hits = np.random.default_rng(1).random(100) < 0.3
    plain = base64.b64encode(np.packbits(hits).tobytes()).decode("ascii")
    assert np.array_equal(unpack(plain, 100), hits)


def test_one_number_a_seed_by_hand():
    found = of_seeds([0.1, 0.2, 0.3])
    assert found.mean == pytest.approx(0.2)
    assert found.high - found.mean == pytest.approx(4.303 * 0.1 / 3**0.5, rel=0.02)
    assert found.mean - found.low == pytest.approx(found.high - found.mean)
    assert of_seeds([0.1])[1:3] == (None, None)
    assert of_seeds([])[3] == 0


def _world(draw, seeds, items, effect=0.0):
    """Hits of a row whose seeds differ by 0.03 and whose items differ in difficulty."""
    chance = 0.5 + effect + 0.03 * draw.standard_normal((seeds, 1)) + 0.2 * draw.standard_normal((1, items))
    return (draw.random((seeds, items)) < chance).astype(float)


def test_an_interval_holds_the_truth_as_often_as_it_says():
    draw, held = np.random.default_rng(1), 0
    for _ in range(120):
        found = interval(_world(draw, 3, 300), draws=400)
        held += found.low <= 0.5 <= found.high
    assert 105 <= held <= 120  # of 95 %: 114 expected


def test_the_ends_are_as_far_from_the_mean_as_the_items_are_even():
    found = interval(_world(np.random.default_rng(3), 3, 600))
    assert found.high - found.mean == pytest.approx(found.mean - found.low, rel=0.05)


def test_more_seeds_narrow_it_and_one_seed_has_none():
    draw = np.random.default_rng(2)
    widths = [np.subtract(*interval(_world(draw, seeds, 600))[2:0:-1]) for seeds in (3, 12)]
    assert widths[1] < 0.6 * widths[0]
    alone = interval(_world(draw, 1, 50))
    assert (alone.low, alone.high, alone.seeds) == (None, None, 1)


def test_a_difference_is_paired_by_seed_and_item():
    draw = np.random.default_rng(3)
    base = _world(draw, 5, 2_000)
    better = np.maximum(base, draw.random(base.shape) < 0.02)  # one point more, on the same seeds and items
    paired = difference(dict(enumerate(better)), dict(enumerate(base)))
    assert paired.low > 0
    assert paired.high - paired.low < 0.012
    assert interval(base).high - interval(base).low > 0.05
    partly = difference({0: base[0], 7: base[1]}, dict(enumerate(base)))
    assert (partly.mean, partly.seeds) == (0.0, 1)
    assert difference({9: base[0]}, {0: base[0]}) is None


def test_captions_of_one_image_are_one_item():
    draw = np.random.default_rng(4)
    images = (draw.random((1, 200)) < 0.4).astype(float).repeat(3, axis=0)
    texts = images.repeat(5, axis=1)
    together, apart = interval(texts, groups=5), interval(texts)
    assert together.high - together.low == pytest.approx(interval(images).high - interval(images).low, rel=0.1)
    assert apart.high - apart.low < 0.6 * (together.high - together.low)
    with pytest.raises(ValueError, match="in groups of 3"):
        interval(np.zeros((2, 10)), groups=3)


def test_what_seeds_differ_by_is_their_sample_deviation():
    hits = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 0, 0]])
    assert interval(hits).between == pytest.approx(statistics.stdev([0.75, 0.25, 0.5]))


def test_rows_that_never_meet_have_the_largest_item_error():
    """By hand: a difference of +1, -1 and 0 has the variance p + q - (p - q)^2; two equal rows have none at all."""
    first, second = np.zeros((2, 10)), np.zeros((2, 10))
    first[:, :3], second[:, 3:5] = 1, 1
    error, largest = item_error(np.stack([first, second]))
    assert error == largest == pytest.approx(np.sqrt((0.5 - 0.1**2) / 10))
    assert item_error(np.stack([first, first])) == pytest.approx((0, np.sqrt(0.6 / 10)))
