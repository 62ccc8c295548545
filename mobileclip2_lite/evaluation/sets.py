"""Public test sets in the forms in which they are published, measured alike: one JSON result a set.

MobileCLIP2 (arXiv 2508.20691), section 4: 38 sets of DataComp, Flickr30k and COCO retrieval. A reader (`wds_sets`,
`caption_files`) gives a `TestSet`; `evaluate_set` measures it by its kind and says on what: set, split, templates,
captions, weights. A sample that cannot be used is left out with its texts and counted by reason. Differs from
CLIP-benchmark: ties count as chance, and a damaged file is an error instead of a smaller set. Gives up: sets with
several labels an image. Taught by notebooks/40_reinforced_training.ipynb.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mobileclip2_lite.evaluation.measures import (
    TEMPLATES,
    Template,
    expected_hit,
    interval,
    means,
    retrieval_hits,
    zero_shot_classifier,
    zero_shot_hits,
)
from mobileclip2_lite.evaluation.suite import flatten_captions
from mobileclip2_lite.models.loaded import FirstDimensions, encode_images, encode_texts, first_dimensions
from mobileclip2_lite.views.images import read_image
from mobileclip2_lite.work.bad_sample import BadSample
from mobileclip2_lite.work.files import sha256_bytes

if TYPE_CHECKING:
    from mobileclip2_lite.models.zoo import LoadedModel

KINDS = ("classification", "retrieval", "hard_negatives")


class Example(NamedTuple):
    """One image of a test set and what belongs to it."""

    image: bytes | Path
    """Encoded image, or its file."""
    label: int = -1
    """Class, for kind `classification`."""
    texts: tuple[str, ...] = ()
    """Captions (`retrieval`), or right captions (`hard_negatives`)."""
    negatives: tuple[str, ...] = ()
    """Wrong captions (`hard_negatives`)."""


@dataclass(frozen=True)
class TestSet:
    """A public test set, ready to be read as often as wanted."""

    name: str
    """As it is published: `imagenet1k`, `coco`, `swap_att`."""
    kind: str
    """One of `KINDS`."""
    split: str
    """The split in its publisher's words: `test`, `karpathy test`."""
    source: str
    """File, folder or address that was read."""
    examples: Callable[[], Iterator[Example | BadSample]]
    """Reads the set from its beginning; a sample that lacks something comes as what is wrong with it."""
    class_names: tuple[str, ...] = ()
    """Names in the order of the labels."""
    templates: tuple[Template, ...] = ()
    """Prompts that belong to the set; () takes the library's own."""
    parts: tuple[Callable[[], Iterator[Example | BadSample]], ...] = ()
    """Reads one tar of the set each, in their order; () where it does not lie in tars."""

    __test__ = False  # pytest would take the class for a test


def evaluate_set(
    loaded: LoadedModel,
    test_set: TestSet,
    templates: Sequence[Template] = (),
    batch_size: int = 256,
    dimensions: Sequence[int] = (),
) -> dict[str, Any]:
    """Measure a model on one set.

    Args:
        loaded: model, preprocess and tokenizer together.
        test_set: from one of the readers, or `open_set`.
        templates: prompts to use instead of the set's own.
        batch_size: images or texts a forward pass; it does not change the result.
        dimensions: measure embeddings cut to their first dimensions, too (of models trained with a nested loss).

    Returns:
        `set`, `kind`, `split`, `source`, `images`, `texts` or `classes`, `templates`, `dropped` (unreadable images by
        reason), `measures` (shares between 0 and 1), `interval` (95 %, over the set's images: low and high of most of
        them) and `chance` (the same for a model that guesses); `by_dimensions` holds the measures of each cut. Of hard
        negatives `images` counts rows, of which several may ask about one of its `distinct_images`. JSON data.

    Raises:
        ValueError: the set has no readable image, a label outside its classes, or no class names.
    """
    kept, dropped, features = embed(loaded, test_set.examples(), batch_size)
    return measured(loaded, test_set, features, kept, dropped, templates, batch_size, dimensions)


def embed(
    loaded: LoadedModel, examples: Iterator[Example | BadSample], batch_size: int
) -> tuple[list[Example], Counter[str], Tensor | None]:
    """The examples whose images decode, reasons of the others, and features (N, D); None of no image."""
    kept: list[Example] = []
    dropped: Counter[str] = Counter()
    pixels = readable(examples, kept, dropped)
    first = next(pixels, None)
    return kept, dropped, None if first is None else encode_images(loaded, _chain(first, pixels), batch_size)


def measured(
    loaded: LoadedModel,
    test_set: TestSet,
    features: Tensor | None,
    kept: list[Example],
    dropped: Counter[str],
    templates: Sequence[Template],
    batch_size: int,
    dimensions: Sequence[int],
) -> dict[str, Any]:
    """What `evaluate_set` returns, of images that have been embedded."""
    measure = {"classification": _classification, "retrieval": _retrieval, "hard_negatives": _hard_negatives}
    if test_set.kind not in measure:
        raise ValueError(f"{test_set.source}: kind {test_set.kind!r} is not measured; one of {', '.join(KINDS)} is")
    if features is None:
        raise ValueError(f"{test_set.source}: no image of {test_set.name} could be read ({dict(dropped) or 'none'})")

    def by_size(size: int | None = None) -> dict[str, Any]:
        cut = features if size is None else first_dimensions(features, size)
        model = loaded if size is None else loaded._replace(model=FirstDimensions(loaded.model, size))
        return measure[test_set.kind](model, test_set, cut, kept, tuple(templates), batch_size)

    facts = by_size()
    if dimensions:
        facts["by_dimensions"] = {str(size): by_size(size)["measures"] for size in dimensions}
    return {
        "set": test_set.name,
        "kind": test_set.kind,
        "split": test_set.split,
        "source": test_set.source,
        "images": len(kept),
        "dropped": dict(dropped),
        **facts,
    }


def _chain(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


def readable(examples: Iterator[Example | BadSample], kept: list[Example], dropped: Counter[str]) -> Iterator[Any]:
    """Images that decode; their examples go to `kept` with a hash for the bytes, the others are counted by reason."""
    for example in examples:
        try:
            if isinstance(example, BadSample):
                raise example
            image = read_image(example.image)
        except BadSample as error:
            dropped[error.reason] += 1
            continue
        kept.append(example._replace(image=_which(example.image)))
        yield image


def _which(image: bytes | Path) -> bytes | Path:
    """What tells one image from another when its bytes are gone: the file, or a hash."""
    return image if isinstance(image, Path) else sha256_bytes(image).encode()


def _classification(
    loaded: LoadedModel,
    test_set: TestSet,
    features: Tensor,
    kept: list[Example],
    templates: tuple[Template, ...],
    batch_size: int,
) -> dict[str, Any]:
    names = list(test_set.class_names)
    if not names:
        raise ValueError(f"{test_set.source} names no classes: a `classnames.txt` with one name a line is needed")
    labels = np.array([example.label for example in kept])
    if outside := sorted({int(label) for label in labels if not 0 <= label < len(names)}):
        raise ValueError(f"{test_set.source}: labels {outside[:5]} are outside its {len(names)} class names")
    prompts = templates or test_set.templates or TEMPLATES
    classifier = zero_shot_classifier(loaded, names, prompts, batch_size)
    hits = zero_shot_hits(features, classifier, labels)
    measures = means(hits)
    measures["mean_per_class_recall"] = float(np.mean([float(hits["top1"][labels == c].mean()) for c in set(labels)]))
    chance = {"top1": 1 / len(names), "top5": min(1.0, 5 / len(names)), "mean_per_class_recall": 1 / len(names)}
    shown = [template if isinstance(template, str) else getattr(template, "__name__", "?") for template in prompts]
    intervals = {name: interval(values) for name, values in hits.items()}
    return {"classes": len(names), "templates": shown, "measures": measures, "interval": intervals, "chance": chance}


def _retrieval(
    loaded: LoadedModel, test_set: TestSet, features: Tensor, kept: list[Example], templates: tuple, batch_size: int
) -> dict[str, Any]:
    if templates:
        raise ValueError(f"{test_set.name} is a retrieval set: its captions go as they are, without templates")
    texts, owner = flatten_captions([example.texts for example in kept])
    if not texts:
        raise ValueError(f"{test_set.source} has no captions")
    ks = (1, 5, 10)
    hits = retrieval_hits(features, encode_texts(loaded, texts, batch_size), owner, ks)
    measures = means(hits)
    measures["mean_r1"] = (measures["i2t_r1"] + measures["t2i_r1"]) / 2
    counts = [len(example.texts) for example in kept]
    intervals = {name: interval(values, owner if name.startswith("t2i") else None) for name, values in hits.items()}
    intervals["mean_r1"] = interval((hits["i2t_r1"] + _by_image(hits["t2i_r1"], counts)) / 2)
    chance = {f"t2i_r{k}": min(1.0, k / len(kept)) for k in ks}
    asked = torch.tensor([count for count in counts if count])
    every = torch.full_like(asked, len(texts))
    chance |= {f"i2t_r{k}": float(expected_hit(0 * asked, every, asked, k).mean()) for k in ks}
    return {
        "texts": len(texts),
        "captions_an_image": [min(counts), max(counts)],
        "measures": measures,
        "interval": intervals,
        "chance": {**chance, "mean_r1": (chance["i2t_r1"] + chance["t2i_r1"]) / 2},
    }


def _by_image(hits: Tensor, counts: Sequence[int]) -> Tensor:
    """The mean hit of each image's texts, of the images that have some."""
    return torch.stack([own.mean() for own in hits.split([count for count in counts if count])])


def _hard_negatives(
    loaded: LoadedModel, test_set: TestSet, features: Tensor, kept: list[Example], templates: tuple, batch_size: int
) -> dict[str, Any]:
    if templates:
        raise ValueError(f"{test_set.name} is a set of hard negatives: its captions go as they are, without templates")
    shapes = {(len(example.texts), len(example.negatives)) for example in kept}
    if len(shapes) != 1 or 0 in next(iter(shapes)):
        raise ValueError(f"{test_set.source}: every row needs as many captions and negatives as the others: {shapes}")
    right, wrong = next(iter(shapes))
    positive = encode_texts(loaded, [t for e in kept for t in e.texts], batch_size).reshape(len(kept), right, -1)
    negative = encode_texts(loaded, [t for e in kept for t in e.negatives], batch_size).reshape(len(kept), wrong, -1)
    image = features[:, None]
    hits = {"accuracy": all_above((image * positive).sum(-1), (image * negative).sum(-1))}
    chance = {"accuracy": 1 / math.comb(right + wrong, right)}
    if right == 2:  # SugarCrepe++'s second task: the two right captions are nearer to each other than to the wrong one
        together = (positive[:, 0] * positive[:, 1]).sum(-1, keepdim=True)
        apart = (positive[:, :, None] * negative[:, None]).sum(-1).flatten(1)
        hits["text_accuracy"] = all_above(together, apart)
        chance["text_accuracy"] = 1 / (1 + 2 * wrong)
    numbers: dict[bytes | Path, int] = {}  # several rows may ask about one image, and are hit or missed together
    owner = [numbers.setdefault(example.image, len(numbers)) for example in kept]
    return {
        "texts": len(kept) * (right + wrong),
        "distinct_images": len(numbers),
        "measures": means(hits),
        "interval": {name: interval(values, owner) for name, values in hits.items()},
        "chance": chance,
    }


def all_above(right: Tensor, wrong: Tensor) -> Tensor:
    """(N,) whether every right score of a row is above every wrong one; ties count as if broken at random.

    Args:
        right: (N, P) and wrong: (N, Q) scores.
    """
    low, high = right.amin(dim=1, keepdim=True), wrong.amax(dim=1, keepdim=True)
    tied_right, tied_wrong = (right == low).sum(dim=1), (wrong == low).sum(dim=1)
    chances = [1 / math.comb(int(a) + int(b), int(a)) for a, b in zip(tied_right, tied_wrong, strict=True)]
    hit = (low > high).squeeze(1).double()
    tie = (low == high).squeeze(1)
    return torch.where(tie, torch.tensor(chances, dtype=torch.float64), hit)
