"""The commands about shards that are there: `inspect`, `hold-out`, `join` official ones with images, `shrink`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from mobileclip2_lite import recipes
from mobileclip2_lite.cli.options import ALONE, Flat, Positional
from mobileclip2_lite.cli.places import Commands
from mobileclip2_lite.cli.summary import print_summary
from mobileclip2_lite.work.crew import Spread

PUBLISHED_TEACHERS = tuple((name, 768) for name in recipes.paper_12m().reinforce.teachers)
"""Those of DFNDR, with their dimension."""


def add(app: Commands) -> None:
    """Register the commands."""
    app.command(inspect)
    app.command(name="hold-out")(hold_out)
    app.command(join)
    app.command(shrink)


def inspect(path: Positional[Path], html: Path | None = None, verify: bool = False) -> None:
    """Show what a folder of shards holds.

    Args:
        path: a folder of pairs or reinforced shards, or one shard.
        html: also write a page with sample images, views, captions and the teachers' matches.
        verify: read every byte and compare all hashes with the manifest; exit status 1 if anything disagrees.
    """
    from mobileclip2_lite.reports.inspection import inspect as inspect_path

    found = inspect_path(path, html=html, verify=verify)
    print(found["text"])
    if verify and found["problems"]:
        raise SystemExit(1)


def hold_out(pairs: Positional[Path], train: Positional[Path], test: Positional[Path], count: int) -> None:
    """Hold images out of a folder of pairs, to measure on them what is trained on the others.

    Args:
        pairs: folder of pairs; it is only read.
        train: folder to write, of all other images: `reinforce` and `train` take it.
        test: folder to write, of the images held out with all their texts: `evaluate MODEL --set` takes it.
        count: images to hold out; which ones follows from their bytes.
    """
    from mobileclip2_lite.pairs.holding_out import hold_out as hold_out_images

    for manifest, folder in zip(hold_out_images(pairs, train, test, count), (train, test), strict=True):
        print_summary(manifest, folder)


def join(
    official: Positional[Path],
    out: Positional[Path],
    images: tuple[Path, ...] = (),
    teachers: tuple[tuple[str, int], ...] = PUBLISHED_TEACHERS,
    logit_scales: tuple[tuple[str, float], ...] = (),
    storage: str = "bf16",
    size: int = 224,
    links: Path | None = None,
    spread: Annotated[Spread, Flat] = ALONE,
) -> None:
    """Join a published reinforced set (DataCompDR, DFNDR), which holds no images, with images by uid.

    Args:
        official: folder of the published tars, `hf://datasets/OWNER/NAME` for one.
        out: folder to write; `train` takes it.
        images: folders with images or tars of them, as img2dataset writes; none if the published tars hold them.
        teachers: each teacher's name and dimension, in the order of the stored vectors: `first 768 second 768`.
        logit_scales: each teacher's name and logit scale, which the published layout does not have.
        storage: of embeddings: `bf16`, `fp32`, `int8` or `int6`.
        size: side in pixels that the published views were recorded at.
        links: CSV to write, of the links of images that were missing, for img2dataset to try again.
        spread: over which workers.
    """
    from mobileclip2_lite.shards.joining import join as join_folder
    from mobileclip2_lite.shards.joining import write_links

    scales = dict(logit_scales)
    manifest = join_folder(official, out, dict(teachers), images or None, scales, storage, size, spread=spread)
    print_summary(manifest, out)
    if links is not None:
        print(f"  {write_links(out, links):,} links to try again in {links}")


def shrink(
    reinforced: Positional[Path],
    out: Positional[Path],
    side: int = 256,
    quality: int = 85,
    spread: Annotated[Spread, Flat] = ALONE,
) -> None:
    """Copy reinforced shards with smaller images, which are decoded faster.

    Args:
        reinforced: folder of reinforced shards.
        out: folder to write.
        side: shorter side in pixels; smaller images are kept untouched.
        quality: of the new JPEGs, 1 to 95.
        spread: over which workers.
    """
    from mobileclip2_lite.shards.shrinking import shrink as shrink_folder

    print_summary(shrink_folder(reinforced, out, side, quality, spread), out)
