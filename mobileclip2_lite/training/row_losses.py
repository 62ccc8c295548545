"""What one block of rows adds to a loss: softmax or sigmoid, with the teachers' mean probability as a target.

Paper: MobileCLIP, "multi-modal reinforced training". The mean of the teachers' KL terms has the gradient of one
cross-entropy with their mean probability; their mean negative entropy makes the values equal, too. Reads logits, writes
nothing; `losses.PairLoss` makes the blocks. Taught by notebooks/30_distillation_temperature.ipynb.

Shapes: B rows of a block, N rows of all processes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def softmax_rows(
    logits: Tensor, teacher_logits: Sequence[Tensor], start: int, same: Tensor | None = None, gated: bool = False
) -> tuple[Tensor, Tensor]:
    """Sums over rows of -log p(partner) and of mean_k KL(teacher k || student).

    Args:
        logits: (B, N) student's scaled similarities.
        teacher_logits: (B, N) of each teacher.
        start: the partner of row i is column start + i.
        same: (B, N) True for pairs that are no negatives in the contrast.
        gated: multiply -log p(partner) by the teachers' probability of the partner over their largest.
    """
    log_p = F.log_softmax(logits, dim=1)
    contrasted = log_p if same is None else F.log_softmax(logits.masked_fill(same, -torch.inf), dim=1)
    missed = -contrasted.diagonal(start)
    if not teacher_logits:
        return missed.sum(), missed.new_zeros(())
    target, negative_entropy = ensemble_target(teacher_logits)
    contrastive = (missed * belief(target, start)).sum() if gated else missed.sum()
    return contrastive, negative_entropy.sum() - (target * log_p).sum()


@torch.no_grad()
def belief(target: Tensor, start: int) -> Tensor:
    """(B,) How far the teachers believe in each row's partner: its probability over that of their favourite, 0 to 1.

    Args:
        target: (B, N) the teachers' mean probabilities.
        start: the partner of row i is column start + i.
    """
    return target.diagonal(start) / target.amax(dim=1)


@torch.no_grad()
def ensemble_target(teacher_logits: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The teachers' mean probabilities (B, N), and each row's mean of their negative entropies (B,)."""
    target = negative_entropy = None
    for logits in teacher_logits:
        log_q = F.log_softmax(logits, dim=1)
        q = log_q.exp()
        row = (q * log_q).sum(dim=1)
        target = q if target is None else target.add_(q)
        negative_entropy = row if negative_entropy is None else negative_entropy.add_(row)
    return target.div_(len(teacher_logits)), negative_entropy.div_(len(teacher_logits))


def sigmoid_rows(
    logits: Tensor, target: Tensor | None, start: int, same: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Sums over all pairs of binary cross-entropy with the identity, and of binary KL(target || student).

    Args:
        logits: (B, N) student's scaled and shifted similarities.
        target: (B, N) probabilities, or None.
        start: the partner of row i is column start + i.
        same: (B, N) True for pairs that are no questions in the contrast.
    """
    softplus = F.softplus(logits)  # -log(1 - p); and -log p = softplus - logits
    asked = softplus if same is None else softplus.masked_fill(same, 0)
    contrastive = asked.sum() - logits.diagonal(start).sum()
    if target is None:
        return contrastive, contrastive.new_zeros(())
    negative_entropy = torch.special.xlogy(target, target) + torch.special.xlogy(1 - target, 1 - target)
    return contrastive, (negative_entropy + softplus - target * logits).sum()


@torch.no_grad()
def column_norms(scale: float, images: Tensor, texts: Tensor, chunk: int) -> Tensor:
    """(N,) log of each text's softmax denominator over all images."""
    size = chunk or len(texts)
    return torch.cat([(scale * texts[i : i + size] @ images.T).logsumexp(dim=1) for i in range(0, len(texts), size)])
