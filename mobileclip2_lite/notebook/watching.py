"""The same images, named again and again by a model that is being trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mobileclip2_lite.emoji_world.texts import TEMPLATES
from mobileclip2_lite.evaluation import measures
from mobileclip2_lite.models.loaded import encode_images

if TYPE_CHECKING:
    from mobileclip2_lite.models.loaded import LoadedModel


class Watch:
    """An evaluation for `train`: names the same images whenever it is asked, and keeps the answers.

    Args:
        images: of any form that `encode_images` takes.
        truth: their names.
        names: among which the model chooses.
        templates: prompts.

    Raises:
        ValueError: there are not as many names as images.
    """

    def __init__(
        self, images: Sequence[Any], truth: Sequence[str], names: Sequence[str], templates: Sequence[Any] = TEMPLATES
    ) -> None:
        if len(images) != len(truth):
            raise ValueError(f"{len(images)} images and {len(truth)} names: give one name an image")
        self.images, self.truth, self.names, self.templates = images, list(truth), list(names), templates
        self.answers: list[list[str]] = []
        """What was answered, a list a question, the first question first."""

    def __call__(self, loaded: LoadedModel) -> dict[str, float]:
        """Ask once; the share of right answers as `right`."""
        classes = measures.zero_shot_classifier(loaded, self.names, self.templates)
        best = measures.top_classes(encode_images(loaded, self.images), classes, k=1)
        self.answers.append([self.names[first] for (first,) in best])
        right = [answer == name for answer, name in zip(self.answers[-1], self.truth, strict=True)]
        return {"right": sum(right) / len(right)}
