"""Early stopping: keep the best weights, and end a training that gets no better.

Captioners are fine-tuned with it, because a small clean set is soon overfitted. Taught by
notebooks/20_captioner_finetuning.ipynb.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn


class Stopping:
    """Early stopping: the best weights so far, and whether too many evaluations went by without better ones.

    Args:
        metric: name of the evaluation's number, smaller is better; empty never stops.
        patience: evaluations without a better one that are one too many.
    """

    def __init__(self, metric: str, patience: int) -> None:
        self.metric, self.patience = metric, patience
        self.best, self.step, self.worse, self.enough = math.inf, 0, 0, False
        self.weights: dict[str, Tensor] | None = None

    def look(self, found: dict[str, Any], step: int, model: nn.Module) -> None:
        """Take in one evaluation.

        Raises:
            ValueError: it does not have the number.
        """
        if not self.metric:
            return
        if self.metric not in found:
            raise ValueError(f"the evaluation has no {self.metric!r} to stop on, only {', '.join(sorted(found))}")
        if found[self.metric] < self.best:
            self.best, self.step, self.worse = float(found[self.metric]), step, 0
            self.weights = {key: value.detach().clone() for key, value in model.state_dict().items()}
        else:
            self.worse += 1
            self.enough = self.worse >= self.patience

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {name: getattr(self, name) for name in ("best", "step", "worse", "enough", "weights")}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go back to where `state` was taken."""
        vars(self).update(state)
