"""Captions made wrong in one place, which an image must score lower than the right one.

Contrast among a batch never asks which object has which colour or stands where, because no other caption of the batch
has the same words in another order: models guess at both. Here two colours of a caption change places, or a relation is
turned into its contrary, and the image has to prefer the caption as it was (NegCLIP, arXiv 2210.01936, SugarCrepe's
trouble). The paper has no such loss; weights and shares are ours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "grey", "gray", "white", "black")
MIRRORED = {
    "to the left of": "to the right of",
    "to the right of": "to the left of",
    "above": "below",
    "below": "above",
}
_SAME = {"gray": "grey"}
_COLOUR = re.compile(rf"\b({'|'.join(COLOURS)})\b", re.IGNORECASE)
_RELATION = re.compile(rf"\b({'|'.join(MIRRORED)})\b", re.IGNORECASE)


def negated(text: str) -> str | None:
    """`text` with its first two different colours exchanged, or else its relations mirrored; None if it has neither.

    The colour of a background counts like an object's. A caption that only speaks of one object is left alone. Words
    count in capitals, too, and what takes their place is written as they were; `grey` and `gray` are one colour.
    """
    colours = list(dict.fromkeys(map(_colour, _COLOUR.findall(text))))
    if len(colours) > 1:
        other = {colours[0]: colours[1], colours[1]: colours[0]}
        return _COLOUR.sub(lambda found: _written_like(found[0], other.get(_colour(found[0]), found[0])), text)
    if _RELATION.search(text):
        return _RELATION.sub(lambda found: _written_like(found[0], MIRRORED[found[0].lower()]), text)
    return None


def _colour(word: str) -> str:
    """The colour that a word names, however it is written."""
    return _SAME.get(word.lower(), word.lower())


def _written_like(word: str, other: str) -> str:
    """`other` in capitals where `word` is, or with a capital where it has one."""
    return other.upper() if word.isupper() else other[0].upper() + other[1:] if word[0].isupper() else other


def negatives(texts: Sequence[str]) -> tuple[list[str], Tensor]:
    """The wrong captions that `texts` allow, and int64 (M,) the place of each one's right caption."""
    made = [(place, wrong) for place, text in enumerate(texts) if (wrong := negated(text)) is not None]
    return [wrong for _, wrong in made], torch.tensor([place for place, _ in made], dtype=torch.long)


def preference(images: Tensor, right: Tensor, wrong: Tensor, scale: Tensor) -> Tensor:
    """Sum over M of -log p(right), where an image chooses between its right and its wrong caption.

    Args:
        images, right, wrong: (M, D) features of length 1.
        scale: the student's logit scale.
    """
    return F.softplus(scale * (images * (wrong - right)).sum(dim=1)).sum()
