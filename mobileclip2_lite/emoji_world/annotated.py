"""The small annotated set of the embedded world: scenes of their own with clean captions, as people would write them.

It stands in for MSCOCO and DOCCI, on which the paper's captioners are fine-tuned (MobileCLIP2, arXiv 2508.20691,
section 3), and for the clean pairs from which a data filtering network is trained (DFN, arXiv 2309.17425). Its split,
`annotated`, shares no scene with the training stream or a test set. Reads and writes no files.
Taught by notebooks/20_captioner_finetuning.ipynb.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

from mobileclip2_lite.emoji_world.scenes import render, scene
from mobileclip2_lite.emoji_world.texts import STYLES, caption
from mobileclip2_lite.recipes import World
from mobileclip2_lite.stages import stable_uid


def annotated_dataset(world: World, count: int, styles: Sequence[str] = ("short",), start: int = 0):
    """Scenes `start` to `start + count` of the split `annotated`, each with one clean caption, as a `datasets.Dataset`.

    Columns as those of `pairs_dataset`: `uid` (str), `image` (datasets.Image, JPEG bytes of `world.image_size` pixels),
    `text` (clean caption), `scene` (its uid in this world). `make_pairs(..., dataset=...)` makes a folder of it.

    Args:
        world: names, size and number of objects count; its seed and its noise do not.
        count: scenes, one pair each.
        styles: of `STYLES`; the scenes take them in turn. Two calls that differ only here show the same pictures.
        start: first scene, so that a part can be held out.

    Raises:
        ValueError: no style, or one that is not of `STYLES`; `count` below 1 or `start` below 0.
    """
    from datasets import Dataset, Features, Image, Value

    styles = (styles,) if isinstance(styles, str) else tuple(styles)
    if not styles or not set(styles) <= set(STYLES):
        raise ValueError(f"annotated_dataset: styles = {styles}: one or more of {STYLES}")
    if count < 1 or start < 0:
        raise ValueError(f"annotated_dataset: count = {count} must be 1 or more, start = {start} 0 or more")
    features = Features({"uid": Value("string"), "image": Image(), "text": Value("string"), "scene": Value("string")})
    return Dataset.from_list(list(_annotated_rows(world, range(start, start + count), styles)), features=features)


def _annotated_rows(world: World, indices: range, styles: tuple[str, ...]) -> Iterator[dict]:
    from PIL import Image

    for index in indices:
        picture = scene(world, "annotated", index)
        style = styles[index % len(styles)]
        buffer = io.BytesIO()
        Image.fromarray(render(picture, world.image_size)).save(buffer, "JPEG", quality=90)
        yield {
            "uid": stable_uid(f"emoji_world/{picture.uid}/{style}"),
            "image": {"bytes": buffer.getvalue(), "path": None},
            "text": caption(picture, style),
            "scene": picture.uid,
        }
