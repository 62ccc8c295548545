"""One step of training: batch in, weights moved; the same for control and student, plain and cached, one or many.

Paper: the training set-up of MobileCLIP2. Reads batches, writes nothing. The loss of (view, real caption) and that of
(view, synthetic caption) are summed over one pass of the image tower and one of the text tower. Every step's random
numbers follow from (seed, step, rank). Taught by notebooks/40_reinforced_training.ipynb.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mobileclip2_lite.models.card import TeacherCard
from mobileclip2_lite.models.loaded import LoadedModel, attention, autocast, usable_precision
from mobileclip2_lite.models.packing import encode_packed, is_packable
from mobileclip2_lite.models.trimming import encode_text, is_trimmable
from mobileclip2_lite.recipes import Train
from mobileclip2_lite.training import gradient_cache
from mobileclip2_lite.training.branches import add_up_branches
from mobileclip2_lite.training.contrast import Contrast, pair_loss
from mobileclip2_lite.training.distributed import Processes
from mobileclip2_lite.training.feeding import PreparedBatch, stacked
from mobileclip2_lite.training.grouped_convolutions import speed_up_grouped_convolutions
from mobileclip2_lite.training.optimizer import Ema, clip_, learning_rate, load_state, optimizer
from mobileclip2_lite.training.overlap import Overlap
from mobileclip2_lite.training.selection import best, chosen, joined, learnability
from mobileclip2_lite.training.sharding import Sharded
from mobileclip2_lite.training.start import lock, new_model, training_mode
from mobileclip2_lite.training.synchronised import synchronise_batch_norms
from mobileclip2_lite.training.teachers import LiveTeachers
from mobileclip2_lite.work.randomness import rng

ROWS = 64
"""Texts of similar length that a CPU encodes together."""


Task = Callable[["Stepper", PreparedBatch, float], dict[str, Tensor]]
"""Adds a weight times one batch's gradients to those there, and gives the weighted losses by name."""


class Stepper:
    """A student with its loss and optimiser.

    Args:
        settings: the recipe's part.
        teachers: teacher -> card (`training.teachers.teacher_cards`).
        steps: of the whole training, for the learning rate.
        seed: of the weights and of every step.
        processes: who trains together; each holds batch_size / (processes * accumulate) samples at a time.
        task: what a batch's gradients are; None for a student's, `contrastive`.
    """

    def __init__(
        self,
        settings: Train,
        teachers: Mapping[str, TeacherCard],
        steps: int,
        seed: int,
        processes: Processes,
        task: Task | None = None,
    ) -> None:
        self.settings, self.steps, self.seed, self.processes = settings, steps, seed, processes
        self.task = task or contrastive
        self.device = processes.device
        self.precision = usable_precision(settings.precision, self.device)
        torch.manual_seed(torch_seed(seed, "weights"))
        self.loaded = new_model(settings)
        self.model = self.loaded.model.to(self.device, memory_format=torch.channels_last)
        lock(self.model, settings.lock)
        training_mode(self.model, settings.lock)
        processes.same(self.model)
        if settings.recompute:
            self.model.set_grad_checkpointing(True)
        together = processes.size > 1
        self.synchronised = together and settings.sync_batch_norm
        if self.device.type == "cpu":
            speed_up_grouped_convolutions(self.model)
            if not settings.compile and not self.synchronised:  # compiling merges passes itself
                add_up_branches(self.model)
        if self.synchronised:
            synchronise_batch_norms(self.model, processes)
        self.sharded = Sharded(self.model, processes) if together and settings.parallel == "fsdp" else None
        self.encode_image, self.encode_text = self.model.encode_image, self.model.encode_text
        if settings.compile:
            self.encode_image, self.encode_text = torch.compile(self.encode_image), torch.compile(self.encode_text)
        self.optimizer = optimizer(
            self.model, settings.optimizer, settings.learning_rate, settings.betas, settings.weight_decay
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        self.ema = Ema(self.model, settings.ema) if settings.ema else None
        self.in_step = bool(self.sharded) or self.synchronised
        """Whether processes meet within a tower, so that all must call it equally often."""
        self.cut = settings.trim_text and not settings.compile and is_trimmable(self.model)
        # on a GPU looking at lengths would make it wait
        self.sorted = self.cut and self.device.type == "cpu" and not self.in_step
        self.packed = self.sorted and is_packable(self.model) and not settings.recompute
        preprocess = self.loaded.preprocess
        self.eye = (preprocess.image_size, preprocess.interpolation)
        self.live = LiveTeachers(teachers, self.device, self.eye) if settings.online and teachers else None
        self.pair_loss = pair_loss(settings, teachers)
        self.contrasted = Contrast(settings, self.pair_loss, self.model, processes)
        self.overlap = Overlap(self.model.parameters()) if together and not self.sharded else None
        self.dropped: Counter = Counter()
        """This process's samples that were left out, by reason; `Processes.total` has all processes'."""
        self.looks = self.device.type == "cpu" and not self.scaler.is_enabled()
        """Whether to look at every step's norm: it is free on a CPU, and a GPU would have to be waited for."""

    def __call__(self, step: int, batches: list[PreparedBatch]) -> tuple[dict[str, Tensor], Tensor] | None:
        """Step number `step` (from 0): this process's share of each loss by name, and the gradients' norm.

        A batch of which some process has no usable sample is left out by all; without any other, None: no step.
        """
        settings = self.settings
        rate = learning_rate(step, self.steps, settings.learning_rate, settings.warmup, settings.final_learning_rate)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        torch.manual_seed(torch_seed(self.seed, "step", step, self.processes.rank))
        self.optimizer.zero_grad(set_to_none=True)
        losses: dict[str, Tensor] = {}
        for batch in batches:
            self.count(batch.dropped)
        if settings.candidates > 1:
            starts = range(0, len(batches), settings.candidates)
            batches = [joined(batches[start : start + settings.candidates]) for start in starts]
        usable = [batch for batch in batches if all(self.processes.counts(len(batch.uids)))]
        if settings.candidates > 1:
            usable = [self.select([batch]) for batch in usable]
        if not usable:
            return None
        overlap = self.overlap if len(usable) == 1 and not (settings.forward_chunk or settings.recompute) else None
        if overlap:
            overlap.begin()
        for batch in usable:
            for name, value in self.backward(batch, 1 / len(usable)).items():
                losses[name] = losses[name] + value if name in losses else value
        if overlap:
            overlap.finish()
        elif not self.sharded:
            self.processes.sum_gradients(self.model.parameters())
        if self.scaler.is_enabled():
            self.scaler.unscale_(self.optimizer)
        clip = self.sharded.clip_ if self.sharded else functools.partial(clip_, self.model)
        norm = clip(settings.grad_clip)
        if self.looks and not math.isfinite(norm):
            return losses, norm  # the weights stay good
        self.scaler.step(self.optimizer)
        self.scaler.update()
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, math.log(settings.max_logit_scale))
        if self.ema:
            self.ema.update(self.model, step + 1)
        return losses, norm

    def count(self, dropped: Mapping[str, int]) -> None:
        """Count samples that were left out; the first of a reason is said."""
        for reason, count in dropped.items():
            if reason not in self.dropped:
                warnings.warn(f"samples are left out, counted in the manifest: {reason}", stacklevel=3)
            self.dropped[reason] += count

    def sound(self, norm: Tensor) -> bool:
        """Whether the weights may be kept after a step whose gradients had this norm.

        fp16's scaler leaves out a step whose gradients overflow, and lowers its scale: they are no numbers at all where
        that does not help.
        """
        return math.isfinite(norm) or (self.scaler.is_enabled() and self.scaler.get_scale() >= 1)

    def facts(self, norm: Tensor) -> dict[str, float | str]:
        """What a step with gradients of this norm is to be judged by, where it went wrong."""
        return {
            "gradient norm": float(norm),
            "learning rate": self.optimizer.param_groups[0]["lr"],
            "logit scale": self.model.logit_scale.exp().item(),
            "precision": self.precision,
        }

    def backward(self, batch: PreparedBatch, weight: float = 1.0) -> dict[str, Tensor]:
        """Add `weight` times one contrasted batch's gradients to those there; the weighted losses by name."""
        return self.task(self, batch, weight)

    def image_features(self, images: Tensor) -> Tensor:
        """Normalised pixels (B, 3, S, S) to features (B, D) of length 1."""
        with autocast(self.precision, self.device):
            return F.normalize(self._call(self.encode_image, images).float(), dim=-1)

    def text_features(self, tokens: Tensor) -> Tensor:
        """Tokens (B, L) to features (B, D) of length 1."""
        with autocast(self.precision, self.device), attention(self.precision, self.device, tokens.shape[1]):
            if self.packed:
                return F.normalize(encode_packed(self.model, tokens).float(), dim=-1)
            if self.sorted:
                return F.normalize(encode_text(self.model, tokens, parts=max(1, len(tokens) // ROWS)).float(), dim=-1)
            return F.normalize(self._call(self.encode_text, tokens).float(), dim=-1)

    def _call(self, encode: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
        return self.sharded.call(encode, rows) if self.sharded else encode(rows)

    def select(self, candidates: list[PreparedBatch]) -> PreparedBatch:
        """One batch's worth of this process's candidates: those of the highest learnability (`selection`)."""
        batch = joined(candidates)
        count = self.settings.batch_size // (self.processes.size * self.settings.accumulate)
        if len(batch.uids) <= count and not self.in_step:
            return batch
        return chosen(batch, best(self.scores(batch), count))

    @torch.no_grad()
    def scores(self, batch: PreparedBatch) -> Tensor:
        """(N,) each pair's learnability, summed over its real text and its caption."""
        batch = self.live.embed(batch) if self.live else batch
        scale, tokens = self.model.logit_scale.float().exp(), [group.tokens for group in batch.groups]
        with gradient_cache.statistics_untouched(self.model):
            images = self.image_features(self.loaded.preprocess.normalize(batch.images))
            texts = self.text_features(stacked(tokens)).split([len(rows) for rows in tokens])
        found = torch.zeros(len(batch.uids), device=self.device)
        for group, features in zip(batch.groups, texts, strict=True):
            teachers = [
                t * batch.teacher_images[name] @ group.teachers[name].T
                for name, t in self.pair_loss.logit_scales.items()
            ]
            found += learnability(scale * images @ features.T, teachers)
        return found

    def contrast(
        self, batch: PreparedBatch, weight: float, losses: dict[str, Tensor]
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """The loss of image features (B, D) and all text groups' (sum of B, D), whose parts it adds to `losses`."""
        return self.contrasted(self.live.embed(batch) if self.live else batch, weight, losses)

    def current(self) -> LoadedModel:
        """The model to evaluate and to save: the moving average where there is one.

        Every process must ask; where the model is cut, the first one's answer is whole.
        """
        if self.sharded:
            return self.loaded._replace(model=self.sharded.whole())
        return self.loaded._replace(model=self.ema.model if self.ema else self.model)

    def state(self) -> dict[str, Any]:
        """Everything that a step changes, whole in the first process; every process must ask."""
        parts = self.sharded
        return {
            "model": parts.state() if parts else self.model.state_dict(),
            "optimizer": parts.optimizer_state(self.optimizer) if parts else self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": self.ema.model.state_dict() if self.ema else None,
            "dropped": dict(self.dropped),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go back to where `state` was taken."""
        if self.sharded:
            self.sharded.load_state(state["model"])
            self.sharded.load_optimizer_state(self.optimizer, state["optimizer"])
        else:
            self.model.load_state_dict(state["model"])
            load_state(self.optimizer, state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.ema:
            self.ema.model.load_state_dict(state["ema"])
        self.dropped = Counter(state["dropped"] if self.processes.first else {})  # they are all processes'


def contrastive(stepper: Stepper, batch: PreparedBatch, weight: float) -> dict[str, Tensor]:
    """`Stepper.backward` of a student: contrast and distillation, over chunks where memory is short."""
    losses: dict[str, Tensor] = {}
    contrast = stepper.contrast(batch, weight, losses)

    def loss(image_features: Tensor, text_features: Tensor) -> Tensor:
        total = contrast(image_features, text_features)
        losses["loss"] = total.detach()
        return stepper.scaler.scale(total)

    images, texts = stepper.loaded.preprocess.normalize(batch.images), stacked(batch.tokens)
    towers = [(stepper.image_features, images), (stepper.text_features, texts)]
    most = stepper.processes.most if stepper.in_step else None
    gradient_cache.backward(
        towers, loss, stepper.settings.forward_chunk, stepper.model, stepper.settings.recompute, most
    )
    return losses


def torch_seed(*parts: int | str) -> int:
    """A seed for torch's global generator that follows from `parts`."""
    return int(rng(*parts).integers(2**63))
