"""The law of accuracy over pairs or samples: fitted on the smaller runs, tried on the largest, which is held back.

The error of a model that learns from n samples is taken as `floor + size * n ** -power` with a floor of 0 or more (the
form of Hestness et al., arXiv 1712.00409). Three numbers want four points and more; with fewer the floor is left out.
The largest run is never fitted: what the law says of it, and by how much it is wrong, is the whole point.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

POWERS = np.linspace(0.02, 2.0, 199)


class Law(NamedTuple):
    """`error(n) = floor + size * n ** -power`."""

    floor: float
    size: float
    power: float
    residuals: tuple[float, ...]
    """Measured minus fitted error of each fitted point."""

    def error(self, n: float) -> float:
        """What the law says of `n`."""
        return self.floor + self.size * n**-self.power


class Extrapolation(NamedTuple):
    """The law of the smaller runs, and the largest run that tries it."""

    law: Law
    n: float
    said: float
    measured: float


def fit(n: Sequence[float], errors: Sequence[float]) -> Law:
    """The law of least squares.

    Args:
        n: pairs or samples of each run, at least two different ones.
        errors: 1 - accuracy of each.

    Raises:
        ValueError: fewer than two sizes, or not as many errors as sizes.
    """
    x, y = np.asarray(n, float), np.asarray(errors, float)
    if len(x) != len(y) or len(set(x)) < 2 or x.min() <= 0:
        raise ValueError(f"{len(x)} sizes and {len(y)} errors: two or more different positive sizes are wanted")
    best = None
    for power in POWERS:
        columns = [x**-power] + ([np.ones_like(x)] if len(set(x)) > 3 else [])
        matrix = np.stack(columns, axis=1)
        found = np.linalg.lstsq(matrix, y, rcond=None)[0]
        if len(found) > 1 and found[1] < 0:  # a floor below 0 is none
            matrix, found = matrix[:, :1], np.linalg.lstsq(matrix[:, :1], y, rcond=None)[0]
        residuals = y - matrix @ found
        if best is None or (residuals**2).sum() < (np.array(best.residuals) ** 2).sum():
            floor = float(found[1]) if len(found) > 1 else 0.0
            best = Law(floor, float(found[0]), float(power), tuple(residuals.tolist()))
    return best


def extrapolate(n: Sequence[float], errors: Sequence[float]) -> Extrapolation:
    """Fit all but the largest size, and say what the largest was.

    Raises:
        ValueError: as `fit`, of what is left.
    """
    x, y = np.asarray(n, float), np.asarray(errors, float)
    held = x == x.max()
    law = fit(x[~held], y[~held])
    return Extrapolation(law, float(x.max()), law.error(float(x.max())), float(y[held].mean()))
