"""What a recipe takes before it is started: pairs, bytes, device-hours and money of each stage.

Bytes are those of a sample that is really encoded; hours are counts over rates. Several devices are taken to be as fast
as their number; training seldom is. Taught by notebooks/70_scaling.ipynb.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from mobileclip2_lite.costs.compared import hours_compared, sizes_compared
from mobileclip2_lite.costs.published import OF_RECIPE, payback_table
from mobileclip2_lite.costs.rates import MEASURED, Item, Rates, kept_pairs, work
from mobileclip2_lite.costs.sizes import sample_bytes, set_bytes, size_words, stage_bytes, tar_bytes
from mobileclip2_lite.recipes import Recipe
from mobileclip2_lite.reports.page import Block, Table, Text


def plan(
    recipe: Recipe, rates: Rates | None = None, price: float = 0.0, image_bytes: int = 100_000, devices: int = 1
) -> list[Block]:
    """The plan, to be printed: work with hours and money where there are rates, bytes, and cores that keep up.

    Args:
        price: of a device for an hour, in any currency.
        image_bytes: of an average picture.
        devices: that work together; the wall time is the device-hours divided by them.

    Raises:
        ValueError: a number makes no sense, or the rates are another recipe's; names it.
    """
    _check(recipe, price, image_bytes, devices)
    if rates:
        hours(work(recipe), rates)  # of another recipe they lack some
    out = [
        _work_table(work(recipe), rates, price, devices),
        _bytes_table(recipe, image_bytes),
        _store_table(recipe, image_bytes),
    ]
    if recipe.name in OF_RECIPE and recipe.reinforce.teachers:
        out += [*sizes_compared(recipe), *hours_compared()]
    if not rates:
        return out
    out = [Text(f"A device is one {rates.device}."), out[0], _sources_table(recipe, rates), *out[1:]]
    out.append(_network_table(recipe, rates, image_bytes, devices))
    if any(item.stage in ("caption", "reinforce") for item in work(recipe)):
        out.append(payback_table(recipe, rates))
    return [*out, _cores_table(recipe, rates, devices)] if rates.per_core else out


def _check(recipe: Recipe, price: float, image_bytes: int, devices: int) -> None:
    """Look for numbers of which nothing can follow.

    Raises:
        ValueError: there is one; names the field.
    """
    if devices < 1:
        raise ValueError(f"devices is {devices}: at least one has to do the work")
    if not 0 <= price < math.inf:
        raise ValueError(f"price is {price}: money for a device and hour, at least 0")
    if image_bytes < 0:
        raise ValueError(f"image_bytes is {image_bytes}: bytes of an average picture, at least 0")
    if recipe.pairs.samples_per_shard < 1:
        raise ValueError(f"pairs.samples_per_shard is {recipe.pairs.samples_per_shard}: at least one")
    if recipe.reinforce.views < 1:
        raise ValueError(f"reinforce.views is {recipe.reinforce.views}: at least one is stored")
    if recipe.student.samples < 1:
        raise ValueError(f"student.samples is {recipe.student.samples}: at least one is seen")


def hours(items: Sequence[Item], rates: Rates) -> float:
    """Device-hours of some work.

    Raises:
        ValueError: no rate is known for it.
    """
    if missing := [item.what for item in items if item.what not in rates.per_second]:
        raise ValueError(f"no rate of {', '.join(missing)}: measure this recipe (plan --measure)")
    return sum(item.count / rates.per_second[item.what] for item in items) / 3600


def _work_table(items: Sequence[Item], rates: Rates | None, price: float, devices: int) -> Table:
    if not rates:
        return Table(["stage", "work", "count"], [[item.stage, item.what, f"{item.count:,}"] for item in items])
    header, rows = ["stage", "work", "count", "a second", "device-hours"], []
    for item in items:
        rows.append([item.stage, item.what, f"{item.count:,}", f"{rates.per_second[item.what]:,.4g}"])
    rows.append(["all", "", "", ""])
    for row, chosen in zip(rows, [*([item] for item in items), items], strict=True):
        spent = hours(chosen, rates)
        row += [f"{spent:,.4g}", *([f"{spent / devices:,.4g}"] if devices > 1 else [])]
        row += [f"{spent * price:,.0f}"] if price else []
    wall = [f"hours on {devices:,}"] if devices > 1 else []
    return Table([*header, *wall, *(["money"] if price else [])], rows)


def _sources_table(recipe: Recipe, rates: Rates) -> Table:
    """Where each rate comes from; works of one source share a row."""
    found: dict[str, list[str]] = {}
    for item in work(recipe):
        found.setdefault(rates.source(item.what), []).append(item.what)
    if rates.per_core:
        found.setdefault(MEASURED, []).extend(rates.per_core)
    return Table(["rates of", "come from"], [[", ".join(whats), why] for why, whats in found.items()], prose=True)


def _bytes_table(recipe: Recipe, image_bytes: int) -> Table:
    members, pairs = sample_bytes(recipe, image_bytes), kept_pairs(recipe)
    rows = [[name, f"{size:,}", size_words(size * pairs)] for name, size in members.items()]
    bare = {name: size for name, size in members.items() if name != "jpg"}
    for what, chosen in (("in tars", members), ("in tars, without pictures", bare)):
        rows.append([what, f"{tar_bytes(chosen):,}", size_words(tar_bytes(chosen) * pairs)])
    return Table(["member", "bytes a sample", f"{pairs:,} samples"], rows)


def _shards(recipe: Recipe) -> int:
    """Of every stage: a filter leaves fewer samples in each."""
    return -(-recipe.pairs.count // recipe.pairs.samples_per_shard)


def _epochs(recipe: Recipe) -> float:
    return recipe.student.samples / kept_pairs(recipe)


def _store_table(recipe: Recipe, image_bytes: int) -> Table:
    """Requests to a bucket, and what lies there in the end: each stage writes a folder of its own, images and all.

    A stage writes a shard and its record, and looks at each once before and once after.
    """
    shards, epochs, written = _shards(recipe), _epochs(recipe), stage_bytes(recipe, image_bytes)
    reading = shards * epochs
    size = size_words(set_bytes(recipe, image_bytes) * epochs)
    rows = [
        *([f"{stage} writes", f"{2 * shards + 2:,}", size_words(count)] for stage, count in written.items()),
        ["all of them lie side by side", "", size_words(sum(written.values()))],
        ["a stage looks, writing and before", f"{6 * shards:,}", "none"],
        [f"a training reads, {epochs:,.2f} epochs, a cache smaller than the set", f"{round(2 * reading):,}", size],
    ]
    return Table(["store", "requests", "bytes"], rows)


def _network_table(recipe: Recipe, rates: Rates, image_bytes: int, devices: int) -> Table:
    """Bytes a second that keep the devices busy."""
    whole, pairs = set_bytes(recipe, image_bytes) / kept_pairs(recipe), kept_pairs(recipe)
    seconds = 3600 * hours([item for item in work(recipe) if item.stage == "reinforce"], rates)
    needed = {"train": whole * rates.per_second[f"samples {recipe.student.model}"]}
    if seconds:
        needed = {"reinforce, read and written": (image_bytes + whole) * pairs / seconds, **needed}
    counts = [1, devices] if devices > 1 else [1]
    rows = [[stage, *(size_words(size * count) for count in counts)] for stage, size in needed.items()]
    return Table(["stage", "bytes a second and device", f"of {devices:,}"][: 1 + len(counts)], rows)


def _cores_table(recipe: Recipe, rates: Rates, devices: int) -> Table:
    """CPU cores that replay and load as fast as the devices work."""
    seconds = 3600 * hours([item for item in work(recipe) if item.stage == "reinforce"], rates)
    needed = {"train": ("samples loaded", rates.per_second[f"samples {recipe.student.model}"])}
    if seconds:
        needed = {"reinforce": ("views replayed", kept_pairs(recipe) * recipe.reinforce.views / seconds), **needed}
    rows, counts = [], [1, devices] if devices > 1 else [1]
    for stage, (what, wanted) in needed.items():
        cores = [f"{wanted / rates.per_core[what] * count:,.2g}" for count in counts]
        rows.append([stage, what, f"{rates.per_core[what]:,.4g}", *cores])
    header = ["stage", "work", "a core and second", "cores for a device", f"for {devices:,}"]
    return Table(header[: 3 + len(counts)], rows)
