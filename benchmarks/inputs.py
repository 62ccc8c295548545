"""Made-up inputs of the speed programs: images, reinforced samples with random embeddings, and folders of them.

A speed does not depend on what an embedding says, only on its size; images are photographs where a folder of them is
named, because rendered scenes are decoded faster than those.
"""

from __future__ import annotations

import argparse
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mobileclip2_lite import emoji_world
from mobileclip2_lite.recipes import Augment, World
from mobileclip2_lite.shards import samples as shards
from mobileclip2_lite.shards.keys import IMAGE, TEXT, caption_key, embedding_key
from mobileclip2_lite.views import decoding
from mobileclip2_lite.views.drawing import draw
from mobileclip2_lite.work.files import sha256_bytes
from mobileclip2_lite.work.folder import Work
from mobileclip2_lite.work.randomness import rng, stable_uid

TEACHERS = {"first": 768, "second": 768}
"""Teacher -> dimension, as large as the paper's."""


def add_photos(parser: argparse.ArgumentParser, count: int) -> None:
    """The options that choose images."""
    folder = os.environ.get("MOBILECLIP2_LITE_PHOTOS")
    parser.add_argument("--photos", default=folder, help="folder of JPEG files (MOBILECLIP2_LITE_PHOTOS)")
    parser.add_argument("--count", type=int, default=count, help="images")


def images(folder: str | None, count: int) -> list[bytes]:
    """Encoded images: photographs of a folder, else rendered scenes of 256 pixels as JPEG."""
    if folder:
        paths = sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in (".jpg", ".jpeg"))
        return [path.read_bytes() for path in paths[:count]]
    return [rendered(World(), index, 256, "JPEG") for index in range(count)]


def rendered(world: World, index: int, side: int, form: str) -> bytes:
    """A training scene as a file."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(emoji_world.render(emoji_world.scene(world, "train", index), side)).save(buffer, form)
    return buffer.getvalue()


def unit_rows(chance: np.random.Generator, rows: int, dimension: int) -> torch.Tensor:
    """Random unit vectors."""
    return torch.nn.functional.normalize(torch.from_numpy(chance.normal(size=(rows, dimension))).float(), dim=1)


def sample(
    source: str, image: bytes, form: str, text: str, captions: list[str], teachers: Mapping[str, int], views: int
) -> shards.Sample:
    """A reinforced sample with random embeddings of every teacher -> dimension."""
    uid, (height, width) = stable_uid(source), decoding.pixels(image).shape[:2]
    chance, sha256 = rng(0, "benchmark", uid), sha256_bytes(image)
    embeddings = {}
    for teacher, dimension in teachers.items():
        for kind, rows in ((IMAGE, views), (TEXT, 1), (caption_key("c"), len(captions))):
            embeddings[embedding_key(kind, teacher)] = unit_rows(chance, rows, dimension)
    drawn = [draw(chance, width, height, Augment(), sha256) for _ in range(views)]
    meta = {"source": source, "width": width, "height": height, "sha256": sha256}
    return shards.Sample(uid, image, form, text, meta, {"c": captions}, drawn, embeddings)


def samples(files: Sequence[bytes], views: int, captions: int = 5) -> list[shards.Sample]:
    """Reinforced samples of images, with texts of a usual length."""
    out = []
    for number, image in enumerate(files):
        texts = [f"a synthetic caption of about ten words for image {number}, {i}" for i in range(captions)]
        out.append(sample(f"image-{number}", image, "jpg", f"the alt-text of image {number}", texts, TEACHERS, views))
    return out


def scenes(world: World, count: int, teachers: Mapping[str, int], views: int) -> list[shards.Sample]:
    """Reinforced samples of the embedded world with its own alt-texts and captions."""
    out = []
    for index in range(count):
        scene = emoji_world.scene(world, "train", index)
        words = emoji_world.alt_text(scene, world), emoji_world.captions(scene)
        image = rendered(world, index, world.image_size, "PNG")
        out.append(sample(f"scene-{index}", image, "png", *words, teachers, views))
    return out


def write_folder(
    folder: Path, items: Sequence[shards.Sample], cards: Sequence[Mapping[str, Any]] = (), storage: str = "bf16"
) -> Path:
    """One native shard with its manifest; `cards` of the teachers, by default those of `TEACHERS`."""
    cards = cards or [{"name": name, "dimension": dimension} for name, dimension in TEACHERS.items()]
    info = shards.write_shard(folder / "shard-000000.tar", items, storage)
    record = {"name": "shard-000000.tar", **info._asdict(), "dropped": {}}
    work = Work(folder, "benchmark", 1, {"storage": storage})
    work.commit(shards=[record], teachers=list(cards), captioners=["c"], samples=len(items))
    return folder
