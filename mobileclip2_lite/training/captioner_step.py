"""One step of a captioner's training: contrast and next-token prediction over one pass of each tower.

Paper: CoCa (arXiv 2205.01917), whose weights 1 and 2 of the two losses are this project's defaults too. Reads batches,
writes nothing. Differs from open_clip's CoCa step in work, not in result: a CPU takes texts of similar length together,
each group cut to its longest, and only tokens that count are projected onto the vocabulary. Taught by
notebooks/20_captioner_finetuning.ipynb.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from mobileclip2_lite.models.card import TeacherCard
from mobileclip2_lite.models.coca import cut, image_states, is_captioner, next_token_logits, text_states
from mobileclip2_lite.models.loaded import LoadedModel, attention, autocast
from mobileclip2_lite.models.trimming import text_lengths
from mobileclip2_lite.recipes import Train
from mobileclip2_lite.shards.dataset import ReinforcedDataset
from mobileclip2_lite.training.distributed import Processes
from mobileclip2_lite.training.feeding import PreparedBatch, stacked
from mobileclip2_lite.training.step import ROWS, Stepper


def captioner_stepper(
    settings: Train, teachers: Mapping[str, TeacherCard], steps: int, seed: int, processes: Processes
) -> Stepper:
    """A captioner with its losses and optimiser; the arguments are those of `Stepper`.

    Raises:
        ValueError: the model cannot write, or a setting is asked for that a captioner does not know.
    """
    for name in ("forward_chunk", "compile", "hard_negatives"):
        if getattr(settings, name):
            raise ValueError(f"a captioner's training does not know {name}: leave it at its default")
    if settings.candidates > 1:
        raise ValueError("a captioner's training does not select among candidates: leave them at 1")
    stepper = Stepper(settings, teachers, steps, seed, processes, task=captioning)
    if not is_captioner(stepper.model):
        raise ValueError(f"{settings.model} has no text decoder: set captioning=0, or name a CoCa model")
    return stepper


def captioning(stepper: Stepper, batch: PreparedBatch, weight: float) -> dict[str, Tensor]:
    """`Stepper.backward` of a captioner: contrast, and each next token of every text."""
    settings, model, precision = stepper.settings, stepper.model, (stepper.precision, stepper.device)
    parts: dict[str, Tensor] = {}
    contrast = stepper.contrast(batch, weight, parts)
    tokens = stacked(batch.tokens)
    written = stepper.processes.sum((tokens[:, 1:] != model.pad_id).sum().float().reshape(1))[0]
    with autocast(*precision):
        image_features, image_tokens = image_states(model, stepper.loaded.preprocess.normalize(batch.images))
    text_features, next_tokens = _texts(stepper, tokens, image_tokens, written)
    total = settings.captioning * weight * next_tokens
    parts["captioning"] = weight * next_tokens.detach()
    if settings.contrast:
        normed = [F.normalize(features.float(), dim=-1) for features in (image_features, text_features)]
        total = total + settings.contrast * contrast(*normed)
    parts["loss"] = total.detach()
    stepper.scaler.scale(total).backward()
    return parts


def _texts(stepper: Stepper, tokens: Tensor, images: Tensor, written: Tensor) -> tuple[Tensor, Tensor]:
    """Features (N, E) of N token rows, and this process's share of the captioning loss given image tokens."""
    model, device = stepper.model, stepper.device
    pad, groups = model.pad_id, len(tokens) // len(images)
    order = torch.arange(len(tokens), device=device)
    parts = 1
    if device.type == "cpu":
        order, parts = text_lengths(tokens, pad).argsort(stable=True), max(1, len(tokens) // ROWS)
    features, total = [], torch.zeros((), device=device)
    images = images.repeat(groups, 1, 1) if groups > 1 else images
    for rows in order.chunk(parts):
        some = cut(tokens[rows], pad) if device.type == "cpu" else tokens[rows]
        with autocast(stepper.precision, device), attention(stepper.precision, device, some.shape[1]):
            embedding, states = text_states(model, some)
            logits, targets = next_token_logits(model, images[rows], states, some)
        features.append(embedding)
        total = total + next_token_loss(logits.float()[None], targets[None], pad, written)
    return torch.cat(features)[order.argsort()], total


class HeldOut:
    """Measures captioners on pairs that they were not trained on: `evaluate` for `training.train`, to stop on.

    Args:
        folder: shards of pairs.
        count: pairs to take, the same at every call: the first in the loader's shuffled order of seed 0, each in its
            light crop (`views="weak"`, 90 to 100 % of the image).
        batch_size: pairs a forward pass.
    """

    def __init__(self, folder: str | os.PathLike, count: int = 512, batch_size: int = 128) -> None:
        self.folder, self.count, self.batch_size = folder, count, batch_size

    @torch.no_grad()
    def __call__(self, loaded: LoadedModel) -> dict[str, float]:
        """`caption_loss`: mean cross-entropy of the captions' tokens, in nats."""
        size, pad = loaded.preprocess.image_size, loaded.model.pad_id
        batch_size = min(self.batch_size, self.count)
        data = ReinforcedDataset(self.folder, size, batch_size, views="weak", on_mismatch="warn", drop_last=False)
        device = loaded.model.logit_scale.device
        total = tokens = 0.0
        for number in range(min(len(data), -(-self.count // batch_size))):
            batch, left = data.batch(number), self.count - number * batch_size
            if not batch.uids:  # none can be used
                continue
            rows = cut(loaded.tokenizer(batch.texts[:left]), pad).to(device)
            _, images = image_states(loaded.model, loaded.preprocess.normalize(batch.images[:left].to(device)))
            _, states = text_states(loaded.model, rows)
            logits, targets = next_token_logits(loaded.model, images, states, rows)
            total += F.cross_entropy(logits.float(), targets, reduction="sum").item()
            tokens += len(targets)
        return {"caption_loss": total / max(tokens, 1)}


def next_token_loss(logits: Tensor, targets: Tensor, ignore: int = 0, tokens: Tensor | float | None = None) -> Tensor:
    """Mean cross-entropy of the next token (CoCa, arXiv 2205.01917).

    Args:
        logits: (B, L, V).
        targets: (B, L) token ids; those equal to `ignore` (padding) do not count.
        tokens: counted tokens of the whole batch, where this is one process's share; None counts here.

    Raises:
        ValueError: no target counts, so that there is no mean.
    """
    counted = (targets != ignore).sum() if tokens is None else tokens
    if logits.device.type == "cpu" and not counted:  # on a GPU the look would cost time, and the loss is NaN
        raise ValueError(f"no token to predict: all {targets.numel()} targets are padding ({ignore})")
    total = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=ignore, reduction="sum")
    return total / counted
