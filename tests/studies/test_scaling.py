"""A planted law is found, and the held-back run is said from the others alone."""

import numpy as np
import pytest

from mobileclip2_lite.studies.scaling import extrapolate, fit

N = np.array([1_000, 2_000, 4_000, 8_000, 16_000, 64_000], float)


def test_a_planted_law_is_found():
    law = fit(N, 0.1 + 30 * N**-0.5)
    assert (law.floor, law.size, law.power) == pytest.approx((0.1, 30, 0.5), rel=1e-6)
    assert max(map(abs, law.residuals)) < 1e-9
    assert law.error(4_000) == pytest.approx(0.1 + 30 * 4_000**-0.5)


def test_two_or_three_sizes_have_no_floor():
    law = fit(N[:3], 8 * N[:3] ** -0.4)
    assert (law.floor, law.size, law.power) == pytest.approx((0, 8, 0.4), rel=1e-6)


def test_a_floor_is_never_below_zero():
    assert fit(N, 5 * N**-0.3 - 0.02).floor >= 0


def test_the_largest_run_is_not_looked_at():
    errors = 0.05 + 20 * N**-0.45
    errors[-1] = 0.9  # a surprise
    found = extrapolate(N, errors)
    assert found.said == pytest.approx(0.05 + 20 * 64_000**-0.45, rel=1e-3)
    assert found.measured == 0.9


def test_too_little_is_an_error():
    with pytest.raises(ValueError, match="two or more different"):
        fit([1_000, 1_000], [0.5, 0.4])
    with pytest.raises(ValueError, match="1 sizes and 1 errors"):
        extrapolate([1_000, 2_000], [0.5, 0.4])
