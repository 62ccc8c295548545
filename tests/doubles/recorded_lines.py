"""Recorded lines of a study's row, made from hits alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from mobileclip2_lite.studies.claim import MEASURES
from mobileclip2_lite.studies.intervals import pack


def recorded_lines(row: str, hits: Iterable[np.ndarray]) -> list[dict[str, Any]]:
    """A line a seed; every measure has the same hits, one bool an item."""
    parts = [*MEASURES, "retrieval_i2t_r5", "retrieval_t2i_r5"]
    return [
        {
            "row": row,
            "seed": seed,
            "generation": "g",
            "recipe": "study",
            "samples": 10,
            "seconds": 1.0,
            "command": f"study {row}",
            "curve": {"samples": [10], "zero_shot": [float(own.mean())]},
            "metrics": dict.fromkeys(parts, float(own.mean())),
            "hits": dict.fromkeys(MEASURES, pack(own)),
            "items": dict.fromkeys(MEASURES, len(own)),
        }
        for seed, own in enumerate(hits)
    ]
