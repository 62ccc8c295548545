"""What a recipe takes before it is started: pairs, bytes, device-hours and money of each stage.

Bytes are those of a sample that is really encoded; hours are counts over rates. Several devices are taken to be as fast
as their number; training seldom is. Taught by notebooks/70_scaling.ipynb.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mobileclip2_lite.costs.rates import CAPTION, Item, Rates, dimension, kept_pairs, work
from mobileclip2_lite.recipes import Recipe
from mobileclip2_lite.reports.page import Block, Table, Text
from mobileclip2_lite.shards import samples as shards
from mobileclip2_lite.shards.keys import IMAGE, TEXT, caption_key, embedding_key
from mobileclip2_lite.views.drawing import draw
from mobileclip2_lite.work.randomness import rng, stable_uid

if TYPE_CHECKING:
    pass

PUBLISHED = {
    "DataCompDR-12M": (12_800_000, 30, 1.9),
    "DataCompDR-1B": (1_280_000_000, 10, 140.0),
    "DFNDR-12M": (12_800_000, 30, 1.3),
    "DFNDR-2B": (1_900_000_000, 2, 162.0 - 65.0),
}
"""Set -> samples, views, TB as published (MobileCLIP and MobileCLIP2; DFNDR-2B without its base set of 65 TB).

All have two teachers of 768 dimensions and five captions. The official files are gzipped; numbers are bf16 in
DFNDR-12M, and for the others the papers do not say.
"""


def sample_bytes(recipe: Recipe, image_bytes: int = 0) -> dict[str, int]:
    """Bytes of the members of one reinforced sample of a recipe, as `shards` encodes them.

    Args:
        image_bytes: of the picture; 0 leaves it out, as the published sets do.
    """
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
        rows |= {embedding_key(kind, name): torch.ones(count, width) for kind, count in counts.items()}
    meta = {"source": uid, "width": 640, "height": 480, "sha256": digest}
    sample = shards.Sample(uid, bytes(image_bytes), "jpg", CAPTION, meta, texts, views, rows)
    members = {name: len(data) for name, data in shards.members(sample, settings.storage).items()}
    return {name: size for name, size in members.items() if image_bytes or name != "jpg"}


def tar_bytes(members: Mapping[str, int]) -> int:
    """What members take in a tar: a header of 512 bytes each, and whole blocks of 512."""
    return sum(512 + -(-size // 512) * 512 for size in members.values())


def set_bytes(recipe: Recipe, image_bytes: int = 0) -> int:
    """Bytes of the whole reinforced set in tars; `image_bytes` as in `sample_bytes`."""
    return tar_bytes(sample_bytes(recipe, image_bytes)) * kept_pairs(recipe)


def plan(recipe: Recipe, rates: Rates | None = None, price: float = 0.0, image_bytes: int = 100_000) -> list[Block]:
    """The plan, to be printed: work with hours and money where there are rates, bytes, and cores that keep up.

    Args:
        price: of a device for an hour, in any currency.
        image_bytes: of an average picture.
    """
    out = [_work_table(work(recipe), rates, price), _bytes_table(recipe, image_bytes)]
    return [Text(f"A device is one {rates.device}."), *out, _cores_table(recipe, rates)] if rates else out


def hours(items: Sequence[Item], rates: Rates) -> float:
    """Device-hours of some work.

    Raises:
        ValueError: no rate is known for it.
    """
    if missing := [item.what for item in items if item.what not in rates.per_second]:
        raise ValueError(f"no rate of {', '.join(missing)}: measure this recipe (plan --measure)")
    return sum(item.count / rates.per_second[item.what] for item in items) / 3600


def _work_table(items: Sequence[Item], rates: Rates | None, price: float) -> Table:
    if not rates:
        return Table(["stage", "work", "count"], [[item.stage, item.what, f"{item.count:,}"] for item in items])
    header, rows = ["stage", "work", "count", "a second", "device-hours"], []
    for item in items:
        rows.append([item.stage, item.what, f"{item.count:,}", f"{rates.per_second[item.what]:,.4g}"])
    rows.append(["all", "", "", ""])
    for row, chosen in zip(rows, [*([item] for item in items), items], strict=True):
        spent = hours(chosen, rates)
        row += [f"{spent:,.4g}", *([f"{spent * price:,.0f}"] if price else [])]
    return Table([*header, *(["money"] if price else [])], rows)


def _bytes_table(recipe: Recipe, image_bytes: int) -> Table:
    members, pairs = sample_bytes(recipe, image_bytes), kept_pairs(recipe)
    rows = [[name, f"{size:,}", size_words(size * pairs)] for name, size in members.items()]
    bare = {name: size for name, size in members.items() if name != "jpg"}
    for what, chosen in (("in tars", members), ("in tars, without pictures", bare)):
        rows.append([what, f"{tar_bytes(chosen):,}", size_words(tar_bytes(chosen) * pairs)])
    return Table(["member", "bytes a sample", f"{pairs:,} samples"], rows)


def _cores_table(recipe: Recipe, rates: Rates) -> Table:
    """CPU cores that replay and load as fast as one device works."""
    seconds = 3600 * hours([item for item in work(recipe) if item.stage == "reinforce"], rates)
    needed = {
        "reinforce": ("views replayed", kept_pairs(recipe) * recipe.reinforce.views / seconds),
        "train": ("samples loaded", rates.per_second[f"samples {recipe.student.model}"]),
    }
    rows = []
    for stage, (what, wanted) in needed.items():
        rows.append([stage, what, f"{rates.per_core[what]:,.4g}", f"{wanted / rates.per_core[what]:,.2g}"])
    return Table(["stage", "work", "a core and second", "cores for a device"], rows)


def size_words(count: float) -> str:
    """Bytes in decimal units: `1.23 GB`."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:,.3g} {unit}"
        count /= 1000
    raise AssertionError
