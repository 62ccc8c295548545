"""Who is at which shard, where several processes share a folder and nobody coordinates them.

A claim is an object `claims/NAME.1`, created once, in which its owner leaves a sign of life. Whoever has seen no new
sign for a lease, by its own clock, creates `claims/NAME.2`: only one can, and it is the owner from then on. Clocks are
never compared between machines. Claims save work; they decide nothing: shards are created once, and two that make the
same one make the same bytes. Taught by notebooks/70_scaling.ipynb.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Iterator

from mobileclip2_lite.work.place import StorePath
from mobileclip2_lite.work.store import Clash


class Abandoned(RuntimeError):
    """So many processes have ended at one shard that it may be what ends them."""


class Claims:
    """The claims of one process on the shards of one folder."""

    def __init__(self, folder: StorePath, lease: float, most: int | None = None) -> None:
        """Ask nothing of the store yet.

        Args:
            folder: the shards'.
            lease: seconds without a sign of life after which an owner counts as dead.
            most: owners of one shard that may have died at it; None for any number.
        """
        self.folder, self.lease, self.most = folder / "claims", lease, most
        self.host, self.owner = socket.gethostname(), uuid.uuid4().hex
        self.seen: dict[str, tuple[int, bytes, float]] = {}
        """Shard -> number and content of its last claim, and when this process first saw that."""

    @contextlib.contextmanager
    def taken(self, name: str) -> Iterator[bool]:
        """Whether the shard is this process's to make; while the block lasts it gives signs of life.

        A dead owner's is not at the first look: shards that have ended no process come first.

        Raises:
            Abandoned: `most` owners have died at it.
        """
        number = self._take(name)
        if not number:
            yield False
            return
        ended = threading.Event()
        beating = threading.Thread(target=self._beat, args=(name, number, ended), daemon=True)
        beating.start()
        try:
            yield True
        finally:
            ended.set()
            beating.join()

    def _take(self, name: str) -> int:
        """The number of our claim, 0 if the shard is another's."""
        first_look = name not in self.seen
        number, content, since = self.seen.get(name, (0, b"", 0.0))
        while (found := self._read(name, number + 1)) is not None:
            number, content, since = number + 1, found, time.monotonic()
        if number and (found := self._read(name, number)) != content:
            content, since = found or b"", time.monotonic()
        self.seen[name] = (number, content, since)
        owner = _owner(content)
        if owner.get("owner") == self.owner:  # an earlier try of ours
            return number
        if number and time.monotonic() < since + self.lease and (first_look or not self._dead(owner)):
            return 0
        if self.most is not None and number >= self.most:
            raise Abandoned(f"{number} processes have ended at it ({self._path(name, number)} is the last one's claim)")
        try:
            self._path(name, number + 1).write_bytes(self._sign(0))
        except Clash:
            return 0
        return number + 1

    def _path(self, name: str, number: int) -> StorePath:
        return self.folder / f"{name}.{number}"

    def _read(self, name: str, number: int) -> bytes | None:
        try:
            return self._path(name, number).read_bytes()
        except FileNotFoundError:
            return None

    def _sign(self, beat: int) -> bytes:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")  # for people
        return json.dumps(
            {"owner": self.owner, "host": self.host, "pid": os.getpid(), "beat": beat, "time": now}
        ).encode()

    def _beat(self, name: str, number: int, ended: threading.Event) -> None:
        beat = 0
        while not ended.wait(self.lease / 4 * (0.8 + 0.4 * random.random())):
            beat += 1
            with contextlib.suppress(OSError):  # at worst another process does the shard, too
                self._path(name, number).store.replace(self._sign(beat))

    def _dead(self, owner: dict) -> bool:
        """Whether the owner was a process of this machine that is no more: no need to wait for the lease."""
        if owner.get("host") != self.host or os.name == "nt":
            return False
        try:
            os.kill(int(owner["pid"]), 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False


def _owner(content: bytes) -> dict:
    """What a claim says; nothing if it is being written."""
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("pid"), int) else {}
