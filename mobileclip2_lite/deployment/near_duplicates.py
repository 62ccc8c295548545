"""Images that are the same: groups of features that lie close together, directly or by way of others.

Compares every image with every other, block by block, so that memory does not grow with the square of their number.
Reads features, writes nothing. The paper has no such program. Taught by notebooks/80_your_own_data.ipynb.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mobileclip2_lite.deployment.image_files import Entry


def groups(
    entries: Sequence[Entry], features: np.ndarray, least: float = 0.95, block: int = 2_048
) -> list[list[Entry]]:
    """Groups of images whose features have a cosine of at least `least`, directly or by way of others.

    The largest files come first in a group, and the largest groups first.

    Args:
        entries: N images.
        features: (N, D), of length 1.
        least: cosine from which two images count as the same; 0.95 finds crops and other encodings, 0.999 copies.
        block: rows compared at a time; it does not change the result.
    """
    found: dict[int, list[Entry]] = {}
    for label, entry in zip(_labels(features, least, block).tolist(), entries, strict=True):
        found.setdefault(label, []).append(entry)
    several = [sorted(one, key=lambda entry: (-entry.size, entry.name)) for one in found.values() if len(one) > 1]
    return sorted(several, key=lambda one: (-len(one), one[0].name))


def usual(features: np.ndarray, most: int = 1_000) -> float:
    """The median cosine of two different images: where a threshold must lie well above to tell copies from others.

    Args:
        features: (N, D), of length 1; N is at least 2.
        most: images to look at, from all over the folder.
    """
    some = np.asarray(features[:: -(-len(features) // most)])
    return float(np.median((some @ some.T)[np.triu_indices(len(some), 1)]))


def _labels(features: np.ndarray, least: float, block: int) -> np.ndarray:
    """(N,) the lowest row of each row's group: what a row meets takes one label, however many rows that joins."""
    labels = np.arange(len(features))
    for start in range(0, len(features), block):
        same = np.asarray(features[start : start + block]) @ np.asarray(features[start:]).T >= least
        for row in np.flatnonzero(same.any(axis=1)):
            met = np.unique(labels[start + np.append(np.flatnonzero(same[row]), row)])
            if len(met) > 1:
                labels[np.isin(labels, met)] = met[0]
    return labels
