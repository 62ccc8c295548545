"""Texts of a reader in figures: as they stand, and short."""

from __future__ import annotations

import io

from PIL import Image

from mobileclip2_lite.reports import figures
from mobileclip2_lite.reports.labels import literal, shortened


def test_texts_are_cut_at_words_and_an_endless_one_anywhere():
    assert shortened("a dog on a hill", 30) == "a dog on a hill"
    assert shortened("a dog on a hill in the rain", 12) == "a dog on a…"
    assert shortened("x" * 10_000, 12) == "x" * 11 + "…"
    assert shortened(" ", 12) == ""


def test_dollar_signs_are_no_formula():
    from matplotlib.cbook import is_math_text

    for text in ("it costs $5 and not $\\frac", "$x$", "one $"):
        assert not is_math_text(literal(text))
    price = "from $5 down to $\\frac"
    for made in (figures.images([Image.new("RGB", (8, 8))], [price]), figures.heatmap([[1.0]], [price], [price])):
        assert Image.open(io.BytesIO(figures.png(made))).width > 50
