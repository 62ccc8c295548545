"""What a plan says beside what was published, bytes and hours, and what of the difference has been explained.

Papers: MobileCLIP and MobileCLIP2, sizes of the sets and hours of an epoch (`published`). The set is weighed in every
form in which its numbers may lie: ours, ours packed, and the official layout by our own writer of it. Reads and writes
nothing. Taught by notebooks/70_scaling.ipynb.
"""

from __future__ import annotations

import dataclasses
import gzip

from mobileclip2_lite.costs.gpus import published_flops, shares
from mobileclip2_lite.costs.published import GPUS, HOURS, OF_RECIPE, PUBLISHED
from mobileclip2_lite.costs.rates import kept_pairs
from mobileclip2_lite.costs.sizes import made_up, made_up_members, size_words, tar_bytes
from mobileclip2_lite.recipes import Recipe
from mobileclip2_lite.reports.page import Block, Table, Text
from mobileclip2_lite.shards.datacompdr import SIZE, official_members

NEAR = 0.05
"""Share within which a form of the numbers counts as an explanation."""


def forms(recipe: Recipe) -> dict[str, int]:
    """Form of a set without images -> bytes of a sample in a tar."""
    found = {}
    for storage in ("bf16", "fp32"):
        stored = dataclasses.replace(recipe, reinforce=dataclasses.replace(recipe.reinforce, storage=storage))
        ours = made_up_members(stored)
        official = official_members(made_up(stored), recipe.reinforce.teachers, storage, "string", None, SIZE)
        found[f"{storage}, plain tars"] = tar_bytes({name: len(data) for name, data in ours.items()})
        found[f"{storage}, each member packed with gzip"] = tar_bytes(_packed(ours))
        found[f"{storage}, official layout"] = tar_bytes({name: len(data) for name, data in official.items()})
        found[f"{storage}, official layout, each member packed with gzip"] = tar_bytes(_packed(official))
    return found


def _packed(members: dict[str, bytes]) -> dict[str, int]:
    return {name: len(data if name.endswith(".gz") else gzip.compress(data)) for name, data in members.items()}


def sizes_compared(recipe: Recipe) -> list[Block]:
    """The set in each form beside the published one, and which form comes near enough to explain it."""
    name, pairs = OF_RECIPE[recipe.name], kept_pairs(recipe)
    published = PUBLISHED[name][2] * 1e12
    shares_ = {form: size * pairs / published for form, size in forms(recipe).items()}
    rows = [[f"published: {name}", size_words(published), "1"]]
    rows += [[f"planned: {form}", size_words(share * published), f"{share:.2f}"] for form, share in shares_.items()]
    nearest = min(shares_, key=lambda form: abs(shares_[form] - 1))
    apart = shares_[nearest] - 1
    if abs(apart) <= NEAR:
        said = f"Nearest is *{nearest}*, {apart:+.1%}: the published size is that form's."
    else:
        said = (
            f"Nearest is *{nearest}*, {apart:+.0%}. The rest is unexplained: the published figure has two digits, and "
            "which members its samples have beside these is not known."
        )
    return [Table(["set without images", "bytes", "of the published"], rows), Text(said)]


def hours_compared() -> list[Block]:
    """The published hours of an epoch as shares of their GPUs' peak, by FLOPs that are counted here."""
    parts = {
        "a student, everything stored": ("samples", HOURS["stored"]),
        "teachers live, beyond that": ("teachers", HOURS["teachers live"] - HOURS["stored"]),
        "captions live, beyond that": ("captions", HOURS["all live"] - HOURS["teachers live"]),
    }
    counted, reached = published_flops(), shares()
    rows = [
        [what, f"{spent:.1f}", f"{counted[part][0] / 1e9:,.0f}", f"{reached[part]:.1%}"]
        for what, (part, spent) in parts.items()
    ]
    header = [f"an epoch of 12.8 million on {GPUS} A100, published", "hours", "GFLOPs a sample", "of the peak"]
    said = (
        "Student and teachers reach a share of the peak that such trainings have, so hours and FLOPs agree. Captions "
        "do not: by the pass of their image alone they would take a small part of those hours. The rest is decoding, "
        "token by token; open_clip's computes every prefix anew, and ours writes 10 times as many captions and more "
        "(`python benchmarks/captioning.py`, on a CPU). How long the authors' captions were is not known."
    )
    return [Table(header, rows), Text(said)]
