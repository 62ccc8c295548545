"""Fold the parallel branches of MobileOne and RepMixer blocks into one convolution each, and prove it.

In training a block is a sum of a k x k convolution, a 1 x 1 convolution and an identity, each with its batch norm; at
inference all are linear, so one k x k convolution gives the same output (paper: MobileCLIP's and MobileCLIP2's towers,
after MobileOne and FastViT). The folding itself is timm's; ours is to force eval (in training mode batch norm uses the
batch's statistics, and a fold would silently change the model), never to touch the original, and to check the result.
Taught by notebooks/50_architecture_and_latency.ipynb.
"""

from __future__ import annotations

import copy
import dataclasses
import statistics
from dataclasses import dataclass

import torch
from torch import nn

from mobileclip2_lite.models.loaded import parameter_count
from mobileclip2_lite.work.stopwatch import call_seconds


@dataclass(frozen=True)
class Reparameterization:
    """A folded model and what folding did."""

    model: nn.Module
    """The folded copy, in eval mode."""
    parameters: tuple[int, int]
    """Image tower, before and after."""
    modules: tuple[int, int]
    """Modules of the image tower, before and after."""
    milliseconds: tuple[float, float]
    """Image tower, one image, median, before and after."""
    difference: float
    """Largest absolute difference of the image features on random input, relative to the largest feature."""

    def __str__(self) -> str:
        saved = self.parameters[0] - self.parameters[1]
        return (
            f"folded {self.modules[0]} modules into {self.modules[1]}: {saved:,} parameters fewer "
            f"({self.parameters[1]:,} left), {self.milliseconds[0]:.1f} ms to {self.milliseconds[1]:.1f} ms a picture, "
            f"relative difference {self.difference:.1e}"
        )


def fold(model: nn.Module) -> nn.Module:
    """A copy of `model` in eval mode with every foldable block folded; the model itself stays as it is."""
    from timm.utils import reparameterize_model

    folded = copy.deepcopy(model).eval()
    return folded if is_folded(folded) else reparameterize_model(folded, inplace=True)


def is_folded(model: nn.Module) -> bool:
    """Whether the model has folded blocks."""
    return any(".reparam_conv." in key for key in model.state_dict())


@torch.no_grad()
def reparameterize(
    model: nn.Module, image_size: int | None = None, tolerance: float = 1e-4, repeats: int = 5, seed: int = 0
) -> Reparameterization:
    """Fold `model` (anything with `encode_image`) and prove that the folded copy is the same function.

    Args:
        image_size: side of the random images; None takes the model's own.
        tolerance: largest allowed difference, relative to the largest feature.
        repeats: timed passes of one image.
        seed: of the random images.

    Raises:
        ValueError: nothing in the model can be folded, or the folded model differs by more than `tolerance`.
    """
    folded = fold(model)
    if is_folded(model) or not is_folded(folded):
        raise ValueError(
            "this model has no branches to fold: it is folded already, or its image tower is a plain transformer "
            "(MobileCLIP2-B and L-14 are)"
        )
    original = copy.deepcopy(model).eval()
    size = image_size or original.visual.image_size
    size = size[0] if isinstance(size, (tuple, list)) else size
    parameter = next(original.parameters())
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(seed)).to(parameter)
    before, after = original.encode_image(images), folded.encode_image(images)
    difference = float((before - after).abs().max() / before.abs().max().clamp_min(1e-12))
    if not difference <= tolerance:
        raise ValueError(f"folding changed the model: relative difference {difference:.2e}, allowed {tolerance:.0e}")
    return Reparameterization(
        model=folded,
        parameters=(parameter_count(original.visual), parameter_count(folded.visual)),
        modules=(len(list(original.visual.modules())), len(list(folded.visual.modules()))),
        milliseconds=(_milliseconds(original, images[:1], repeats), _milliseconds(folded, images[:1], repeats)),
        difference=difference,
    )


def _milliseconds(model: nn.Module, images: torch.Tensor, repeats: int) -> float:
    return 1e3 * statistics.median(call_seconds(lambda: model.encode_image(images), (repeats, repeats)))


def summary(result: Reparameterization) -> dict:
    """The result without the model, as JSON data."""
    return {field.name: getattr(result, field.name) for field in dataclasses.fields(result) if field.name != "model"}
