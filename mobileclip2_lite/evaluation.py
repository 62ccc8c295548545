"""What a CLIP model can do untrained for it: zero-shot naming, retrieval both ways, binding, relations, shifts.

MobileCLIP2 (arXiv 2508.20691), section 4: zero-shot ImageNet, Flickr30k and COCO retrieval, 38 data sets. Reads a
`LoadedModel` and images with texts; writes nothing and returns plain numbers between 0 and 1. Differs from the paper:
the embedded world knows the truth of every picture, so that attribute binding and relations are measured with hard
negatives (like SugarCrepe) and the shifts are exact. One rule for all: ties are broken at random and the *expected*
value is returned, so that a model that gives everything the same score gets exactly the chance level. `own_data` has
the same measures for a user's images. Taught by notebooks/40_reinforced_training.ipynb.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from mobileclip2_lite.models.zoo import LoadedModel
    from mobileclip2_lite.recipes import Evaluate, World

TEMPLATES = ("a photo of a {}.", "a picture of a {}.", "an image of a {}.", "{}.")
"""Prompts for a user's own classes, where nothing better is known."""
PARTS = ("zero_shot", "shifts", "retrieval", "binding", "relations")
"""What `evaluate` measures."""
CHUNK = 1_024
"""Queries compared at a time, so that no similarity matrix grows beyond memory."""

Template = str | Callable[[str], str]


@contextlib.contextmanager
def _inference(model: torch.nn.Module) -> Iterator[torch.device]:
    """Evaluation mode without gradients; the training mode that was is put back. Yields the model's device."""
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield next(model.parameters()).device
    finally:
        model.train(training)


def _batches(items: Iterable[Any], size: int) -> Iterator[list]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def encode_images(loaded: LoadedModel, images: Iterable[Any], batch_size: int = 256) -> Tensor:
    """Image features (N, D), L2-normalised float32 on the CPU.

    Args:
        loaded: model, preprocess and tokenizer together.
        images: PIL images or uint8 arrays (H, W, 3), in any number: they are taken a batch at a time.
        batch_size: images a forward pass; it does not change the result.

    Raises:
        ValueError: `images` is empty.
    """
    from PIL import Image

    def pixels(image: Any) -> Tensor:
        image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
        return torch.from_numpy(np.array(loaded.preprocess.resize(image.convert("RGB")))).permute(2, 0, 1)

    features = []
    with _inference(loaded.model) as device:
        for batch in _batches(images, batch_size):
            normalised = loaded.preprocess.normalize(torch.stack([pixels(image) for image in batch])).to(device)
            features.append(loaded.model.encode_image(normalised, normalize=True).float().cpu())
    if not features:
        raise ValueError("encode_images was given no image")
    return torch.cat(features)


def encode_texts(loaded: LoadedModel, texts: Iterable[str], batch_size: int = 256) -> Tensor:
    """Text features (N, D), L2-normalised float32 on the CPU; a text that occurs twice is encoded once.

    Texts go in order of length, so that a batch is cut to its own longest text where the tower allows it exactly.

    Raises:
        ValueError: `texts` is empty.
    """
    from mobileclip2_lite.models.trimming import trim

    texts = list(texts)
    if not texts:
        raise ValueError("encode_texts was given no text")
    unique = sorted(dict.fromkeys(texts), key=len)
    features = []
    with _inference(loaded.model) as device:
        for batch in _batches(unique, batch_size):
            tokens = trim(loaded.model, loaded.tokenizer(batch)).to(device)
            features.append(loaded.model.encode_text(tokens, normalize=True).float().cpu())
    row = {text: index for index, text in enumerate(unique)}
    return torch.cat(features)[[row[text] for text in texts]]


def zero_shot_classifier(
    loaded: LoadedModel, classnames: Sequence[str], templates: Sequence[Template] = TEMPLATES, batch_size: int = 256
) -> Tensor:
    """Class weights (C, D): the normalised mean over the prompts' normalised features (CLIP's prompt ensembling).

    Args:
        classnames: C names as they stand in a sentence.
        templates: strings with one `{}`, or functions from a name to a prompt.
    """
    prompts = [_fill(template, name) for name in classnames for template in templates]
    features = encode_texts(loaded, prompts, batch_size)
    mean = features.reshape(len(classnames), len(templates), -1).mean(dim=1)
    return torch.nn.functional.normalize(mean, dim=-1)


def _fill(template: Template, name: str) -> str:
    if callable(template):
        return template(name)
    if "{}" not in template:
        raise ValueError(f"the template {template!r} has no '{{}}' for the class name")
    return template.format(name)


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
    labels = torch.as_tensor(np.asarray(labels), dtype=torch.long)
    if len(labels) != len(image_features):
        raise ValueError(f"{len(image_features)} images but {len(labels)} labels")
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
    owner = torch.as_tensor(np.asarray(image_of_text), dtype=torch.long)
    if len(owner) != len(text_features):
        raise ValueError(f"{len(text_features)} texts but image_of_text has {len(owner)} entries")
    if len(owner) and not 0 <= int(owner.min()) <= int(owner.max()) < len(image_features):
        raise ValueError(f"image_of_text points outside the {len(image_features)} images")
    images = torch.arange(len(image_features))
    asked = images[torch.isin(images, owner)]
    to_text = _ranked(image_features[asked], text_features, lambda rows: asked[rows, None] == owner, ks, "i2t_r")
    return to_text | _ranked(text_features, image_features, lambda rows: owner[rows, None] == images, ks, "t2i_r")


def _ranked(
    queries: Tensor, candidates: Tensor, right_of: Callable[[Tensor], Tensor], ks: Sequence[int], prefix: str
) -> dict[str, float]:
    """Mean expected hit at each k; `right_of(rows)` marks the right candidates (rows, C) of some queries."""
    total = dict.fromkeys(ks, 0.0)
    for rows in torch.arange(len(queries)).split(CHUNK):
        scores = queries[rows] @ candidates.T
        right = right_of(rows)
        best = scores.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
        higher, tied = (scores > best).sum(dim=1), scores == best
        for k in ks:
            total[k] += float(expected_hit(higher, tied.sum(dim=1), (tied & right).sum(dim=1), k).sum())
    return {f"{prefix}{k}": value / len(queries) for k, value in total.items()}


def pair_accuracy(image_features: Tensor, positive_features: Tensor, negative_features: Tensor) -> float:
    """Share of images (N, D) that score their true caption higher than its hard negative; a tie counts half."""
    margin = (image_features * (positive_features - negative_features)).sum(dim=1)
    return float(((margin > 0).double() + 0.5 * (margin == 0).double()).mean())


def top_classes(image_features: Tensor, classifier: Tensor, k: int = 3) -> list[list[int]]:
    """The k best classes of each image, best first."""
    return (image_features @ classifier.T).topk(min(k, len(classifier)), dim=1).indices.tolist()


def flatten_captions(captions: Sequence[Sequence[str]]) -> tuple[list[str], list[int]]:
    """All texts in one list, and the image of each."""
    texts = [text for own in captions for text in own]
    return texts, [image for image, own in enumerate(captions) for _ in own]


@lru_cache(maxsize=8)
def zero_shot_images(world: World, renders: int, shift: str | None = None) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """One zero-shot set of the embedded world, rendered once a process: images (N, H, W, 3), labels (N,), names."""
    from mobileclip2_lite import emoji_world

    images, labels, names = emoji_world.zero_shot_set(world, renders, shift)
    return np.stack(list(images)), np.asarray(labels), list(names)


@lru_cache(maxsize=2)
def retrieval_images(world: World, scenes: int) -> tuple[np.ndarray, list[list[str]]]:
    """The retrieval set of the embedded world, rendered once a process: images (N, H, W, 3), five captions each."""
    from mobileclip2_lite import emoji_world

    images, captions = emoji_world.retrieval_set(world, scenes)
    return np.stack(list(images)), list(captions)


@lru_cache(maxsize=4)
def negative_images(world: World, kind: str, count: int) -> tuple[np.ndarray, list[str], list[str]]:
    """Hard negatives (`binding` or `relations`), rendered once a process: images, true captions, false captions."""
    from mobileclip2_lite import emoji_world

    make = {"binding": emoji_world.binding_set, "relations": emoji_world.relations_set}[kind]
    images, positive, negative = make(world, count)
    return np.stack(list(images)), list(positive), list(negative)


def evaluate(loaded: LoadedModel, world: World, settings: Evaluate, only: Collection[str] = PARTS) -> dict[str, float]:
    """Every measure of the embedded world for one model; `chance` gives the same keys for a model that guesses.

    Args:
        only: which of `PARTS` to measure; a learning curve needs few.

    Returns:
        shares between 0 and 1: `zero_shot` and `zero_shot_top5`; `zero_shot_<shift>`; `retrieval_i2t_r1`,
        `retrieval_t2i_r1` and both `_r5`; `binding`; `relations`.

    Raises:
        ValueError: `only` names something that is not in `PARTS`.
    """
    from mobileclip2_lite import emoji_world

    if unknown := set(only) - set(PARTS):
        raise ValueError(f"evaluate: unknown parts {sorted(unknown)}; there are {PARTS}")
    size, result = settings.batch_size, {}
    classifier = None
    for shift in ((None,) if "zero_shot" in only else ()) + (emoji_world.SHIFTS if "shifts" in only else ()):
        images, labels, names = zero_shot_images(world, settings.renders, shift)
        if classifier is None:
            classifier = zero_shot_classifier(loaded, names, emoji_world.TEMPLATES, size)
        accuracy = zero_shot_accuracy(encode_images(loaded, images, size), classifier, labels)
        result |= {f"zero_shot_{shift}": accuracy["top1"]} if shift else {"zero_shot": accuracy["top1"]}
        result |= {} if shift else {"zero_shot_top5": accuracy["top5"]}
    if "retrieval" in only:
        images, captions = retrieval_images(world, settings.scenes)
        texts, owner = flatten_captions(captions)
        recalls = retrieval(encode_images(loaded, images, size), encode_texts(loaded, texts, size), owner)
        result |= {f"retrieval_{key}": value for key, value in recalls.items()}
    for kind in ("binding", "relations"):
        if kind in only:
            images, positive, negative = negative_images(world, kind, settings.hard_negatives)
            true, false = encode_texts(loaded, positive, size), encode_texts(loaded, negative, size)
            result[kind] = pair_accuracy(encode_images(loaded, images, size), true, false)
    return result


def chance(world: World, settings: Evaluate, captions_per_scene: int = 5) -> dict[str, float]:
    """What guessing scores on each measure of `evaluate`, exactly."""
    from mobileclip2_lite import emoji_world

    names, scenes = len(emoji_world.names(world.names)), settings.scenes
    result = {"zero_shot": 1 / names, "zero_shot_top5": min(1.0, 5 / names)}
    result |= {f"zero_shot_{shift}": 1 / names for shift in emoji_world.SHIFTS}
    texts = scenes * captions_per_scene
    for k in (1, 5):
        one = torch.ones(1, dtype=torch.long)
        hit = expected_hit(0 * one, texts * one, captions_per_scene * one, k)
        result |= {f"retrieval_i2t_r{k}": float(hit), f"retrieval_t2i_r{k}": min(1.0, k / scenes)}
    return result | {"binding": 0.5, "relations": 0.5}
