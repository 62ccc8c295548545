"""What the papers say of sizes and hours, the rates that follow, and after how many students reinforcement has paid.

Paper: MobileCLIP (arXiv 2311.17049), one epoch of 12.8 million samples on 8 A100: plain or with everything stored 1.3
hours, with stored captions and live teachers 4.1, with everything live 21.1. The differences are what teachers and
captioner cost there, the loader's own work among them. Reads and writes nothing. Taught by notebooks/70_scaling.ipynb.
"""

from __future__ import annotations

from typing import NamedTuple

from mobileclip2_lite.costs.rates import Rates, work
from mobileclip2_lite.recipes import Recipe
from mobileclip2_lite.reports.page import Table

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
OF_RECIPE = {"paper_12m": "DFNDR-12M", "paper_2b": "DFNDR-2B"}
"""Recipe -> the set that it makes."""
HOURS = {"stored": 1.3, "teachers live": 4.1, "all live": 21.1}
"""Hours of an epoch."""
HOURS_FROM = "the published hours of an epoch (MobileCLIP, arXiv 2311.17049), whatever the model"
"""Source of the rates that follow from them."""
EPOCH, GPUS = 12_800_000, 8
"""Samples and A100 of such an epoch."""
IMAGE_PART = 81.08 / (81.08 + 2 * 6.65)
"""Share of a teacher's work for a view and two texts that is the view's: ViT-L/14's multiply-adds, by open_clip."""


def seconds(what: str) -> float:
    """A100-seconds of a sample of an epoch."""
    return HOURS[what] * 3600 * GPUS / EPOCH


def published_rates(recipe: Recipe) -> Rates:
    """Rates of an A100 that follow from the published hours, for the models of the paper: other models have others.

    Taken to be so: live, each sample costs a view and two texts of each of two teachers, and one caption. Of the loader
    nothing follows.
    """
    teacher = (seconds("teachers live") - seconds("stored")) / 2
    each = {
        "views": teacher * IMAGE_PART,
        "texts": teacher * (1 - IMAGE_PART) / 2,
        "captions": seconds("all live") - seconds("teachers live"),
        "samples": seconds("stored"),
    }
    kinds = {item.what: item.what.partition(" ")[0] for item in work(recipe)}
    known = {what: 1 / each[kind] for what, kind in kinds.items() if kind in each}
    sources = dict.fromkeys(known, HOURS_FROM)
    return Rates("A100, by the hours that MobileCLIP's authors published", known, {}, sources)


class Payback(NamedTuple):
    """When storing has paid, in device-hours."""

    once: float
    """Captions and reinforcement, once."""
    stored: float
    """A student from stored captions and embeddings."""
    live: float
    """The same student with a caption, a view and two texts of each teacher made for every sample that it sees."""

    @property
    def students(self) -> float:
        """So many students cost as much either way."""
        return self.once / (self.live - self.stored)


def payback(recipe: Recipe, rates: Rates) -> Payback:
    """What a recipe costs stored and live.

    Raises:
        ValueError: a rate is not known, or the recipe has neither captioner nor teacher.
    """
    items = work(recipe)
    if missing := [item.what for item in items if item.what not in rates.per_second]:
        raise ValueError(f"no rate of {', '.join(missing)}: measure this recipe (plan --measure)")
    time = {item.what: 1 / rates.per_second[item.what] for item in items}
    made = [item for item in items if item.stage in ("caption", "reinforce")]
    if not made:
        raise ValueError(f"recipe {recipe.name} stores nothing: there is nothing to pay back")
    groups = 1 + bool(recipe.student.captioners)
    often = {"captions": 1, "views": 1, "texts": groups}
    once = sum(item.count * time[item.what] for item in made)
    live = sum(often[item.what.partition(" ")[0]] * time[item.what] for item in made)
    step = time[f"samples {recipe.student.model}"]
    seen = recipe.student.samples
    return Payback(once / 3600, seen * step / 3600, seen * (step + live) / 3600)


def payback_table(recipe: Recipe, rates: Rates) -> Table:
    """`payback` to be printed."""
    found = payback(recipe, rates)
    rows = [
        ["captions and reinforcement, once", f"{found.once:,.4g}"],
        ["a student, everything stored", f"{found.stored:,.4g}"],
        ["a student, everything live", f"{found.live:,.4g}"],
        ["students after which storing has paid", f"{found.students:,.3g}"],
    ]
    return Table(["stored against live", "device-hours"], rows)
