"""Agreement with references, diversity, and CLIP score of captions: pure functions on lists of texts.

Paper: MobileCLIP2 (arXiv 2508.20691) reports none of them; CIDEr (arXiv 1411.5726), BLEU and CLIPScore (arXiv
2104.08718) are the field's. CIDEr-D and BLEU follow COCO's own code (tests/golden/captions.json has its values) on the
plain tokenisation of `caption_truth.words`; COCO's tokeniser needs Java, so that numbers compare within a report, not
with published ones. `reports/captions` puts the scores together. Taught by notebooks/20_captioner_finetuning.ipynb.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from mobileclip2_lite.evaluation.caption_truth import check_lists, named, words

if TYPE_CHECKING:
    from torch import Tensor

    from mobileclip2_lite.models.ensemble import TeacherEnsemble
    from mobileclip2_lite.recipes import World

    Teachers = TeacherEnsemble | str | os.PathLike | Sequence[str]

_FUNCTION_WORDS = """
a an the this that these those it its he she they his her their there here i you we my your our and or but of in
on at to by for from with without into over under above below near is are was were be been being has have had do
does not no as if than then so very some any one two three four while which who what where when see
"""
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())
"""English words that say little; the others are the content words of `diversity`."""


def reference_scores(
    captions_by_image: Sequence[Sequence[str]], references: Sequence[Sequence[str]]
) -> dict[str, float | None]:
    """`cider` (0 to 10, the mean over all captions) and corpus `bleu_1` to `bleu_4` (0 to 1) against references.

    CIDEr's word weights come from the references of all images, so that it means nothing for one image and is None
    then; `bleu_n` is None where no caption has n words. An image without references counts nowhere.

    Args:
        captions_by_image: any number of captions an image, each scored by itself.
        references: any number of references an image.

    Raises:
        ValueError: not as many lists of references as images.
    """
    check_lists(captions_by_image, references=references)
    check_lists(references)
    pairs = zip(captions_by_image, references, strict=True)
    plain = [(_plain(own), list(filter(None, _plain(theirs)))) for own, theirs in pairs]
    plain = [(own, theirs) for own, theirs in plain if theirs]
    bleu = _bleu([(caption, theirs) for own, theirs in plain for caption in own])
    return {"cider": _cider(plain)} | {f"bleu_{n}": value for n, value in enumerate(bleu, 1)}


def diversity(captions_by_image: Sequence[Sequence[str]], world: World | None = None) -> dict[str, float | None]:
    """How varied captions are; a value is None where there are no captions to tell it from.

    Of the captions of one image, averaged over images: `distinct_1` to `distinct_3`, distinct n-grams over all n-grams
    (Li et al., arXiv 1510.03055, here an image), and `self_bleu`, corpus BLEU-4 of each caption against the others of
    its image (Zhu et al., arXiv 1802.01886; 1 is always the same). Of all captions: `corpus_distinct_1` to `_3` (falls
    with their number), `unique` (distinct captions over captions), `vocabulary` (words), `length` (mean words), and
    `entropy` in bits of what is mentioned: the world's names with `world`, content words otherwise.
    """
    check_lists(captions_by_image)
    spoken = [[words(caption) for caption in own] for own in captions_by_image]
    flat = [caption for own in spoken for caption in own]
    result: dict[str, float | None] = {
        "length": _mean(map(len, flat)),
        "unique": len({tuple(caption) for caption in flat}) / len(flat) if flat else None,
        "vocabulary": len({word for caption in flat for word in caption}),
        "entropy": _entropy(_mentioned(captions_by_image, world)),
    }
    for n in (1, 2, 3):
        result[f"distinct_{n}"] = _mean(value for own in spoken if (value := _distinct(own, n)) is not None)
        result[f"corpus_distinct_{n}"] = _distinct(flat, n)
    plain = [_plain(own) for own in captions_by_image if len(own) > 1]
    rivals = [(caption, own[:k] + own[k + 1 :]) for own in plain for k, caption in enumerate(own)]
    return result | {"self_bleu": _bleu(rivals)[3]}


def clip_scores(
    captions_by_image: Sequence[Sequence[str]], images: Sequence[Any], teachers: Teachers
) -> dict[str, float | None]:
    """The mean cosine of image and caption (-1 to 1), each caption with its image, for each teacher by name.

    Hessel et al. (arXiv 2104.08718) multiply it by 2.5 and cut at 0.

    Args:
        images: PIL images or uint8 arrays (H, W, 3), one an image.
        teachers: what `load_teachers` takes, or an ensemble.

    Raises:
        ValueError: not as many images as lists of captions.
    """
    check_lists(captions_by_image, images=images)
    ensemble = load_ensemble(teachers)
    return mean_cosines(captions_by_image, image_features(ensemble, lambda: images), ensemble)


def _plain(texts: Iterable[str]) -> list[str]:
    return [" ".join(words(text)) for text in texts]


def _cider(plain: list[tuple[list[str], list[str]]]) -> float | None:
    """Mean CIDEr-D; one caption of every image at a time, as the word weights must not depend on how many there are."""
    if len(plain) < 2 or not any(own for own, _ in plain):
        return None
    weights = _NgramWeights([theirs for _, theirs in plain])
    return _mean(weights.cider_d(caption, theirs) for own, theirs in plain for caption in own)


def _ngrams(caption: str) -> Counter:
    """How often each run of one to four words occurs."""
    spoken = caption.split()
    return Counter(tuple(spoken[at : at + n]) for n in range(1, 5) for at in range(len(spoken) - n + 1))


class _NgramWeights:
    """Inverse document frequencies of n-grams, over images whose references hold them (arXiv 1411.5726, section 3)."""

    def __init__(self, references: Sequence[Sequence[str]]) -> None:
        self.images = math.log(len(references))
        self.found = Counter(gram for theirs in references for gram in set().union(*map(_ngrams, theirs)))

    def vectors(self, caption: str) -> tuple[list[dict[tuple, float]], list[float], int]:
        """Of one caption, for n = 1 to 4: weighted counts and their norms; and its number of word pairs."""
        weighted: list[dict[tuple, float]] = [{}, {}, {}, {}]
        grams = _ngrams(caption)
        for gram, count in grams.items():
            weighted[len(gram) - 1][gram] = count * (self.images - math.log(max(1, self.found[gram])))
        norms = [math.sqrt(math.fsum(value * value for value in one.values())) for one in weighted]
        return weighted, norms, sum(count for gram, count in grams.items() if len(gram) == 2)

    def cider_d(self, caption: str, references: Sequence[str]) -> float:
        """CIDEr-D of one caption: clipped counts and a Gaussian penalty of width 6 on the difference in length."""
        mine, norms, length = self.vectors(caption)
        total = 0.0
        for reference in references:
            theirs, their_norms, their_length = self.vectors(reference)
            near = math.exp(-((length - their_length) ** 2) / (2 * 6.0**2))
            for one, other, norm, their_norm in zip(mine, theirs, norms, their_norms, strict=True):
                product = math.fsum(
                    min(value, other[gram]) * other[gram] for gram, value in one.items() if gram in other
                )
                total += near * (product / (norm * their_norm) if norm and their_norm else product)
        return 10.0 * total / (4 * len(references))


def _bleu(pairs: list[tuple[str, list[str]]]) -> list[float | None]:
    """Corpus BLEU-1 to BLEU-4 of captions, each with its references (closest reference length)."""
    longest = max((len(caption.split()) for caption, _ in pairs), default=0)
    if not longest:
        return [None] * 4
    matched, written, length, wanted = [0] * 4, [0] * 4, 0, 0
    for caption, references in pairs:
        mine, theirs = _ngrams(caption), [_ngrams(reference) for reference in references]
        words_here = len(caption.split())
        length += words_here
        wanted += min((abs(len(text.split()) - words_here), len(text.split())) for text in references)[1]
        for gram, count in mine.items():
            written[len(gram) - 1] += count
            matched[len(gram) - 1] += min(count, max(other[gram] for other in theirs))
    brevity = min(1.0, math.exp(1 - wanted / length))
    values, product = [], 1.0
    for n in range(1, 5):
        # the constants keep a corpus without one match of n words above zero, as COCO's own code does
        product *= (matched[n - 1] + 1e-15) / (written[n - 1] + 1e-9)
        values.append(min(1.0, product ** (1 / n) * brevity) if n <= longest else None)
    return values


def _mean(values: Iterable[float]) -> float | None:
    values = list(values)
    return math.fsum(values) / len(values) if values else None


def _distinct(captions: list[list[str]], n: int) -> float | None:
    grams = [tuple(caption[k : k + n]) for caption in captions for k in range(len(caption) - n + 1)]
    return len(set(grams)) / len(grams) if grams else None


def _mentioned(captions_by_image: Sequence[Sequence[str]], world: World | None) -> Counter:
    """In how many captions each name of the world, or each content word, occurs."""
    count: Counter = Counter()
    for caption in (caption for own in captions_by_image for caption in own):
        count.update(named(caption, world) if world else set(words(caption)) - FUNCTION_WORDS)
    return count


def _entropy(count: Counter) -> float | None:
    total = count.total()
    return math.fsum(-n / total * math.log2(n / total) for n in count.values()) + 0.0 if total else None


def load_ensemble(teachers: Teachers, device: str | None = None) -> TeacherEnsemble:
    """The ensemble of those names, on `device` (None: a CUDA GPU, if there is one), or the one given, where it is."""
    from mobileclip2_lite.models.embedded import pick_device
    from mobileclip2_lite.models.ensemble import TeacherEnsemble
    from mobileclip2_lite.models.teachers import load_teachers

    return teachers if isinstance(teachers, TeacherEnsemble) else load_teachers(teachers).to(pick_device(device))


def image_features(ensemble: TeacherEnsemble, images: Callable[[], Iterable[Any]]) -> dict[str, Tensor]:
    """Image features (N, D) by teacher; `images()` gives the images, once a teacher."""
    from mobileclip2_lite.models.loaded import encode_images

    return {name: encode_images(ensemble.loaded(name), images()) for name in ensemble.names}


def mean_cosines(
    captions_by_image: Sequence[Sequence[str]], features: dict[str, Tensor], ensemble: TeacherEnsemble
) -> dict[str, float | None]:
    """`clip_scores` of the features (N, D) of `image_features`."""
    from mobileclip2_lite.evaluation.suite import flatten_captions
    from mobileclip2_lite.models.loaded import encode_texts

    texts, owner = flatten_captions(captions_by_image)
    if not texts:
        return dict.fromkeys(features)
    scores = {}
    for name, images in features.items():
        cosines = (images[owner] * encode_texts(ensemble.loaded(name), texts)).sum(dim=1)
        scores[name] = float(cosines.double().mean())
    return scores
