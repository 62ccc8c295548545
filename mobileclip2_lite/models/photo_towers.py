"""EfficientNet-Lite as an image tower that answers with names: the class probabilities' mean of the names' embeddings.

ConSE (Norouzi et al. 2013, arXiv 1312.5650): a classifier that knows a thousand names says how probable each is, and
the image's embedding is the mean of the names' text embeddings, so weighted. No image is needed to make it. Registered
with timm, so that open_clip configs can name the towers; the plain `tf_efficientnet_lite0` to `lite2` are timm's own.
Taught by notebooks/10_teacher_ensemble.ipynb.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import timm
from timm.models import register_model
from torch import nn

CLASSES = 1_000
"""Names that the classifiers know: ImageNet-1k's."""


def _answering(base: str, pretrained: bool, overrides: dict[str, Any]) -> nn.Module:
    if pretrained:
        raise ValueError(f"named_{base} has no weights of its own: `mobileclip2-lite photo-teachers` makes them")
    dimension = overrides.pop("num_classes", CLASSES)
    model = timm.create_model(base, num_classes=CLASSES, **{k: v for k, v in overrides.items() if k == "global_pool"})
    parts = {
        "known": model.classifier,
        "probability": nn.Softmax(-1),
        "names": nn.Linear(CLASSES, dimension, bias=False),
    }
    model.classifier = nn.Sequential(OrderedDict(parts))
    return model


@register_model
def named_efficientnet_lite0(pretrained: bool = False, **overrides: Any) -> nn.Module:
    """224 pixels, 4.7 M parameters and the names' embeddings; (N, 3, S, S) to (N, D)."""
    return _answering("tf_efficientnet_lite0", pretrained, overrides)


@register_model
def named_efficientnet_lite1(pretrained: bool = False, **overrides: Any) -> nn.Module:
    """240 pixels, 5.4 M parameters and the names' embeddings; (N, 3, S, S) to (N, D)."""
    return _answering("tf_efficientnet_lite1", pretrained, overrides)


@register_model
def named_efficientnet_lite2(pretrained: bool = False, **overrides: Any) -> nn.Module:
    """260 pixels, 6.1 M parameters and the names' embeddings; (N, 3, S, S) to (N, D)."""
    return _answering("tf_efficientnet_lite2", pretrained, overrides)
