"""Which training a training is: the key of its work, so that finished work is found and other work refused.

Ours. Reads the hash of the weights that it starts from; writes nothing.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from mobileclip2_lite.models.embedded import find
from mobileclip2_lite.models.resolve import resolve
from mobileclip2_lite.recipes import Train
from mobileclip2_lite.training.teachers import teacher_cards
from mobileclip2_lite.work.files import sha256_file
from mobileclip2_lite.work.folder import Work
from mobileclip2_lite.work.place import StorePath

VERSION = 1
"""Of what a training writes."""
NO_RESULT = ("workers", "checkpoint_every", "log_every", "tracker", "threads", "parallel")
"""Settings that do not change the trained model."""
LATER = (
    "gated", "hard_negatives", "optimizer", "final_learning_rate", "image_size", "text_from", "lock", "nested", "texts",
    "candidates", "sync_batch_norm",
)  # fmt: skip
"""Settings that came after trainings had been finished: at their defaults they leave a training's key as it was."""


def work_of(settings: Train, data: Path | StorePath, target: Path | StorePath, seed: int) -> Work:
    """The work of one training: its settings, seed, teachers' scales, data, and the weights that it starts from."""
    plain = Train()
    identity = {
        k: v
        for k, v in dataclasses.asdict(settings).items()
        if k not in NO_RESULT and not (k in LATER and v == getattr(plain, k))
    }
    cards = teacher_cards(data, settings)
    known = {"logit_scales": {name: card.logit_scale for name, card in cards.items()}}
    if biases := {name: card.logit_bias for name, card in cards.items() if card.logit_bias is not None}:
        known["logit_biases"] = biases
    inputs = {"data": data, **({"start": weights_hash(settings.start)} if settings.start else {})}
    return Work(target, "train", VERSION, {"train": identity, "seed": seed, **known}, inputs)


def weights_hash(name: str) -> str:
    """SHA-256 of the weights file that a name means; see `embedded.find`.

    Raises:
        ValueError: it is the name of an architecture, without weights.
        FileNotFoundError: there is no such file or folder.
    """
    return sha256_file(resolve(*find(name, "start")).weights)
