"""Teachers for photographs, made in minutes from packages: a frozen classifier, a frozen sentence encoder, a map.

None of the parts has seen an image-text pair. The image tower is an EfficientNet-Lite that knows a thousand names, the
text tower a MiniLM sentence encoder, and what joins them is fitted, in three ways that fail differently:

    photo-teacher-names      the class probabilities' mean of the names' embeddings (ConSE, arXiv 1312.5650)
    photo-teacher-vectors    a ridge map from the classifier's class vectors to the names' embeddings (after DeViSE)
    photo-teacher-captions   the same with the images and captions of a folder of yours beside the class vectors

They are ordinary models: `create_model`, `load_teachers` and every stage take them by name. Reads installed packages
(`photo_packages`) and, for the last, images with texts; writes model folders. Gives up: fine detail, counting, places;
what a card says of R@1 is far below a published CLIP's. Taught by notebooks/10_teacher_ensemble.ipynb.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mobileclip2_lite.models import photo_packages
from mobileclip2_lite.models.folders import PHOTO_TEACHERS, photo_folder
from mobileclip2_lite.models.loaded import LoadedModel, batches, encode_texts
from mobileclip2_lite.models.preprocess import Preprocess
from mobileclip2_lite.models.sentence_encoder import WordPiece, from_bert
from mobileclip2_lite.models.zoo import build, save_model

CONTEXT = 128
"""Tokens of a text: as the sentence encoders were trained."""
PENALTY = {"vectors": 1.0, "captions": 0.3}
"""Of the ridge maps, as a share of the mean variance of a feature (ours, chosen on 600 photographs, never on those that
a card's numbers are of)."""
HELD_OUT = 200
"""Names that the map of `unseen_names` never saw."""


@dataclass(frozen=True)
class Kind:
    """What a photograph teacher is made of."""

    image: str
    """Classifier, a name of `photo_packages.FILES`."""
    image_size: int
    """Its side in pixels."""
    text: str
    """Sentence encoder, a name of `photo_packages.FILES`."""
    layers: int
    """Of the sentence encoder."""
    map: str
    """`names`, `vectors` or `captions`."""
    logit_scale: float
    """Inverse temperature of its targets, at which captions of photographs that it was not fitted on were found with
    the least surprise in batches of 128 (`best_scale`; 800 of Flickr8k, 200 for `captions`)."""


_NAMES, _VECTORS, _CAPTIONS = PHOTO_TEACHERS
KINDS = {
    _NAMES: Kind("lite0", 224, "paraphrase", 3, "names", 12.0),
    _VECTORS: Kind("lite1", 240, "minilm", 6, "vectors", 16.0),
    _CAPTIONS: Kind("lite2", 260, "minilm", 6, "captions", 16.0),
}


def make(name: str, pairs: Iterable[tuple[Any, Sequence[str]]] = (), batch_size: int = 32) -> LoadedModel:
    """A photograph teacher from the packages.

    Args:
        name: of `KINDS`.
        pairs: (PIL image, its texts), for `photo-teacher-captions` alone.
        batch_size: images a pass; it does not change the result.

    Raises:
        ValueError: no such teacher, no pairs where they are needed, or a package's file is another than was looked at.
        ModuleNotFoundError: a package of the extra `photos` is missing.
    """
    if name not in KINDS:
        raise ValueError(f"no photograph teacher {name!r}: {', '.join(KINDS)}")
    kind = KINDS[name]
    loaded = _frozen_parts(kind)
    known = _class_vectors(kind)
    template = "{}" if kind.map == "names" else "a photo of a {}"
    names = encode_texts(loaded, [template.format(name) for name in imagenet_names()])
    visual = loaded.model.visual
    with torch.no_grad():
        if kind.map == "names":
            visual.trunk.classifier.names.weight.copy_(names.T)
        else:
            vectors, wanted = known, names
            if kind.map == "captions":
                vectors, wanted = _beside_captions(loaded, known, pairs, batch_size)
            weight, bias = ridge(vectors, wanted, PENALTY[kind.map])
            visual.head.proj.weight.copy_(weight)
            visual.head.proj.bias.copy_(bias)
        loaded.model.logit_scale.fill_(math.log(kind.logit_scale))
    return loaded


def save(name: str, loaded: LoadedModel, card: dict[str, Any], folder: str | os.PathLike | None = None) -> Path:
    """Write a teacher where its name finds it (`folders.photo_folder`), or into `folder`; returns that folder."""
    kind = KINDS[name]
    card = {
        "parts": {part: photo_packages.FILES[part].package for part in (kind.image, kind.text, "wordpiece")},
        "map": kind.map,
        "logit_scale": kind.logit_scale,
        **card,
    }
    return save_model(loaded, photo_folder(name) if folder is None else folder, name=name, card=card)


def imagenet_names() -> list[str]:
    """ImageNet-1k's thousand names in the order of the classes, as OpenAI wrote them for CLIP."""
    from open_clip import IMAGENET_CLASSNAMES

    return list(IMAGENET_CLASSNAMES)


def ridge(features: Tensor, wanted: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """The linear map with the least squared error and small weights: (D, F) and (D,).

    Args:
        features: (N, F).
        wanted: (N, D).
        penalty: weight of the map's squared size, in units of a feature's mean variance times N.
    """
    x, y = features.double(), wanted.double()
    centre, middle = x.mean(0), y.mean(0)
    x, y = x - centre, y - middle
    gram = x.T @ x
    gram.diagonal().add_(penalty * gram.diagonal().mean())
    weight = torch.linalg.solve(gram, x.T @ y).T
    return weight.float(), (middle - weight @ centre).float()


def unseen_names(name: str, seed: int = 0) -> dict[str, float]:
    """How a map from names does on names it never saw: class vectors of `HELD_OUT` classes among as many names.

    Returns:
        `top1` over the unseen names, `chance`. Nothing of an image is in it.
    """
    kind = KINDS[name]
    vectors = _class_vectors(kind)
    names = encode_texts(_frozen_parts(kind), [f"a photo of a {name}" for name in imagenet_names()])
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed))
    unseen, seen = order[:HELD_OUT], order[HELD_OUT:]
    weight, bias = ridge(vectors[seen], names[seen], PENALTY["vectors"])
    found = F.normalize(vectors[unseen] @ weight.T + bias, dim=-1) @ names[unseen].T
    return {"top1": found.argmax(1).eq(torch.arange(HELD_OUT)).float().mean().item(), "chance": 1 / HELD_OUT}


def _model_cfg(kind: Kind) -> dict[str, Any]:
    """open_clip's config, with `sentence_encoder` for our text tower."""
    tower = f"tf_efficientnet_{kind.image}"
    if kind.map == "names":
        vision = {"timm_model_name": f"named_efficientnet_{kind.image}", "timm_proj": ""}
    else:
        vision = {"timm_model_name": tower, "timm_proj": "linear", "timm_proj_bias": True}
    return {
        "embed_dim": 384,
        "vision_cfg": {**vision, "timm_model_pretrained": False, "timm_pool": "avg", "image_size": kind.image_size},
        "text_cfg": {
            "sentence_encoder": "bert",
            "context_length": CONTEXT,
            "vocab_size": 30_522,
            "width": 384,
            "heads": 12,
            "layers": kind.layers,
        },
        "custom_text": True,
    }


def _frozen_parts(kind: Kind) -> LoadedModel:
    """The model with the classifier's and the sentence encoder's weights; what joins them is still random."""
    model = build(_model_cfg(kind))
    state = classifier_weights(kind)
    head = {key: state.pop(f"classifier.{key}") for key in ("weight", "bias")}
    if kind.map == "names":
        state |= {f"classifier.known.{key}": value for key, value in head.items()}
        state["classifier.names.weight"] = model.visual.trunk.classifier.names.weight.detach()
    model.visual.trunk.load_state_dict(state)
    model.text.load_state_dict(from_bert(photo_packages.sentence_state(kind.text), CONTEXT))
    preprocess = Preprocess(kind.image_size, (0.5,) * 3, (0.5,) * 3, "bicubic", "shortest")
    return LoadedModel(model, preprocess, WordPiece(photo_packages.read("wordpiece"), CONTEXT))


def classifier_weights(kind: Kind) -> dict[str, Tensor]:
    """The packaged classifier of a teacher under timm's names, with its head of a thousand classes.

    Raises:
        ModuleNotFoundError, ValueError: as `make`.
    """
    import timm

    keys = list(timm.create_model(f"tf_efficientnet_{kind.image}").state_dict())
    return photo_packages.classifier_state(kind.image, keys)


def _class_vectors(kind: Kind) -> Tensor:
    """(1000, F): the rows of the classifier, each the direction of its class among the features."""
    return classifier_weights(kind)["classifier.weight"]


def _beside_captions(
    loaded: LoadedModel, vectors: Tensor, pairs: Iterable[tuple[Any, Sequence[str]]], batch_size: int
) -> tuple[Tensor, Tensor]:
    """Features and wanted embeddings: of the images, their captions' mean; and the class vectors with their names.

    A class vector stands for an image of its class: the images' mean feature, moved in the class's direction by half an
    image's length.
    """
    features, wanted = [], []
    for batch in batches(pairs, batch_size):
        pixels = torch.stack([loaded.preprocess(image) for image, _ in batch])
        with torch.inference_mode():
            features.append(loaded.model.visual.trunk(pixels))
        flat = encode_texts(loaded, [text for _, texts in batch for text in texts])
        wanted += [rows.mean(0) for rows in flat.split([len(texts) for _, texts in batch])]
    if not features:
        raise ValueError("photo-teacher-captions is fitted on images with captions: give a folder of pairs")
    seen = torch.cat(features)
    if len(seen) < 100:
        warnings.warn(f"a map fitted on {len(seen)} images knows little more than the names", stacklevel=3)
    moved = F.normalize(vectors - vectors.mean(0), dim=-1) * seen.norm(dim=1).mean() / 2 + seen.mean(0)
    photo = encode_texts(loaded, [f"a photo of a {name}" for name in imagenet_names()])
    return torch.cat([seen, moved]), torch.cat([F.normalize(torch.stack(wanted), dim=-1), photo])


def best_scale(images: Tensor, texts: Tensor, batch: int = 128) -> float:
    """The logit scale at which rows of a batch find their partners with the least surprise, both ways.

    Args:
        images, texts: unit features (N, D), row i of one belonging to row i of the other, none of them fitted on.
    """

    def surprise(scale: float) -> float:
        total = 0.0
        for i in range(0, len(images) - batch + 1 or 1, batch):
            logits = scale * images[i : i + batch] @ texts[i : i + batch].T
            own = torch.arange(len(logits))
            total += float(F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own))
        return total

    return min((2 ** (step / 4) for step in range(8, 29)), key=surprise)
