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
