"""What a recipe takes before it is started: pairs, bytes, device-hours and money of each stage.

Bytes are those of a sample that is really encoded; hours are counts over rates. Several devices are taken to be as fast
as their number; training seldom is. Taught by notebooks/70_scaling.ipynb.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence

from mobileclip2_lite.costs.published import OF_RECIPE, PUBLISHED, payback_table
from mobileclip2_lite.costs.rates import CAPTION, Item, Rates, dimension, kept_pairs, work
from mobileclip2_lite.recipes import Recipe
from mobileclip2_lite.reports.page import Block, Table, Text
from mobileclip2_lite.shards import samples as shards
from mobileclip2_lite.shards.keys import IMAGE, TEXT, caption_key, embedding_key
from mobileclip2_lite.views.drawing import draw
from mobileclip2_lite.work.randomness import rng, stable_uid


def sample_bytes(recipe: Recipe, image_bytes: int = 0) -> dict[str, int]:
    """Bytes of the members of one reinforced sample of a recipe, as `shards` encodes them.

    Args:
        image_bytes: of the picture; 0 leaves it out, as the published sets do.
    """
    return {name: len(data) for name, data in _made_up(recipe, image_bytes).items()}


def _made_up(recipe: Recipe, image_bytes: int) -> dict[str, bytes]:
    """The members of a made-up sample; its embeddings are random unit rows, so that they pack as real ones do."""
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
    sample = shards.Sample(uid, bytes(image_bytes), "jpg", CAPTION, meta, texts, views, rows)
    members = shards.members(sample, settings.storage)
    return {name: data for name, data in members.items() if image_bytes or name != "jpg"}


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
    out = [
        _work_table(work(recipe), rates, price),
        _bytes_table(recipe, image_bytes),
        _store_table(recipe, image_bytes),
    ]
    if recipe.name in OF_RECIPE:
        out.append(_published_table(recipe))
    if not rates:
        return out
    out = [Text(f"A device is one {rates.device}."), *out, _network_table(recipe, rates, image_bytes)]
    if any(item.stage in ("caption", "reinforce") for item in work(recipe)):
        out.append(payback_table(recipe, rates))
    return [*out, _cores_table(recipe, rates)] if rates.per_core else out


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


def _shards(recipe: Recipe) -> int:
    return -(-kept_pairs(recipe) // recipe.pairs.samples_per_shard)


def _epochs(recipe: Recipe) -> float:
    return recipe.student.samples / kept_pairs(recipe)


def _store_table(recipe: Recipe, image_bytes: int) -> Table:
    """Requests to a bucket: a stage writes a shard and its record, and looks at each once before and once after."""
    shards, epochs = _shards(recipe), _epochs(recipe)
    reading = shards * epochs
    size = size_words(set_bytes(recipe, image_bytes) * epochs)
    rows = [
        ["a stage writes", f"{2 * shards + 2:,}", size_words(set_bytes(recipe, image_bytes))],
        ["a stage looks, writing and before", f"{6 * shards:,}", "none"],
        [f"a training reads, {epochs:,.2f} epochs, a cache smaller than the set", f"{round(2 * reading):,}", size],
    ]
    return Table(["store", "requests", "bytes"], rows)


def _network_table(recipe: Recipe, rates: Rates, image_bytes: int) -> Table:
    """Bytes a second that keep one device busy."""
    whole, pairs = set_bytes(recipe, image_bytes) / kept_pairs(recipe), kept_pairs(recipe)
    seconds = 3600 * hours([item for item in work(recipe) if item.stage == "reinforce"], rates)
    rows = [["train", size_words(whole * rates.per_second[f"samples {recipe.student.model}"])]]
    if seconds:
        rows.insert(0, ["reinforce, read and written", size_words((image_bytes + whole) * pairs / seconds)])
    return Table(["stage", "bytes a second and device"], rows)


def _published_table(recipe: Recipe) -> Table:
    """The set without images beside what was published; and packed, which the official files are and ours are not."""
    name = OF_RECIPE[recipe.name]
    published = PUBLISHED[name][2] * 1e12
    packed = sum(512 + -(-len(gzip.compress(data)) // 512) * 512 for data in _made_up(recipe, 0).values())
    rows = [
        [f"published: {name}", size_words(published), "1"],
        ["planned, plain tars", *_beside(set_bytes(recipe), published)],
        ["planned, each member packed with gzip", *_beside(packed * kept_pairs(recipe), published)],
    ]
    return Table(["set without images", "bytes", "of the published"], rows)


def _beside(size: float, published: float) -> list[str]:
    return [size_words(size), f"{size / published:.2f}"]


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
