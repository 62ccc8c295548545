"""Texts of a reader in a figure: as they stand, and short enough to leave room for what is drawn.

Used by `figures`, and where a notebook draws names or captions that somebody typed.
"""

from __future__ import annotations

import textwrap


def literal(text: str) -> str:
    """A text as it stands: without this, matplotlib takes what is between two dollar signs for a formula."""
    return text.replace("$", r"\$")


def shortened(text: str, width: int) -> str:
    """The first words of a text that fit into `width` characters, as it stands; of one endless word its beginning."""
    words = textwrap.shorten(text, width, placeholder="…")
    return literal(f"{text.strip()[: width - 1]}…" if words == "…" else words)
