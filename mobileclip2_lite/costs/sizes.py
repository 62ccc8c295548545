"""Bytes of a sample, of a tar and of a whole set: those of a sample of the recipe's shape that is really encoded.

The papers give sizes of whole sets (`published`). Reads and writes nothing. Taught by notebooks/70_scaling.ipynb.
"""

from __future__ import annotations

from collections.abc import Mapping

from mobileclip2_lite.costs.rates import CAPTION, dimension, kept_pairs
from mobileclip2_lite.recipes import Recipe
from mobileclip2_lite.shards import samples as shards
from mobileclip2_lite.shards.keys import IMAGE, TEXT, caption_key, embedding_key
from mobileclip2_lite.views.drawing import draw
from mobileclip2_lite.work.randomness import rng, stable_uid


def sample_bytes(recipe: Recipe, image_bytes: int = 0) -> dict[str, int]:
    """Bytes of the members of one reinforced sample of a recipe, as `shards` encodes them.

    Args:
        image_bytes: of the picture; 0 leaves it out, as the published sets do.
    """
    return {name: len(data) for name, data in made_up_members(recipe, image_bytes).items()}


def made_up_members(recipe: Recipe, image_bytes: int = 0) -> dict[str, bytes]:
    """The members of a made-up sample."""
    members = shards.members(made_up(recipe, image_bytes), recipe.reinforce.storage)
    return {name: data for name, data in members.items() if image_bytes or name != "jpg"}


def made_up(recipe: Recipe, image_bytes: int = 0) -> shards.Sample:
    """A sample of the recipe's shape; its embeddings are random unit rows, so that they pack as real ones do."""
    import torch

    settings, uid = recipe.reinforce, stable_uid("planned")
    captions = [CAPTION] * recipe.caption.generate.captions
    texts = {name.rpartition("/")[2]: captions for name in recipe.caption.captioners}
    chance, digest = rng(0, "planned"), "0" * 64
    views = [draw(chance, 640, 480, settings.augment, digest) for _ in range(settings.views)]
    rows = {}
    for name in settings.teachers:
        width = dimension(name)
        counts = {IMAGE: settings.views, TEXT: 1, **{caption_key(name): len(own) for name, own in texts.items()}}
        for kind, count in counts.items():
            drawn = torch.from_numpy(chance.normal(size=(count, width)))
            rows[embedding_key(kind, name)] = torch.nn.functional.normalize(drawn, dim=1).float()
    meta = {"source": uid, "width": 640, "height": 480, "sha256": digest}
    return shards.Sample(uid, bytes(image_bytes), "jpg", CAPTION, meta, texts, views, rows)


def tar_bytes(members: Mapping[str, int]) -> int:
    """What members take in a tar: a header of 512 bytes each, and whole blocks of 512."""
    return sum(512 + -(-size // 512) * 512 for size in members.values())


def set_bytes(recipe: Recipe, image_bytes: int = 0) -> int:
    """Bytes of the whole reinforced set in tars; `image_bytes` as in `sample_bytes`."""
    return tar_bytes(sample_bytes(recipe, image_bytes)) * kept_pairs(recipe)


def stage_bytes(recipe: Recipe, image_bytes: int = 0) -> dict[str, int]:
    """Stage of a recipe -> bytes of the folder that it writes, in tars: each copies the images and adds its part."""
    members, kept = sample_bytes(recipe, image_bytes), kept_pairs(recipe)
    pair = {name: size for name, size in members.items() if name in ("jpg", "txt", "json")}
    captioned = pair | {name: size for name, size in members.items() if name == "syn.json"}
    found = {"pairs": tar_bytes(pair) * recipe.pairs.count}
    if recipe.filter.keep < 1:
        found["filter"] = tar_bytes(pair) * kept
    if recipe.caption.captioners:
        found["caption"] = tar_bytes(captioned) * kept
    return {**found, "reinforce": set_bytes(recipe, image_bytes)}


def size_words(count: float) -> str:
    """Bytes in decimal units: `1.23 GB`."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:,.3g} {unit}"
        count /= 1000
    raise AssertionError
