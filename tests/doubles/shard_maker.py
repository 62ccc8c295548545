"""A stage as small as can be, for processes that are killed, raced and robbed of their store.

`python -m doubles.shard_maker FOLDER`. Its shards are tars whose bytes follow from their names alone. On its last line
it says what it did, as JSON.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import signal
import sys
import time
from pathlib import Path

from mobileclip2_lite.shards.tars import write_tar
from mobileclip2_lite.work.crew import Spread
from mobileclip2_lite.work.folder import Work
from mobileclip2_lite.work.place import Place, place_of
from mobileclip2_lite.work.randomness import rng
from mobileclip2_lite.work.shardwise import make_shards


class Maker:
    """Writes one tar after another; `ill` names what happens at a shard: `kill`, `raise` or `slow`."""

    def __init__(self, seconds: float, ill: dict[str, str], journal: Path | None) -> None:
        self.seconds, self.ill, self.journal = seconds, ill, journal

    def __call__(self, target: Path) -> dict:
        chance = rng(0, "shard", target.name)
        if self.journal:
            (self.journal / f"{target.name}.{os.getpid()}.{time.time_ns()}").touch()
        what = self.ill.get(target.name)
        if what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "raise":
            raise ValueError("this shard is no good")
        time.sleep(self.seconds * (10 if what == "slow" else 2 * chance.random()))
        samples = ((f"{target.stem}-{number}", {"bin": chance.bytes(3000)}) for number in range(4))
        return write_tar(target, samples)._asdict()


def summarise(records: list[dict]) -> dict:
    """The manifest's content."""
    return {"shards": [{key: record[key] for key in ("name", "sha256", "samples", "bytes")} for record in records]}


def make(
    folder: str | Path | Place,
    count: int = 8,
    spread: Spread | None = None,
    seconds: float = 0.0,
    ill: dict[str, str] | None = None,
    journal: Path | None = None,
) -> dict:
    """The manifest of `count` shards in a folder."""
    work = Work(place_of(folder), "made", 1, {"count": count})
    names = [f"shard-{number:06d}.tar" for number in range(count)]
    return make_shards(work, names, functools.partial(Maker, seconds, ill or {}, journal), summarise, spread)


def main() -> None:
    """From the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--ill", type=json.loads, default={})
    parser.add_argument("--journal", type=Path)
    parser.add_argument("--spread", type=json.loads, default={})
    given = parser.parse_args()
    try:
        manifest = make(given.folder, given.count, Spread(**given.spread), given.seconds, given.ill, given.journal)
    except Exception as error:
        print(json.dumps({"error": type(error).__name__, "message": str(error)}))
        sys.exit(1)
    print(json.dumps({"shards": len(manifest["shards"])}))


if __name__ == "__main__":
    main()
