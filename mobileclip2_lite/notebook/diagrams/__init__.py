"""Diagrams of ideas, drawn by code in one style (`strokes`): the `way` of a sample, and what `models` are asked.

Every function returns a figure. The station that a notebook is about is marked in `life_of_a_sample`.
"""

from mobileclip2_lite.notebook.diagrams.models import coca, distillation, repmixer, targets, two_towers
from mobileclip2_lite.notebook.diagrams.way import HOURS, STATIONS, cluster, life_of_a_sample, view_stored, who_pays

__all__ = [
    "HOURS",
    "STATIONS",
    "cluster",
    "coca",
    "distillation",
    "life_of_a_sample",
    "repmixer",
    "targets",
    "two_towers",
    "view_stored",
    "who_pays",
]
