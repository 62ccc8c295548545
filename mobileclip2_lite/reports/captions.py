"""How good and how varied captions are, as one report: truth, agreement with references, CLIP score, diversity.

Paper: MobileCLIP2 (arXiv 2508.20691), section 3, judges captioners by the students trained on their captions alone.
Reads a folder of captioned shards, or lists; writes nothing. Differs: what is measured here is cheap, and in the
embedded world, which is known, it includes what is true (`truth`); `scores` has the other measures.
Taught by notebooks/20_captioner_finetuning.ipynb.
"""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mobileclip2_lite import emoji_world
from mobileclip2_lite.evaluation.caption_scores import (
    clip_scores,
    diversity,
    image_features,
    load_ensemble,
    mean_cosines,
    reference_scores,
)
from mobileclip2_lite.evaluation.caption_truth import check_lists, object_scores
from mobileclip2_lite.shards import samples as shards
from mobileclip2_lite.shards.usable import usable
from mobileclip2_lite.views import decoding
from mobileclip2_lite.work.place import place_of
from mobileclip2_lite.work.tables import markdown_table

if TYPE_CHECKING:
    from mobileclip2_lite.emoji_world import Scene
    from mobileclip2_lite.evaluation.caption_scores import Teachers
    from mobileclip2_lite.recipes import World

__all__ = [
    "REFERENCES",
    "caption_report",
    "clip_scores",
    "diversity",
    "measure_captions",
    "object_scores",
    "reference_scores",
    "report_table",
]

REFERENCES = ("clean", "text", "none")
"""What captions are compared with: the world's clean captions, the pairs' own texts, nothing."""
ALT_TEXT, CLEAN, TOGETHER = "alt-text", "clean captions", "all captioners"
"""Rows of a report that are no captioner's."""
_TABLES = (
    (
        "Truth (%)",
        {
            "objects_precision": "objects: precision",
            "objects_recall": "recall",
            "objects_coverage": "coverage",
            "colours_precision": "colours: precision",
            "colours_recall": "recall",
            "colours_unbound_precision": "unbound: precision",
            "colours_unbound_recall": "recall",
            "relations_precision": "relations: precision",
            "relations_recall": "recall",
            "places_precision": "places: precision",
            "places_recall": "recall",
            "located_recall": "located",
        },
        100,
    ),
    ("Agreement with the references", {"cider": "CIDEr"} | {f"bleu_{n}": f"BLEU-{n}" for n in (1, 2, 3, 4)}, 1),
    (
        "Diversity",
        {"captions": "captions", "length": "words a caption", "vocabulary": "vocabulary", "entropy": "entropy (bits)"}
        | {"unique": "unique", "self_bleu": "self-BLEU"}
        | {f"distinct_{n}": f"distinct-{n}" for n in (1, 2, 3)}
        | {f"corpus_distinct_{n}": f"corpus distinct-{n}" for n in (1, 2, 3)},
        1,
    ),
)


def measure_captions(
    captions_by_image: Sequence[Sequence[str]],
    scenes: Sequence[Scene] | None = None,
    world: World | None = None,
    images: Sequence[Any] | None = None,
    teachers: Teachers = (),
    references: Sequence[Sequence[str]] | None = None,
) -> dict[str, float | None]:
    """Every measure of captions in memory that the arguments allow: the row of a report.

    Args:
        captions_by_image: any number of captions an image.
        scenes: the scenes of the images, with their `world`, for `object_scores` and clean captions as references.
        images: pictures, with `teachers`, for `clip_scores`, which come under `clip_<teacher>`.
        references: other references than the scenes' clean captions.

    Raises:
        ValueError: lists of different lengths, scenes without their world, or teachers without images.
    """
    if scenes is not None and world is None:
        raise ValueError("measure_captions: scenes need the world that they come from; give world=")
    features, ensemble = {}, None
    if teachers:
        if images is None:
            raise ValueError("measure_captions: teachers compare captions with pictures; give images=")
        check_lists(captions_by_image, images=images)
        ensemble = load_ensemble(teachers)
        features = image_features(ensemble, lambda: images)
    if references is None and scenes is not None:
        references = [emoji_world.captions(scene) for scene in scenes]
    return _row(captions_by_image, scenes, world, references, features, ensemble)


def caption_report(
    folder: str | os.PathLike,
    world: World | None = None,
    teachers: Teachers = (),
    most: int = 1_000,
    references: str = "",
    device: str | None = None,
) -> dict[str, Any]:
    """Every measure of the captions of a folder of shards: one row a captioner, for all together, and to compare with.

    The row `alt-text` measures the real texts, and in the embedded world `clean captions` five clean captions drawn
    apart from the references. Its names and relations are those of a captioner without fault; its CIDEr and BLEU are no
    ceiling, since the wording has so few variants that half of these captions are literally among the references.

    Args:
        folder: captioned shards; the first `most` samples of them are measured, 0 for all.
        world: the embedded world that the pairs come from; without it there is no truth to compare with.
        teachers: for the CLIP score: what `load_teachers` takes, or an ensemble.
        references: for CIDEr and BLEU: `clean` (default with a world), `text` (each pair's own texts; the row
            `alt-text` then has no such scores) or `none` (default without a world).
        device: of teachers that are given by name; None for a CUDA GPU, if there is one. An ensemble stays where it is.

    Returns:
        `path`, `samples`, `dropped` (by reason), `references`, `teachers` (names), and `rows`: measures by row, as
        `measure_captions` gives them. Plain numbers, None where a measure says nothing: it can be written as JSON.

    Raises:
        FileNotFoundError: the folder holds no shards.
        ValueError: unknown `references`, or a sample that is not of `world` (named), or no sample could be read.
    """
    references = references or ("clean" if world else "none")
    if references not in REFERENCES or (references == "clean" and world is None):
        raise ValueError(f"caption_report: references = {references!r}: one of {REFERENCES}; 'clean' needs a world")
    ensemble = load_ensemble(teachers, device) if teachers else None
    samples, dropped = _read(folder, most, images=ensemble is not None)
    scenes = [_scene(world, sample, folder) for sample in samples] if world else None
    compared = None
    if references == "clean":
        compared = [emoji_world.captions(scene) for scene in scenes]
    elif references == "text":
        compared = [sample.meta.get("texts") or [sample.text] for sample in samples]
    features = (
        image_features(ensemble, lambda: (decoding.decode(sample.image) for sample in samples)) if ensemble else {}
    )
    rows = {}
    for name, captions in _captions(samples, scenes).items():
        own = None if name == ALT_TEXT and references == "text" else compared
        rows[name] = _row(captions, scenes, world, own, features, ensemble)
    return {
        "path": str(folder),
        "samples": len(samples),
        "dropped": dict(sorted(dropped.items())),
        "references": references,
        "teachers": list(ensemble.names) if ensemble else [],
        "rows": rows,
    }


def report_table(report: dict[str, Any]) -> str:
    """A report as Markdown: a table for each kind of measure, a line a row, `–` where a measure says nothing."""
    rows = report["rows"]
    clip = ("CLIP score (cosine)", {f"clip_{name}": name for name in report["teachers"]}, 1)
    parts = [f"{report['samples']} samples of {report['path']}, references: {report['references']}"]
    for title, columns, factor in (*_TABLES[:2], clip, *_TABLES[2:]):
        shown = {key: head for key, head in columns.items() if any(row.get(key) is not None for row in rows.values())}
        if shown:
            lines = ((name, *(_cell(row.get(key), factor) for key in shown)) for name, row in rows.items())
            parts.append(markdown_table((title, *shown.values()), lines))
    return "\n\n".join(parts) + "\n"


def _cell(value: float | None, factor: float) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{factor * value:.1f}" if factor > 1 else f"{value:.3f}"


def _row(captions, scenes, world, references, features, ensemble) -> dict[str, float | None]:
    """All measures of one list of captions; what is None is left out."""
    check_lists(captions)
    row = {"images": sum(map(bool, captions)), "captions": sum(map(len, captions))}
    if scenes is not None:
        row |= object_scores(captions, scenes, world)
    if references is not None:
        row |= reference_scores(captions, references)
    if ensemble is not None:
        row |= {f"clip_{name}": value for name, value in mean_cosines(captions, features, ensemble).items()}
    return row | diversity(captions, world)


def _read(folder: str | os.PathLike, most: int, images: bool) -> tuple[list[shards.Sample], Counter]:
    """The first usable samples of a folder, with images where asked for, and those that are not by reason."""
    samples: list[shards.Sample] = []
    dropped: Counter = Counter()
    for name in shards.shard_names(folder):
        for item in usable(place_of(folder) / name, dropped, need_text=False):
            if most and len(samples) >= most:
                return samples, dropped
            samples.append(item.sample if images else dataclasses.replace(item.sample, image=b""))
    if not samples:
        raise ValueError(f"{folder}: no sample could be read ({dict(dropped) or 'the shards are empty'})")
    return samples, dropped


def _scene(world: World, sample: shards.Sample, folder: str | os.PathLike) -> Scene:
    try:
        return emoji_world.scene_of(world, str(sample.meta.get("scene", "")))
    except ValueError as error:
        detail = f"{error}; leave the world out for pairs of another source"
        raise ValueError(f"{folder}, uid {sample.uid}, `scene` of its json: {detail}") from error


def _captions(samples: list[shards.Sample], scenes: Sequence[Scene] | None) -> dict[str, list[list[str]]]:
    """Captions by image of each row of the report."""
    captioners = sorted({name for sample in samples for name in sample.syn_texts})
    rows = {ALT_TEXT: [[sample.text] for sample in samples]}
    for name in captioners:
        rows[name or "(unnamed)"] = [sample.syn_texts.get(name, []) for sample in samples]
    if len(captioners) > 1:
        rows[TOGETHER] = [[text for name in captioners for text in s.syn_texts.get(name, [])] for s in samples]
    if scenes is not None:
        rows[CLEAN] = [emoji_world.captions(scene, 10) for scene in scenes]
    return rows
