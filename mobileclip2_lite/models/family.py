"""The MobileCLIP2 family as published: which configs, which preprocess, which sizes, latencies and accuracies.

Numbers are the paper's (MobileCLIP2, arXiv 2508.20691, table of models; MobileCLIP, arXiv 2311.17049) and never ours.
Parameter counts are those after re-parameterisation. One entry differs from the authors' code repository: its README
gives MobileCLIP2-S0 a text tower of 42.4 M parameters and 1.6 ms, which is that of MobileCLIP-S0 (v1, a hybrid of
convolutions and attention); the released MobileCLIP2-S0 has twelve plain layers, 63.4 M (as its config says and as
counted here), and takes the 3.3 ms of the others. Taught by notebooks/50_architecture_and_latency.ipynb.
"""

from __future__ import annotations

from dataclasses import dataclass

from mobileclip2_lite.models.preprocess import OPENAI_MEAN, OPENAI_STD, Preprocess

_PLAIN = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
_OPENAI = (OPENAI_MEAN, OPENAI_STD)


@dataclass(frozen=True)
class Published:
    """What the paper says of one model."""

    config: str
    """open_clip's config that builds it."""
    preprocess: Preprocess
    """Input size, normalisation, interpolation."""
    parameters: tuple[float, float]
    """Image and text tower, millions, re-parameterised."""
    latency: tuple[float, float]
    """Image and text tower, milliseconds on an iPhone 12 Pro Max at batch 1."""
    imagenet: float
    """ImageNet-1k zero-shot top-1, %."""
    average: float
    """Mean over 38 data sets, %."""


def _published(
    config: str,
    size: int,
    norm: tuple,
    filter_: str,
    parameters: tuple[float, float],
    latency: tuple[float, float],
    imagenet: float,
    average: float,
) -> Published:
    return Published(config, Preprocess(size, *norm, filter_, "shortest"), parameters, latency, imagenet, average)


FAMILY: dict[str, Published] = {
    name: _published(*row)
    for name, row in {
        "MobileCLIP2-S0": ("MobileCLIP2-S0", 256, _PLAIN, "bilinear", (11.4, 63.4), (1.5, 3.3), 71.5, 59.7),
        "MobileCLIP2-S2": ("MobileCLIP2-S2", 256, _PLAIN, "bilinear", (35.7, 63.4), (3.6, 3.3), 77.2, 64.1),
        "MobileCLIP2-B": ("MobileCLIP2-B", 224, _PLAIN, "bilinear", (86.3, 63.4), (10.4, 3.3), 79.4, 65.8),
        "MobileCLIP2-S3": ("MobileCLIP2-S3", 256, _OPENAI, "bilinear", (125.1, 123.6), (8.0, 6.6), 80.7, 66.8),
        "MobileCLIP2-L-14": ("MobileCLIP2-L-14", 224, _OPENAI, "bicubic", (304.3, 123.6), (57.9, 6.6), 81.9, 67.8),
        "MobileCLIP2-S4": ("MobileCLIP2-S4", 256, _OPENAI, "bilinear", (321.6, 123.6), (19.6, 6.6), 81.9, 67.5),
        "MobileCLIP-S1": ("MobileCLIP-S1", 256, _PLAIN, "bilinear", (21.5, 63.4), (2.5, 3.3), 72.6, 61.3),
        "MobileCLIP-S2": ("MobileCLIP-S2", 256, _PLAIN, "bilinear", (35.7, 63.4), (3.6, 3.3), 74.4, 63.7),
        "MobileCLIP-B": ("MobileCLIP-B", 224, _PLAIN, "bilinear", (86.3, 63.4), (10.4, 3.3), 76.8, 65.2),
        "MobileCLIP-S3": ("MobileCLIP2-S3", 256, _OPENAI, "bilinear", (125.1, 123.6), (8.0, 6.6), 78.3, 66.3),
        "MobileCLIP-L-14": ("MobileCLIP2-L-14", 224, _OPENAI, "bicubic", (304.3, 123.6), (57.9, 6.6), 79.5, 66.9),
        "MobileCLIP-S4": ("MobileCLIP2-S4", 256, _OPENAI, "bilinear", (321.6, 123.6), (19.6, 6.6), 79.4, 68.1),
    }.items()
}


def family_member(text: str) -> str | None:
    """The family's name within a file, folder or hub name: `mobileclip2_s0.pt`, `apple/MobileCLIP2-S0`, ... or None.

    The longest name that fits wins; `_` and `-` are the same, and so are upper and lower case, `L14` and `L-14`,
    `blt` (the longer trained B) and `B`.
    """
    flat = text.lower().replace("_", "-").replace("/", "-").replace("l14", "l-14").replace("blt", "b-lt")
    found = [name for name in FAMILY if _stands_in(name.lower(), flat)]
    return max(found, key=len, default=None)


def _stands_in(name: str, text: str) -> bool:
    """Whether `name` stands in `text` as whole words: `mobileclip-s1` is not in `mobileclip-s12`."""
    start = text.find(name)
    while start >= 0:
        end = start + len(name)
        if not (end < len(text) and text[end].isalnum()) and not (start and text[start - 1].isalnum()):
            return True
        start = text.find(name, start + 1)
    return False
