"""What a command says of the folder that it made."""

from __future__ import annotations

from pathlib import Path

from mobileclip2_lite.work.place import place_of


def print_summary(manifest: dict, out: Path) -> None:
    """Print how many samples and shards a stage wrote, and what it dropped by reason."""
    samples, shards, texts = manifest["samples"], len(manifest["shards"]), manifest.get("texts", 0)
    several = f" with {texts:,} texts" if texts > samples else ""
    print(f"{samples:,} samples{several} in {shards} shard{'' if shards == 1 else 's'} in {place_of(out)}")
    for reason, count in manifest["dropped"].items():
        print(f"  dropped {count:,}: {reason}")


def print_embedded(manifest: dict) -> None:
    """Print what `reinforce` had teachers embed: views, real texts and synthetic ones."""
    if "texts" not in manifest:  # of a run that an earlier version has begun
        return
    teachers, views = len(manifest["teachers"]), manifest["settings"]["views"]
    written = manifest["captions"]
    by = ", ".join(f"{name or '(unnamed)'} {count:,}" for name, count in written.items())
    print(
        f"  embedded by {teachers} teacher{'' if teachers == 1 else 's'}: {views * manifest['samples']:,} views, "
        f"{manifest['texts']:,} real and {sum(written.values()):,} synthetic texts{f' ({by})' if by else ''}"
    )


def print_not_taken(manifest: dict) -> None:
    """Print what of a source `pairs` did not take: other splits, turns, and files that are neither image nor text."""
    if count := manifest.get("turned", 0):
        images = f"{count:,} image{'' if count == 1 else 's'}"
        if manifest.get("settings", {}).get("upright"):
            print(f"  turned upright, as EXIF says: {images}")
        else:
            print(
                f"  turned by EXIF: {images}, taken as the pixels lie, as the official trainer does; "
                "--upright, with another folder, has them stored and learned upright"
            )
    if "split" in manifest:
        others = manifest["left_out"]  # of a data set by name, without counts
        counted = others.items() if isinstance(others, dict) else ((split, None) for split in others)
        words = [f"{'' if count is None else f'{count:,} of '}{_called(split)}" for split, count in counted]
        chooses = "SOURCE?split=NAME chooses"
        print(f"  taken: split {manifest['split']}; left out: {', '.join(words) or 'nothing'} ({chooses})")
    kinds = [f"{count:,} {_ending(end)}" for end, count in manifest.get("ignored_files", {}).items()]
    if count := manifest.get("ignored_images", 0):
        kinds.append(f"{count:,} image{'' if count == 1 else 's'}")
    if kinds:
        print(f"  not read: {', '.join(kinds)}")


def _called(split: str) -> str:
    return "no split" if split == "none" else split


def _ending(end: str) -> str:
    return "without an ending" if end == "(none)" else end
