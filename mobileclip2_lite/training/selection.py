"""Active selection: of several batches, train on the pairs that the student finds hard and the teachers find easy.

ACID (arXiv 2411.18674; the score is JEST's, arXiv 2406.17711): a pair's learnability is the student's contrastive loss
of it less a reference model's, among all candidates. A wrong text is hard for both and a learned pair easy for both, so
neither is kept. The reference's half costs nothing here, because the teachers' embeddings are stored; the student's
half is one more forward pass of all candidates. Differs from ACID, which draws from the scores chunk by chunk: the best
are taken. Reads features, writes nothing. Each process selects among its own candidates.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from mobileclip2_lite.training.feeding import PreparedBatch, TextGroup, stacked
from mobileclip2_lite.training.row_losses import ensemble_target


@torch.no_grad()
def learnability(logits: Tensor, teacher_logits: Sequence[Tensor]) -> Tensor:
    """(N,) The student's loss of each pair among N less that of the teachers, both the mean of both directions.

    Args:
        logits: (N, N) the student's scaled similarities, images by texts.
        teacher_logits: (N, N) of each teacher; their probabilities are averaged, as in distillation.
    """
    student = _partner(F.log_softmax(logits, dim=1), F.log_softmax(logits, dim=0))
    forth, _ = ensemble_target(teacher_logits)
    back, _ = ensemble_target([matrix.T for matrix in teacher_logits])
    return student - _partner(forth.log(), back.T.log())


def _partner(forth: Tensor, back: Tensor) -> Tensor:
    """-log p(partner), the mean of image to text and text to image."""
    return -(forth.diagonal() + back.diagonal()) / 2


def best(scores: Tensor, count: int) -> Tensor:
    """The places of the `count` highest scores, in their order of place; of equal ones the first."""
    return scores.argsort(descending=True, stable=True)[:count].sort().values


def joined(parts: Sequence[PreparedBatch]) -> PreparedBatch:
    """Several batches as one; texts are padded to the longest."""
    first = parts[0]
    if len(parts) == 1:
        return first
    wrong = None
    if first.wrong_rows is not None:
        starts = itertools.accumulate([len(part.uids) for part in parts], initial=0)
        wrong = torch.cat([part.wrong_rows + start for part, start in zip(parts, starts, strict=False)])
    ids = [part.image_ids for part in parts]
    return PreparedBatch(
        uids=[uid for part in parts for uid in part.uids],
        images=torch.cat([part.images for part in parts]),
        groups=[_joined_group(groups) for groups in zip(*(part.groups for part in parts), strict=True)],
        teacher_images=_joined_tables([part.teacher_images for part in parts]),
        live_images=[torch.cat(images) for images in zip(*(part.live_images for part in parts), strict=True)],
        dropped=dict(sum((Counter(part.dropped) for part in parts), Counter())),
        image_ids=None if any(one is None for one in ids) else torch.cat(ids),
        wrong_tokens=None if wrong is None else stacked([part.wrong_tokens for part in parts]),
        wrong_rows=wrong,
    )


def _joined_group(groups: Sequence[TextGroup]) -> TextGroup:
    texts = [text for group in groups for text in group.texts]
    tokens = stacked([group.tokens for group in groups])
    return TextGroup(groups[0].name, texts, tokens, _joined_tables([group.teachers for group in groups]))


def _joined_tables(tables: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Teacher -> its rows of all parts; a part without a usable sample has none."""
    there = [table for table in tables if table]
    return {name: torch.cat([table[name] for table in there]) for name in (there[0] if there else ())}


def chosen(batch: PreparedBatch, rows: Tensor) -> PreparedBatch:
    """Some samples of a batch.

    Args:
        rows: int64 (M,), rising places.
    """
    places = rows.tolist()
    groups = [
        TextGroup(
            group.name,
            [group.texts[place] for place in places] if group.texts else [],
            group.tokens[rows],
            {name: table[rows] for name, table in group.teachers.items()},
        )
        for group in batch.groups
    ]
    change = {
        "uids": [batch.uids[place] for place in places],
        "images": batch.images[rows],
        "groups": groups,
        "teacher_images": {name: table[rows] for name, table in batch.teacher_images.items()},
        "live_images": [images[rows] for images in batch.live_images],
        "image_ids": None if batch.image_ids is None else batch.image_ids[rows],
    }
    if batch.wrong_rows is not None:
        kept = torch.isin(batch.wrong_rows, rows)
        change |= {
            "wrong_tokens": batch.wrong_tokens[kept],
            "wrong_rows": torch.searchsorted(rows, batch.wrong_rows[kept]),
        }
    return replace(batch, **change)
