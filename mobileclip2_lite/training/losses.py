"""What a student is trained on: contrast, and distillation from an ensemble by name, softmax or sigmoid.

Paper: MobileCLIP, "multi-modal reinforced training" (the loss), and MobileCLIP2 (one logit scale a teacher). Reads
features, writes nothing. All teachers' probabilities are averaged before the one cross-entropy, and the mean entropy is
taken off, so that value and gradient are those of the paper's mean of KL terms at the price of one. Differs from the
paper: large batches can be done row chunk by row chunk (same result), and a sigmoid form is offered. Gives up: teachers
are fixed, nothing flows back into them. What one block of rows adds is in `row_losses`. Taught by
notebooks/30_distillation_temperature.ipynb.

Shapes: B rows of this process, N rows of all processes, D student's and E a teacher's dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mobileclip2_lite.training.row_losses import column_norms, sigmoid_rows, softmax_rows


class Rows(NamedTuple):
    """One modality's features: this process's rows and, for the contrast, every process's."""

    local: Tensor
    """(B, D) float, rows of length 1."""
    all: Tensor
    """(N, D) the same of all processes in the order of their ranks; `local` itself for one process."""
    start: int = 0
    """Where `local` begins in `all`."""

    @classmethod
    def alone(cls, features: Tensor) -> Rows:
        """The rows of a single process."""
        return cls(features, features)


class Loss(NamedTuple):
    """A loss and what it was made of."""

    total: Tensor
    """Scalar to differentiate. Several processes' totals add up to the whole batch's loss."""
    parts: dict[str, Tensor]
    """Detached scalars by name (`contrastive`, `distillation`), unweighted, adding up over processes too."""


class PairLoss:
    """(1 - weight) * contrastive + weight * distillation of one batch of (image, text) pairs.

    With `form="softmax"`, t the student's scale and t_k the fixed scale of teacher k of K:

        contrastive  = 1/2 [CE(I, S_t(img, txt)) + CE(I, S_t(txt, img))],     S_t(U, W) = row-softmax(t U W^T)
        distillation = 1/(2K) sum_k [KL(S_tk(img_k, txt_k) || S_t(img, txt)) + KL(S_tk(txt_k, img_k) || S_t(txt, img))]

    each KL and CE a mean over rows (MobileCLIP, equations 1 and 2). With `form="sigmoid"` (SigLIP, arXiv 2303.15343,
    with soft targets) each of the N x N pairs is a yes-no question, summed over texts, averaged over images: binary
    cross-entropy with the identity, and binary KL from the teachers' mean probability. That probability is sigmoid(t_k
    s + b_k) for a teacher with a logit bias, and the mean of both directions' softmax for one without. The minimum over
    the student's logit is exactly where its sigmoid equals the target, which does not hold for SigLIP's
    `logsigmoid(label * logit)` with soft labels.

    With `gated`, each row's contrastive term is multiplied by the teachers' belief in its partner: their mean
    probability of it over that of their favourite, 1 where the partner is the favourite. A wrong text then costs
    nothing, where lambda would take the contrast from the right texts too (ours; softmax form only).

    Args:
        teachers: names, in any order; empty for the contrastive loss alone.
        logit_scales: scale (not its logarithm) of each teacher, by name; temperature is 1 / scale.
        dimensions: embedding dimension of each teacher, by name.
        weight: lambda, 0 to 1 (paper: 1).
        form: `softmax` or `sigmoid`.
        logit_biases: biases of sigmoid teachers, by name.
        chunk: rows whose similarities exist at a time; 0 for all. The result is the same.
        gated: weigh each row's contrastive term by the teachers' belief in its partner.

    Raises:
        ValueError: a teacher without a scale or a dimension, a scale or dimension or bias without its teacher, a name
            twice, a scale that is not positive and finite, weight outside 0..1, weight above 0 without a teacher, an
            unknown form, a bias with the softmax form, which does not know it, or a gate without teachers, without a
            contrastive term to gate, or with the sigmoid form.
    """

    def __init__(
        self,
        teachers: Sequence[str] = (),
        logit_scales: Mapping[str, float] | None = None,
        dimensions: Mapping[str, int] | None = None,
        weight: float = 0.0,
        form: str = "softmax",
        logit_biases: Mapping[str, float] | None = None,
        chunk: int = 0,
        gated: bool = False,
    ) -> None:
        self.teachers = tuple(teachers)
        self.logit_scales = dict(logit_scales or {})
        self.dimensions = dict(dimensions or {})
        self.logit_biases = dict(logit_biases or {})
        self.weight, self.form, self.chunk, self.gated = float(weight), form, int(chunk), gated
        if len(set(self.teachers)) != len(self.teachers):
            raise ValueError(f"a teacher is named twice: {self.teachers}")
        for what, given in (("logit scale", self.logit_scales), ("dimension", self.dimensions)):
            _same_names(what, given, self.teachers)
        if extra := sorted(set(self.logit_biases) - set(self.teachers)):
            raise ValueError(f"logit bias for {extra}, but the teachers are {list(self.teachers)}")
        for name, scale in self.logit_scales.items():
            if not 0 < scale < float("inf"):
                raise ValueError(
                    f"logit scale of {name} is {scale}: it must be positive (it is 1 / temperature, not its log)"
                )
        if not 0 <= self.weight <= 1:
            raise ValueError(f"the weight of distillation (lambda) is {weight}; it lies between 0 and 1")
        if self.weight and not self.teachers:
            raise ValueError(f"the weight of distillation is {weight}, but no teacher is named")
        if form not in ("softmax", "sigmoid"):
            raise ValueError(f"unknown form of the loss {form!r}: softmax or sigmoid")
        if gated and (form != "softmax" or not 0 < self.weight < 1):
            raise ValueError(
                "a gated contrast needs the softmax form and a weight of distillation (lambda) between 0 and 1, both "
                f"excluded: there it has teachers and something to gate; form {form!r}, weight {weight}"
            )
        if form == "softmax" and self.logit_biases:
            raise ValueError(
                "a softmax does not change with a logit bias: leave logit_biases out or use form='sigmoid'"
            )

    def __call__(
        self,
        image: Rows,
        text: Rows,
        logit_scale: Tensor,
        teacher_image: Mapping[str, Rows] | None = None,
        teacher_text: Mapping[str, Rows] | None = None,
        logit_bias: Tensor | None = None,
        image_ids: Rows | None = None,
    ) -> Loss:
        """The loss of this process's rows as its share of the whole batch's.

        Args:
            image, text: the student's L2-normalised features, row i of one belonging to row i of the other.
            logit_scale: the student's scale (not its logarithm), scalar.
            teacher_image, teacher_text: each teacher's embeddings of the same rows.
            logit_bias: the student's bias, sigmoid form only.
            image_ids: int64 (B,) and (N,), equal where two rows hold the same image. Such rows' texts are true of each
                other's image, so the contrast leaves these pairs out; teachers need no telling.

        Raises:
            ValueError: teachers' rows are missing or have other shapes than announced.
        """
        if self.weight:
            self._check(image, teacher_image or {}, teacher_text or {})
            pairs = [(teacher_image[name], teacher_text[name], name) for name in self.teachers]
        else:
            pairs = []
        if self.form == "sigmoid":
            contrastive, distillation = self._sigmoid(image, text, logit_scale, logit_bias, pairs, image_ids)
        else:
            contrastive, distillation = self._softmax(image, text, logit_scale, pairs, image_ids)
        rows = image.all.shape[0]
        contrastive, distillation = contrastive / rows, distillation / rows
        if not pairs:
            return Loss(contrastive, {"contrastive": contrastive.detach()})
        total = (1 - self.weight) * contrastive + self.weight * distillation if self.weight < 1 else distillation
        return Loss(total, {"contrastive": contrastive.detach(), "distillation": distillation.detach()})

    def _check(self, image: Rows, teacher_image: Mapping[str, Rows], teacher_text: Mapping[str, Rows]) -> None:
        for what, given in (("image", teacher_image), ("text", teacher_text)):
            _same_names(f"{what} embedding", given, self.teachers)
            for name in self.teachers:
                for part, rows in (("local", image.local), ("all", image.all)):
                    found, wanted = tuple(getattr(given[name], part).shape), (len(rows), self.dimensions[name])
                    if found != wanted:
                        raise ValueError(
                            f"{what} embeddings of {name} ({part} rows) have shape {found}, expected {wanted}"
                        )

    def _softmax(self, image: Rows, text: Rows, scale: Tensor, pairs: list, ids: Rows | None) -> tuple[Tensor, Tensor]:
        """Sums over rows of both directions' losses, halved."""
        if not self.chunk and image.local is image.all:  # one matrix serves both directions
            logits = scale * image.local @ text.local.T
            teachers = [self.logit_scales[name] * u.local @ w.local.T for u, w, name in pairs]
            same = same_image(ids, 0, len(logits))
            forth = softmax_rows(logits, teachers, 0, same, self.gated)
            back = softmax_rows(logits.T, [matrix.T for matrix in teachers], 0, same, self.gated)
            return (forth[0] + back[0]) / 2, (forth[1] + back[1]) / 2
        sums = []
        for queries, keys, turned in ((image, text, False), (text, image, True)):
            swapped = [(w, u, name) if turned else (u, w, name) for u, w, name in pairs]

            def rows(piece: Tensor, others: Tensor, scale: Tensor, low: int, start: int, swapped=swapped) -> tuple:
                high = low + len(piece)
                teachers = [self.logit_scales[name] * q.local[low:high] @ k.all.T for q, k, name in swapped]
                same = same_image(ids, low, high)
                return softmax_rows(scale * piece @ others.T, teachers, start + low, same, self.gated)

            sums.append(self._in_chunks(rows, queries, keys, scale))
        return (sums[0][0] + sums[1][0]) / 2, (sums[0][1] + sums[1][1]) / 2

    def _sigmoid(
        self, image: Rows, text: Rows, scale: Tensor, bias: Tensor | None, pairs: list, ids: Rows | None
    ) -> tuple[Tensor, Tensor]:
        """Sums over (image row, every text) of the binary losses."""
        bias = torch.zeros_like(scale) if bias is None else bias
        norms = [
            None if name in self.logit_biases else column_norms(self.logit_scales[name], u.all, w.all, self.chunk)
            for u, w, name in pairs
        ]

        def rows(piece: Tensor, others: Tensor, scale: Tensor, low: int, start: int) -> tuple:
            target = None
            for (u, w, name), norm in zip(pairs, norms, strict=True):
                logits = self.logit_scales[name] * u.local[low : low + len(piece)] @ w.all.T
                if norm is None:
                    probability = torch.sigmoid(logits + self.logit_biases[name])
                else:
                    probability = (logits.softmax(dim=1) + (logits - norm).exp()) / 2
                target = probability if target is None else target + probability
            mean = None if target is None else target / len(pairs)
            same = same_image(ids, low, low + len(piece))
            return sigmoid_rows(scale * piece @ others.T + bias, mean, start + low, same)

        return self._in_chunks(rows, image, text, scale)

    def _in_chunks(self, rows, queries: Rows, keys: Rows, scale: Tensor) -> tuple[Tensor, Tensor]:
        """`rows` over chunks of queries; a chunk's matrices are made again in the backward pass instead of kept."""
        size = self.chunk or len(queries.local)
        contrastive = distillation = 0.0
        for low in range(0, len(queries.local), size):
            piece = queries.local[low : low + size]
            arguments = (piece, keys.all, scale, low, queries.start)
            one = checkpoint(rows, *arguments, use_reentrant=False) if self.chunk else rows(*arguments)
            contrastive, distillation = contrastive + one[0], distillation + one[1]
        return contrastive, distillation


def same_image(ids: Rows | None, low: int, high: int) -> Tensor | None:
    """(high - low, N) True where a row's image is another row's, too; None where ids are not known."""
    if ids is None:
        return None
    same = ids.local[low:high, None] == ids.all[None, :]
    same.diagonal(ids.start + low).fill_(False)
    return same


def _same_names(what: str, given: Mapping[str, object], teachers: Sequence[str]) -> None:
    missing, extra = [n for n in teachers if n not in given], sorted(set(given) - set(teachers))
    if missing or extra:
        raise ValueError(f"one {what} for each teacher is needed; missing: {missing}, not a teacher: {extra}")
