"""Which images the embedded models may judge: those of the drawn world, and others only when told to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mobileclip2_lite.models.embedded import PREFIXES
from mobileclip2_lite.recipes import Recipe
from mobileclip2_lite.work.place import place_of

_MODEL = (
    "photo-teacher-vectors (made by `mobileclip2-lite photo-teachers`), a published one "
    "(hf-hub:apple/MobileCLIP2-S0), or a student of yours"
)
INSTEAD = {
    "--teachers": "photo-teacher-names photo-teacher-vectors (made by `mobileclip2-lite photo-teachers`), or published "
    "ones (ViT-L-14@dfn2b ViT-L-14@dfn2b_s39b)",
    "--scorer": "photo-teacher-vectors (made by `mobileclip2-lite photo-teachers`), or published: ViT-B-16@dfn2b",
    "--captioners": "a published one (coca_ViT-L-14@mscoco_finetuned_laion2b_s13b_b90k), or leave captions out: what "
    "follows takes pairs with their own texts, too",
    "--model": _MODEL,
    "MODEL": _MODEL,
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
    images, drawn = place_of(images), embedded(names)
    if not drawn or allowed or not images.is_dir() or is_drawn(images):
        return
    raise ValueError(_words(drawn, images, option, INSTEAD[option]))


def refuse_for_source(settings: Recipe, allowed: bool) -> None:
    """Keep the whole way's embedded models from judging pairs of a source of the user's.

    Raises:
        ValueError: as `refuse_drawn`, for the first of scorer, captioners and teachers that is an embedded model.
    """
    source = settings.pairs.source.partition("?")[0]
    if allowed or source == "emoji_world" or ((place_of(source) / "manifest.json").is_file() and is_drawn(source)):
        return
    used = {"--teachers": settings.reinforce.teachers, "--captioners": settings.caption.captioners}
    used |= {"--scorer": (settings.filter.scorer,)} if settings.filter.keep < 1 else {}
    prefix = {"--teachers": "--reinforce.", "--captioners": "--caption.", "--scorer": "--filter."}
    for option, names in used.items():
        if drawn := embedded(names):
            raise ValueError(_words(drawn, source, prefix[option] + option.removeprefix("--"), INSTEAD[option]))


def refuse_for_sets(model: str, sets: Sequence[str], allowed: bool) -> None:
    """Keep an embedded model, named and not given as a folder, from being measured on other sets than drawn pairs.

    Raises:
        ValueError: as `refuse_drawn`.
    """
    others = [one for one in sets if not ((place_of(one) / "manifest.json").is_file() and is_drawn(place_of(one)))]
    if others and not allowed and (drawn := embedded([model])):
        raise ValueError(_words(drawn, ", ".join(others), "MODEL", INSTEAD["MODEL"]))


def embedded(names: Sequence[str]) -> list[str]:
    """Those of some models that know the embedded world alone, by their names; folders and published ones may know
    anything."""
    return [name for name in names if name.startswith(PREFIXES) and not Path(name).exists()]


def _words(names: Sequence[str], images: object, option: str, instead: str) -> str:
    knows, its = ("knows", "its") if len(names) == 1 else ("know", "their")
    return (
        f"{', '.join(names)} {knows} drawings of the embedded world and nothing else, and {images} holds other images: "
        f"{its} answers would mean nothing. Take {option} {instead}. To go on all the same: --allow-drawn"
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
