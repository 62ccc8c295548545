"""Measures of a CLIP model: zero-shot accuracy, retrieval both ways, hard negatives.

MobileCLIP2 (arXiv 2508.20691), section 4. Takes features or a `LoadedModel` and returns numbers between 0 and 1. One
rule for all: ties are broken at random and the *expected* value is returned, so that a model that gives all the same
score gets exactly the chance level. Taught by notebooks/40_reinforced_training.ipynb.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mobileclip2_lite.models.loaded import encode_texts, many

if TYPE_CHECKING:
    from mobileclip2_lite.models.loaded import LoadedModel

TEMPLATES = ("a photo of a {}.", "a picture of a {}.", "an image of a {}.", "{}.")
"""Prompts for a user's own classes, where nothing better is known."""

CHUNK = 1_024
"""Queries compared at a time, so that no similarity matrix grows beyond memory."""

Z = 1.96
"""Standard errors to either side of a mean that 95 % of a normal distribution lie within."""

Template = str | Callable[[str], str]


def zero_shot_classifier(
    loaded: LoadedModel, classnames: Sequence[str], templates: Sequence[Template] = TEMPLATES, batch_size: int = 256
) -> Tensor:
    """Class weights (C, D): the normalised mean over the prompts' normalised features (CLIP's prompt ensembling).

    Args:
        classnames: C names as they stand in a sentence.
        templates: strings with one `{}`, or functions from a name to a prompt.

    Raises:
        ValueError: names or templates are none, or one string in place of a list, or a template has no `{}`.
    """
    classnames = many(classnames, "classnames")
    if isinstance(templates, str):
        raise ValueError(f"templates is one string, {templates!r}: give a list, [{templates!r}]")
    if not classnames or not templates:
        what = "classnames" if not classnames else "templates"
        raise ValueError(f"{what} is empty: give at least one, and two names or more where the model shall choose")
    prompts = [_fill(template, name) for name in classnames for template in templates]
    features = encode_texts(loaded, prompts, batch_size)
    mean = features.reshape(len(classnames), len(templates), -1).mean(dim=1)
    return torch.nn.functional.normalize(mean, dim=-1)


def _fill(template: Template, name: str) -> str:
    if callable(template):
        return template(name)
    if "{}" not in template:
        raise ValueError(f"the template {template!r} has no '{{}}' for the class name: write it where the name belongs")
    return template.replace("{}", name)


def expected_hit(higher: Tensor, tied: Tensor, right: Tensor, k: int) -> Tensor:
    """Probability that one of the `right` candidates is in the top k when equal scores are put in random order.

    Args:
        higher: (Q,) wrong candidates that score strictly higher than the best right one.
        tied: (Q,) all candidates that score the same as the best right one, with itself.
        right: (Q,) right candidates among the tied, at least 1.
        k: length of the list that is looked at.
    """
    places = (k - higher).clamp(min=0).minimum(tied)
    miss = torch.ones(len(higher), dtype=torch.float64)
    for j in range(int(right.max())):  # drawing the places without a right one: hypergeometric
        step = (tied - places - j).clamp(min=0).double() / (tied - j).clamp(min=1)
        miss = torch.where(right > j, miss * step, miss)
    return 1 - miss


def zero_shot_accuracy(
    image_features: Tensor, classifier: Tensor, labels: Sequence[int] | np.ndarray | Tensor, ks: Sequence[int] = (1, 5)
) -> dict[str, float]:
    """Share of images whose class is among the k best: `{"top1": .., "top5": ..}`.

    Args:
        image_features: (N, D) and classifier: (C, D), L2-normalised.
        labels: (N,) rows of the classifier.
    """
    return means(zero_shot_hits(image_features, classifier, labels, ks))


def zero_shot_hits(
    image_features: Tensor, classifier: Tensor, labels: Sequence[int] | np.ndarray | Tensor, ks: Sequence[int] = (1, 5)
) -> dict[str, Tensor]:
    """`zero_shot_accuracy` image by image: (N,) hits, float64 in 0..1 (expected ones where scores tie)."""
    labels = _numbers("labels", labels)
    if len(labels) != len(image_features):
        raise ValueError(f"{len(image_features)} images but {len(labels)} labels")
    if not 0 <= int(labels.min()) <= int(labels.max()) < len(classifier):
        raise ValueError(f"labels {labels.min():d} to {labels.max():d} are not all rows of {len(classifier)} classes")
    return _ranked(
        image_features, classifier, lambda rows: labels[rows, None] == torch.arange(len(classifier)), ks, "top"
    )


def retrieval(
    image_features: Tensor,
    text_features: Tensor,
    image_of_text: Sequence[int] | np.ndarray | Tensor,
    ks: Sequence[int] = (1, 5),
) -> dict[str, float]:
    """Recall at k both ways, with any number of texts an image: `{"i2t_r1": .., "t2i_r1": .., ...}`.

    Image to text: every image with a text is a query, and a hit has *any* of its texts in the top k. Text to image:
    every text is a query. (With five captions an image, COCO's and Flickr30k's protocol.)

    Args:
        image_features: (N, D) and text_features: (T, D), L2-normalised.
        image_of_text: (T,) row of the image that each text describes.

    Raises:
        ValueError: a text without an image, or indices outside the images.
    """
    return means(retrieval_hits(image_features, text_features, image_of_text, ks))


def retrieval_hits(
    image_features: Tensor,
    text_features: Tensor,
    image_of_text: Sequence[int] | np.ndarray | Tensor,
    ks: Sequence[int] = (1, 5),
) -> dict[str, Tensor]:
    """`retrieval` query by query: a hit an image that has a text, and a hit a text (T,); float64 in 0..1."""
    owner = _numbers("image_of_text", image_of_text)
    if len(owner) != len(text_features):
        raise ValueError(f"{len(text_features)} texts but image_of_text has {len(owner)} entries")
    if not 0 <= int(owner.min()) <= int(owner.max()) < len(image_features):
        raise ValueError(f"image_of_text points outside the {len(image_features)} images")
    images = torch.arange(len(image_features))
    asked = images[torch.isin(images, owner)]
    to_text = _ranked(image_features[asked], text_features, lambda rows: asked[rows, None] == owner, ks, "i2t_r")
    return to_text | _ranked(text_features, image_features, lambda rows: owner[rows, None] == images, ks, "t2i_r")


def _ranked(
    queries: Tensor, candidates: Tensor, right_of: Callable[[Tensor], Tensor], ks: Sequence[int], prefix: str
) -> dict[str, Tensor]:
    """Expected hits at each k; `right_of(rows)` marks the right candidates (rows, C) of some queries.

    Raises:
        ValueError: a feature is not a finite number: nothing would be equal or higher, and the result 0 without a word.
    """
    _finite(queries, candidates)
    hits: dict[int, list[Tensor]] = {k: [] for k in ks}
    for rows in torch.arange(len(queries)).split(CHUNK):
        scores = queries[rows] @ candidates.T
        right = right_of(rows)
        best = scores.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
        higher, tied = (scores > best).sum(dim=1), scores == best
        for k in ks:
            hits[k].append(expected_hit(higher, tied.sum(dim=1), (tied & right).sum(dim=1), k))
    return {f"{prefix}{k}": torch.cat(parts) for k, parts in hits.items()}


def _numbers(what: str, given: Sequence[int] | np.ndarray | Tensor) -> Tensor:
    """Row numbers (N,) as int64; 3.0 is 3, as tables with gaps write it.

    Raises:
        ValueError: there are none, or they are no list of whole numbers: cut to whole ones, or spread over a second
            axis, they would give a share that means nothing.
    """
    found = np.asarray(given)
    if found.ndim != 1 or not found.size:
        raise ValueError(f"{what} have shape {found.shape}: a row number for each query, and at least one, is needed")
    if found.dtype.kind == "f" and np.isfinite(found).all() and (found == np.rint(found)).all():
        found = found.astype(np.int64)
    if found.dtype.kind not in "biu":
        odd = [one for one in found.tolist() if not isinstance(one, float) or one != one or one % 1][:3]
        raise ValueError(f"{what} are not all whole numbers, but {odd} for example: give each class's row number")
    return torch.from_numpy(found.astype(np.int64))


def _finite(*features: Tensor) -> None:
    if not all(bool(torch.isfinite(one).all()) for one in features):
        raise ValueError("features that are not finite: is the model whole, and does it bear this precision?")


def means(hits: dict[str, Tensor]) -> dict[str, float]:
    return {name: float(values.mean()) for name, values in hits.items()}


def interval(hits: Tensor, image: Sequence[int] | Tensor | None = None) -> list[float]:
    """The 95 % interval of a mean hit, as other images of the same kind would give it: [low, high].

    Wilson's interval at the number of independent queries that would vary as much: captions of one image are hit or
    missed together, and all hit of ten images is not certainty.

    Args:
        hits: (Q,) in 0..1, at least one.
        image: (Q,) image of each query; None where each has its own.
    """
    hits, owner = hits.double(), torch.arange(len(hits)) if image is None else torch.as_tensor(image, dtype=torch.long)
    owner = owner.unique(return_inverse=True)[1]
    images, mean = int(owner.max()) + 1, float(hits.mean())
    apart = torch.zeros(images, dtype=torch.float64).index_add_(0, owner, hits - mean)
    error = float(apart.square().sum()) / len(hits) ** 2 * images / max(1, images - 1)
    count = min(len(hits), mean * (1 - mean) / error) if error > 0 and 0 < mean < 1 else images
    centre = (mean + Z * Z / (2 * count)) / (1 + Z * Z / count)
    half = Z / (1 + Z * Z / count) * (mean * (1 - mean) / count + Z * Z / (4 * count * count)) ** 0.5
    return [max(0.0, centre - half), min(1.0, centre + half)]


def pair_accuracy(image_features: Tensor, positive_features: Tensor, negative_features: Tensor) -> float:
    """Share of images (N, D) that score their true caption higher than its hard negative; a tie counts half."""
    return float(pair_hits(image_features, positive_features, negative_features).mean())


def pair_hits(image_features: Tensor, positive_features: Tensor, negative_features: Tensor) -> Tensor:
    """`pair_accuracy` image by image: (N,) hits, 0, 0.5 or 1."""
    _finite(image_features, positive_features, negative_features)
    shapes = [tuple(one.shape) for one in (image_features, positive_features, negative_features)]
    if len(set(shapes)) != 1 or not len(image_features):
        raise ValueError(f"features of shapes {shapes}: an image, its caption and its wrong one are rows of one number")
    margin = (image_features * (positive_features - negative_features)).sum(dim=1)
    return (margin > 0).double() + 0.5 * (margin == 0).double()


def top_classes(image_features: Tensor, classifier: Tensor, k: int = 3) -> list[list[int]]:
    """The k best classes of each image, best first."""
    return (image_features @ classifier.T).topk(min(k, len(classifier)), dim=1).indices.tolist()
