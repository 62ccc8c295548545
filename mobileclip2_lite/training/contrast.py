"""The loss of one batch of which each process holds a share, from the towers' features on.

Paper: (view, real caption) and (view, synthetic caption) are contrasted apart and their losses summed, over one pass of
each tower. Reads features, writes nothing. Every process's part adds up to the whole batch's loss. Taught by
notebooks/40_reinforced_training.ipynb.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from mobileclip2_lite.models.card import TeacherCard
from mobileclip2_lite.recipes import Train
from mobileclip2_lite.training.distributed import Processes
from mobileclip2_lite.training.feeding import REAL, PreparedBatch
from mobileclip2_lite.training.hard_negatives import preference
from mobileclip2_lite.training.losses import PairLoss, Rows
from mobileclip2_lite.training.nested import nested_loss


class Contrast:
    """The losses of a student's batches.

    Args:
        settings: the recipe's part.
        pair_loss: of one group of pairs.
        model: whose logit scale and bias are learned with it.
        processes: who holds the batch.
    """

    def __init__(self, settings: Train, pair_loss: PairLoss, model: nn.Module, processes: Processes) -> None:
        self.settings, self.pair_loss, self.model, self.processes = settings, pair_loss, model, processes
        self.device = processes.device

    def __call__(
        self, batch: PreparedBatch, weight: float, losses: dict[str, Tensor]
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """The loss of image features (B, D) and all text groups' (sum of B, D), whose parts it adds to `losses`."""
        counts = self.processes.counts(len(batch.uids))
        ids = self._image_ids(batch, counts)

        def total(image_features: Tensor, text_features: Tensor) -> Tensor:
            scale = self.model.logit_scale.float().exp()
            bias = getattr(self.model, "logit_bias", None)
            images = self.processes.rows(image_features, counts)
            image_targets = self.processes.embeddings(batch.teacher_images, counts)
            value = torch.zeros((), device=self.device)
            features = text_features.split([len(tokens) for tokens in batch.tokens])
            for group, own in zip(batch.groups, features[: len(batch.groups)], strict=True):
                text_targets = self.processes.embeddings(group.teachers, counts)
                texts = self.processes.rows(own, counts)
                others = scale, image_targets, text_targets, bias, ids
                one = nested_loss(lambda i, t, o=others: self.pair_loss(i, t, *o), images, texts, self.settings.nested)
                value = value + weight * one.total
                name = "" if group.name == REAL else f"_{group.name}"
                losses.update({f"{part}{name}": weight * share for part, share in one.parts.items()})
            if self.settings.hard_negatives:
                hard = weight * self._preference(
                    batch, image_features, features[len(batch.groups) - 1], features[-1], scale
                )
                losses["hard_negatives"] = hard.detach()
                value = value + self.settings.hard_negatives * hard
            return value

        return total

    def _preference(self, batch: PreparedBatch, images: Tensor, right: Tensor, wrong: Tensor, scale: Tensor) -> Tensor:
        """This process's share of the mean preference of right captions over wrong ones."""
        rows = batch.wrong_rows
        counted = self.processes.sum(torch.tensor([len(rows)], device=self.device)).clamp(min=1)[0]
        return preference(images[rows], right[rows], wrong, scale) / counted

    def _image_ids(self, batch: PreparedBatch, counts: list[int]) -> Rows | None:
        """Which rows of all processes hold the same image; None where the one process sees that none do."""
        if batch.image_ids is None:
            return None
        alone = self.processes.size == 1 and self.device.type == "cpu"
        if alone and len(batch.image_ids.unique()) == len(batch.image_ids):
            return None
        return self.processes.rows(batch.image_ids, counts)


def pair_loss(settings: Train, teachers: Mapping[str, TeacherCard]) -> PairLoss:
    """The loss that `settings` describes, with each teacher's own scale and, in its sigmoid form, bias."""
    biases = {name: card.logit_bias for name, card in teachers.items() if card.logit_bias is not None}
    return PairLoss(
        tuple(teachers),
        {name: card.logit_scale for name, card in teachers.items()},
        {name: card.dimension for name, card in teachers.items()},
        settings.distill,
        settings.loss,
        biases if settings.loss == "sigmoid" else {},
        settings.loss_chunk,
        settings.gated,
    )
