"""The commands about shards that are there: `inspect` them, `join` official ones with images, `shrink` their images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from mobileclip2_lite.cli.summary import print_summary
from mobileclip2_lite.work.crew import Spread

Positional = tyro.conf.Positional
Flat = tyro.conf.arg(name="")
ALONE = Spread()


def add(app: tyro.extras.SubcommandApp) -> None:
    """Register the commands."""
    app.command(inspect)
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


def join(
    official: Positional[Path],
    out: Positional[Path],
    teachers: dict[str, int],
    images: Path | None = None,
    logit_scales: dict[str, float] = {},  # noqa: B006 (tyro's default; never changed)
    storage: str = "bf16",
    size: int = 224,
    spread: Annotated[Spread, Flat] = ALONE,
) -> None:
    """Turn shards of DataCompDR's layout, and the images that they leave out, into shards that `train` reads.

    Args:
        official: folder of official tars.
        out: folder to write.
        teachers: each teacher's name and dimension, in the order of the stored vectors: `first 768 second 768`.
        images: folder with images or tars of them, if the official tars hold none.
        logit_scales: each teacher's name and logit scale, which the official layout does not have.
        storage: of embeddings: `bf16`, `fp32`, `int8` or `int6`.
        size: side in pixels that the official views were recorded at.
        spread: over which workers.
    """
    from mobileclip2_lite.shards.joining import join as join_folder

    manifest = join_folder(official, out, teachers, images, logit_scales, storage, size, spread=spread)
    print_summary(manifest, out)


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
