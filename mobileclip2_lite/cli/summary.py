"""What a command says of the folder that it made."""

from __future__ import annotations

from pathlib import Path

from mobileclip2_lite.work.place import place_of


def print_summary(manifest: dict, out: Path) -> None:
    """Print how many samples and shards a stage wrote, and what it dropped by reason."""
    print(f"{manifest['samples']:,} samples in {len(manifest['shards'])} shards in {place_of(out)}")
    for reason, count in manifest["dropped"].items():
        print(f"  dropped {count:,}: {reason}")
