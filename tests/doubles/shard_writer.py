"""A worker of a stage that writes its shard's name, fails or dies where it is told; importable by other processes."""

from __future__ import annotations

import os
import time
from pathlib import Path

from mobileclip2_lite.work.files import sha256_file

NAMES = ("shard-000000.tar", "shard-000001.tar", "shard-000002.tar", "shard-000003.tar")


class Writer:
    """A worker that takes longest for the first shard and writes down who made what."""

    def __init__(self, journal: Path, fails: str = "", dies: str = "") -> None:
        self.journal, self.fails, self.dies = journal, fails, dies

    def __call__(self, target: Path) -> dict:
        if target.name == NAMES[0]:
            time.sleep(0.3)
        if target.name == self.fails:
            raise ValueError("no good")
        if target.name == self.dies:
            os._exit(9)
        target.write_bytes(target.name.encode())
        threads = os.environ.get("OMP_NUM_THREADS")
        (self.journal / target.name).write_text(f"{os.getpid()} {threads}")
        return {"sha256": sha256_file(target), "samples": 1}
