"""Embeddings whose first dimensions are embeddings too: the pair loss on nested cuts (Matryoshka, arXiv 2205.13147).

The paper does not have it; people who search ask for it: an index of 16 dimensions is an eighth of one of 128. Student
features are cut, the teachers' stored embeddings stay whole, so that nothing is reinforced anew. Reads features, writes
nothing. Taught by notebooks/60_deploy.ipynb.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mobileclip2_lite.models.loaded import first_dimensions
from mobileclip2_lite.training.losses import Loss, Rows


def cut(rows: Rows, dimensions: int) -> Rows:
    """The first `dimensions` of each row, of length 1 again."""
    local = first_dimensions(rows.local, dimensions)
    every = local if rows.all is rows.local else first_dimensions(rows.all, dimensions)
    return Rows(local, every, rows.start)


def nested_loss(loss: Callable[[Rows, Rows], Loss], image: Rows, text: Rows, dimensions: Sequence[int] = ()) -> Loss:
    """The mean of a loss over whole features and their cuts; its parts are those of the whole ones.

    Args:
        loss: of image and text rows.
        image, text: the student's features (B, D), of length 1.
        dimensions: how many first dimensions each cut keeps; () takes whole features alone.

    Raises:
        ValueError: a cut does not keep fewer dimensions than there are, or none.
    """
    whole = loss(image, text)
    if not dimensions:
        return whole
    size = image.local.shape[1]
    if bad := [d for d in dimensions if not 0 < d < size]:
        raise ValueError(f"nested={tuple(dimensions)}: {bad} do not lie between 1 and the features' {size} dimensions")
    total = whole.total
    for d in dimensions:
        total = total + loss(cut(image, d), cut(text, d)).total
    return Loss(total / (1 + len(dimensions)), whole.parts)
