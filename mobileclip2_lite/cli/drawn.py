"""Which images the embedded models may judge: those of the drawn world, and others only when told to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mobileclip2_lite.models.embedded import KINDS
from mobileclip2_lite.work.place import place_of

INSTEAD = {
    "--teachers": "photo-teacher-names photo-teacher-vectors (made by `mobileclip2-lite photo-teachers`), or published "
    "ones (ViT-L-14@dfn2b ViT-L-14@dfn2b_s39b)",
    "--scorer": "photo-teacher-vectors (made by `mobileclip2-lite photo-teachers`), or published: ViT-B-16@dfn2b",
    "--captioners": "a published one (coca_ViT-L-14@mscoco_finetuned_laion2b_s13b_b90k)",
    "--model": "photo-teacher-vectors (made by `mobileclip2-lite photo-teachers`), a published one "
    "(hf-hub:apple/MobileCLIP2-S0), or a student of yours",
}
"""Option -> what it should name for other images than drawings."""


def refuse_drawn(names: Sequence[str], images: Path, option: str, allowed: bool) -> None:
    """Keep embedded models from judging images that are not of their world.

    Args:
        names: of the models; folders and published ones may judge anything.
        images: folder of pairs, or of image files.
        option: that names the models, a key of `INSTEAD`.
        allowed: go on all the same.

    Raises:
        ValueError: an embedded model is named for other images; says what to name instead.
    """
    prefixes = tuple(prefix for _, prefix, _ in KINDS.values())
    images = place_of(images)
    drawn = [name for name in names if name.startswith(prefixes) and not Path(name).exists()]
    if not drawn or allowed or not images.is_dir() or is_drawn(images):
        return
    raise ValueError(
        f"{', '.join(drawn)} know drawings of the embedded world and nothing else, and {images} holds other images: "
        f"their answers would mean nothing. Take {option} {INSTEAD[option]}. To go on all the same: --allow-drawn"
    )


def is_drawn(folder: Path) -> bool:
    """Whether a folder's pairs come from the embedded world: then each says which scene it shows.

    A folder without shards, of image files, is not; one whose shards are not finished is the stage's to complain about.
    """
    from mobileclip2_lite.shards import samples as shards

    folder = place_of(folder)
    if not (folder / "manifest.json").is_file():
        return any(folder.glob("*.tar")) or (folder / "progress.json").is_file()
    first = (sample for name in shards.shard_names(folder) for sample in shards.read_samples(folder / name, Counter()))
    return "scene" in next(first, shards.Sample("", b"", "", "")).meta
