"""The report's pictures of single samples: what models answer, and what reinforcement stored.

No paper section. Reads trained models, the embedded world's test scenes and one reinforced shard; returns blocks of
`page`. Which samples are shown is drawn from a seed, never chosen by hand, except where the text says how. Read by
`report`; looked at in notebooks/00_start_here.ipynb.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mobileclip2_lite.recipes import World
from mobileclip2_lite.reports import page
from mobileclip2_lite.shards.keys import IMAGE, TEXT, embedding_key, teachers_of
from mobileclip2_lite.work.folder import read_manifest
from mobileclip2_lite.work.randomness import rng

if TYPE_CHECKING:
    from mobileclip2_lite.models.loaded import LoadedModel
    from mobileclip2_lite.shards.samples import Sample

SIDE = 192
"""Pixels of a published scene; models see it at the world's own size."""


def answers(
    models: Mapping[str, LoadedModel], world: World, renders: int, count: int = 8, seed: str = "report", k: int = 3
) -> list[dict[str, Any]]:
    """Scenes of the zero-shot set with each model's best names.

    Args:
        models: who is asked.
        count: scenes, of different names, drawn from `seed`.
        k: names an answer, best first.

    Returns:
        One dict a scene: `image` (uint8, SIDE x SIDE), `name` (the truth) and `answers`, model to its k best names.
    """
    from mobileclip2_lite import emoji_world
    from mobileclip2_lite.evaluation.measures import top_classes, zero_shot_classifier
    from mobileclip2_lite.models.loaded import encode_images

    asked = emoji_world.zero_shot_set(world, renders)
    large = emoji_world.zero_shot_set(world, renders, side=SIDE)
    draw = rng(seed, world.names, renders)
    classes = draw.choice(len(asked.class_names), min(count, len(asked.class_names)), replace=False)
    indices = [int(draw.choice(np.flatnonzero(asked.labels == label))) for label in classes]
    found: dict[str, list[list[str]]] = {}
    for who, loaded in models.items():
        classifier = zero_shot_classifier(loaded, asked.class_names, emoji_world.TEMPLATES)
        features = encode_images(loaded, [asked.images[index] for index in indices])
        found[who] = [[asked.class_names[c] for c in best] for best in top_classes(features, classifier, k)]
    return [
        {
            "image": large.images[index],
            "name": asked.class_names[asked.labels[index]],
            "answers": {who: found[who][row] for who in models},
        }
        for row, index in enumerate(indices)
    ]


def predictions(models: Mapping[str, LoadedModel], world: World, renders: int) -> page.Gallery:
    """Scenes that no model has seen, with the best names of each model; right is a tick, wrong a cross."""
    from mobileclip2_lite.emoji_world import ATTRIBUTION

    items = []
    for number, scene in enumerate(answers(models, world, renders)):
        verdicts = []
        for who, best in scene["answers"].items():
            answer = f"{best[0]}, then {' or '.join(best[1:])}" if len(best) > 1 else best[0]
            verdicts.append((who, answer, best[0] == scene["name"]))
        picture = page.Picture(f"scene-{number}", as_png(scene["image"]), f"scene: {scene['name']}", scene["name"])
        items.append((picture, verdicts))
    caption = f"Scenes drawn at random from the zero-shot set, with the truth in bold. {ATTRIBUTION}."
    return page.Gallery(items, caption)


def as_png(image: Any) -> bytes:
    """A uint8 array or PIL image as PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def stored(folder: Path, most: int = 512) -> list[page.Block]:
    """Two reinforced samples: of the first shard, the pair that the teachers believe most and that they believe least.

    Args:
        folder: the reinforced folder.
        most: samples of the first shard to look at.
    """
    from mobileclip2_lite.shards import samples as shards

    manifest = read_manifest(folder)
    if manifest.get("settings", {}).get("layout", "native") != "native":
        return [page.Text("The shards are in the official layout; `datacompdr.read_official` shows what is in them.")]
    samples = list(islice(shards.read_samples(folder / shards.shard_names(folder)[0]), most))
    scales = {teacher["name"]: teacher["logit_scale"] for teacher in manifest.get("teachers", [])}
    samples = [sample for sample in samples if scales.keys() <= set(teachers_of(sample.embeddings))]
    if not samples or not scales:
        return [page.Text("The shards hold no teacher's embeddings.")]
    images, texts = _stacked(samples, scales)
    agreement = torch.stack([(images[name] * texts[name]).sum(dim=1) for name in scales]).mean(dim=0)
    blocks: list[page.Block] = [
        page.Text(
            f"Of {len(samples)} pairs, the one whose alt-text the teachers believe most and the one they believe "
            "least, by the mean cosine similarity of its views and its text. The alt-texts are what the control learns "
            "from; the student learns how alike the teachers find every view and every text of a batch."
        )
    ]
    for title, index in (("believed most", int(agreement.argmax())), ("believed least", int(agreement.argmin()))):
        blocks += _sample(samples[index], index, title, samples, images, texts, scales)
    return blocks


def _stacked(samples: Sequence[Sample], scales: Mapping[str, float]) -> tuple[dict, dict]:
    """Mean image embedding over the views and text embedding of every sample, (N, D) a teacher, L2-normalised."""

    def mean(sample: Sample, key: str) -> torch.Tensor:
        return torch.nn.functional.normalize(sample.embeddings[key].float().mean(dim=0), dim=0)

    images = {name: torch.stack([mean(sample, embedding_key(IMAGE, name)) for sample in samples]) for name in scales}
    texts = {name: torch.stack([mean(sample, embedding_key(TEXT, name)) for sample in samples]) for name in scales}
    return images, texts


def _quoted(text: str) -> str:
    return f"“{page.verbatim(text)}”"


def _sample(
    sample: Sample, index: int, title: str, samples: Sequence[Sample], images: dict, texts: dict, scales: dict
) -> list[page.Block]:
    """The source, its stored views, its texts, and which texts of the shard each teacher finds most alike."""
    from mobileclip2_lite.emoji_world import ATTRIBUTION
    from mobileclip2_lite.views.decoding import decode
    from mobileclip2_lite.views.replay import replay

    kind = title.split()[-1]
    source = decode(sample.image)
    shown = [page.Picture(f"stored-{kind}-source", as_png(source.resize((128, 128))), "the source", "source")]
    for number, view in enumerate(sample.views[:7]):
        does = ", ".join(name for name, _ in view.operations if name != "Identity") or "crop only"
        name = f"stored-{kind}-view{number}"
        shown.append(page.Picture(name, as_png(replay(source, view, 128)), f"view {number + 1}: {does}", does))
    rows = [["alt-text", _quoted(sample.text)]]
    rows += [[who, " · ".join(map(_quoted, said))] for who, said in sample.syn_texts.items()]
    for name, scale in scales.items():
        share = torch.softmax(scale * images[name][index] @ texts[name].T, dim=0)
        values, best = share.topk(min(3, len(samples)))
        matches = (
            f"{_quoted(samples[i].text)} {100 * p:.0f} %" for i, p in zip(best.tolist(), values.tolist(), strict=True)
        )
        rows.append([f"{name}: its alt-text", f"{100 * float(share[index]):.1f} %"])
        rows.append([f"{name}: best of the shard", " · ".join(matches)])
    caption = f"The pair {title}: the source and its stored views. {ATTRIBUTION}."
    return [
        page.Pictures(shown, caption, small=True),
        page.Table(["", "what is stored, and what it says"], rows, prose=True),
    ]
