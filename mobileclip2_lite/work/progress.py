"""How far the shards of a run are: a bar on a terminal, now and then a line in a job's log.

Ours. A log has no cursor, so it gets a line a minute. Writes to stderr alone; nothing in a notebook, whose outputs are
kept, nor where TQDM_DISABLE is set.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

EVERY = 60.0
"""Seconds between two lines of a log."""


class Progress:
    """Counts what is done of `total` shards."""

    def __init__(self, label: str, total: int) -> None:
        """Show nothing yet.

        Args:
            label: the folder's name.
            total: shards, of which some may be there already; 0 if their number is not known: nothing is shown.
        """
        self.label, self.total = label, total
        self.done = self.before = 0
        self.said = time.monotonic()

    def over(self, run: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
        """The same items, each counted as it comes; `run.failed`, if there is such a list, is counted beside."""
        from tqdm.auto import tqdm

        quiet = not self.total or os.environ.get("TQDM_DISABLE", "") not in ("", "0") or "ipykernel" in sys.modules
        terminal = sys.stderr.isatty()
        with tqdm(total=self.total, desc=self.label, unit="shard", disable=quiet or not terminal) as bar:
            for item in run:
                self.done += 1
                failed = len(getattr(run, "failed", ()))
                if failed:
                    bar.set_postfix(failed=failed, refresh=False)
                bar.update()
                if not (quiet or terminal):
                    self.log(failed)
                yield item

    def log(self, failed: int) -> None:
        """A line, if the last is a minute old: how many are done, and when the others will be at this minute's pace."""
        now = time.monotonic()
        if now - self.said < EVERY:
            return
        pace = (self.done - self.before) / (now - self.said)
        left = (self.total - self.done - failed) / pace / 60
        ill = f", {failed:,} failed" if failed else ""
        line = f"{self.label}: {self.done:,} of {self.total:,} shards{ill}, about {left:,.0f} min left"
        print(line, file=sys.stderr, flush=True)
        self.said, self.before = now, self.done
