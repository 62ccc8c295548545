"""Objects in stores: `s3://`, `gs://`, `az://`, folders that machines share (`file://`); `https://`, `hf://` to read.

Paper: none; it kept 12 million and 2 billion pairs in stores of its own. What is written is created once and never
changed, renamed or deleted: a second writer of the same name compares contents. Every request is tried again, with
pauses that grow, and a write that the store confirmed is looked at, because stores forget. Each process makes its own
client. Gives up: works over 5 GB, which a store does not create in one request.
Taught by notebooks/70_scaling.ipynb.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import mmap
import os
import random
import re
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from mobileclip2_lite.work.backends import LARGEST, Exists, Facts, Refused, StoreError, Transient, open_backend

Result = TypeVar("Result")

SCHEMES = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "hf", "https", "http", "memory")
SLOWEST = 20.0
"""Seconds of the longest pause between two tries."""
QUIET = 5.0
"""Seconds after which it is said that a store does not answer."""
_URL = re.compile(rf"({'|'.join(SCHEMES)}):/+(?=[^/])")
_LIKE_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(?=[^/])")
_ALIASES = ("s3a", "azure", "abfs", "abfss", "memory")
_IN_USE: set[int] = set()
"""Processes that have made a client; a child that was forked from one of them would wait for ever."""


class Clash(FileExistsError):
    """An object of this name is there already, with other content."""


def url_of(place: str | os.PathLike) -> str | None:
    """The URL that a place is, None if it is a path of this machine.

    `Path("s3://bucket/x")` has lost a slash, and on Windows turned the others around; it is known all the same.

    Raises:
        ValueError: the URL holds a credential, which would end up in logs.
    """
    text = _text(place)
    if text.startswith("file:/"):
        return "file:///" + text.removeprefix("file:").strip("/")
    found = _URL.match(text)
    if not found:
        return None
    rest = text[found.end() :].rstrip("/")
    if "@" in rest.split("/")[0] or "?" in rest:
        raise ValueError(
            f"{found[1]}://{rest.split('@')[-1].split('?')[0]}: a folder's URL holds no key, password or query; give "
            "credentials as the store's environment variables or files (docs/stores.md)"
        )
    return f"{found[1]}://{rest}"


def refuse_unknown(place: str | os.PathLike) -> None:
    """Say so where a place looks like a URL of no known store, before it becomes a folder of that odd name.

    Raises:
        ValueError: it does; names what was probably meant.
    """
    text = _text(place)
    if (scheme := text.rstrip("/").removesuffix(":")) in SCHEMES and text.startswith(f"{scheme}:"):
        raise ValueError(f"{scheme}:// names no bucket: write {scheme}://BUCKET/FOLDER")
    found = _LIKE_URL.match(text)
    if not found or Path(f"{found[1]}:").is_dir():
        return
    near = difflib.get_close_matches(found[1].lower(), SCHEMES, 1, 0.4)
    meant = f"did you mean {near[0]}://{text[found.end() :]}? " if near else ""
    known = ", ".join(f"{name}://" for name in SCHEMES if name not in _ALIASES)
    raise ValueError(f"{found[1]}://{text[found.end() :]} is of no store that is known: {meant}Known are {known}")


def _text(place: str | os.PathLike) -> str:
    return place if isinstance(place, str) else str(place).replace("\\", "/")  # a StorePath's too, without a copy


def patience() -> float:
    """Seconds for which a store that does not answer is asked again: MOBILECLIP2_LITE_PATIENCE, else 300."""
    return float(os.environ.get("MOBILECLIP2_LITE_PATIENCE", "300"))


@lru_cache(maxsize=16)
def _client(root: str, process: int) -> Any:
    """The client of this process; clients hold threads and connections, which no other process may share."""
    if _IN_USE - {process} and root.startswith(tuple(f"{name}:" for name in SCHEMES if name != "hf")):
        raise StoreError(
            f"{root}: this process was forked from one that used a store, whose threads it lacks; start it by "
            "`spawn` (loaders do: multiprocessing_context)"
        )
    made = open_backend(root)
    _IN_USE.add(process)
    return made


@dataclass(frozen=True)
class Store:
    """One object, or one folder of objects, by its URL: small, picklable, and without a connection of its own."""

    url: str

    @property
    def root(self) -> str:
        """The part of the URL that one client serves: the bucket, the server."""
        scheme, _, rest = self.url.partition("://")
        return {"file": "file://", "hf": "hf:/"}.get(scheme) or f"{scheme}://{rest.split('/')[0]}"

    @property
    def key(self) -> str:
        """The rest of it."""
        rest = self.url[len(self.root) :]
        if self.root == "file://":
            return rest[1:] if re.match(r"/[A-Za-z]:", rest) else rest
        return rest.lstrip("/")

    def _do(self, action: Callable[[Any], Result]) -> Result:
        """Do it with this process's client, again and again while there is a chance that it helps.

        Raises:
            StoreError: the store's last answer, when patience ends.
        """
        began, tries, told = time.monotonic(), 0, False
        while True:
            try:
                return action(_client(self.root, os.getpid()))
            except (Transient, Refused) as error:
                tries += 1
                pause = min(SLOWEST, 0.1 * 2**tries) * (0.5 + random.random() / 2)
                renewed = patience() / 10 if self.lists else 0.0  # a web server is shown no keys that could be renewed
                limit = patience() if isinstance(error, Transient) else renewed
                if time.monotonic() + pause > began + limit:
                    kind = StoreError if isinstance(error, Transient) else Refused
                    raise kind(f"{error} (given up after {tries} tries)") from None
                if time.monotonic() > began + QUIET and not told:
                    told = True
                    warnings.warn(
                        f"{error}; asked again for up to {limit:.0f} s (MOBILECLIP2_LITE_PATIENCE)", stacklevel=2
                    )
                if isinstance(error, Refused):  # a new client reads the credentials anew
                    _client.cache_clear()
                time.sleep(pause)

    def facts(self) -> Facts | None:
        """Size and tag, None if there is no such object."""
        return self._do(lambda client: client.facts(self.key))

    def read(self, start: int = 0, stop: int | None = None) -> bytes:
        """The bytes from `start` to before `stop`, or to the end.

        Raises:
            FileNotFoundError: there is no such object.
        """
        if start == 0 and stop is None:
            return self._do(lambda client: b"".join(client.pieces(self.key)))
        if stop is None:
            found = self.facts()
            if found is None:
                raise FileNotFoundError(f"{self.url} does not exist")
            stop = found.size
        return self._do(lambda client: client.read(self.key, start, stop)) if stop > start else b""

    def download(self, target: Path) -> str:
        """Fill a file of this machine with the object; returns the content's SHA-256.

        Raises:
            FileNotFoundError: there is no such object.
            OSError: the local disk is full; nothing is left behind.
        """

        def fill(client: Any) -> str:
            digest = hashlib.sha256()
            try:
                with open(target, "wb") as file:
                    for piece in client.pieces(self.key):
                        digest.update(piece)
                        file.write(piece)
            except BaseException:
                target.unlink(missing_ok=True)
                raise
            return digest.hexdigest()

        return self._do(fill)

    def sha256(self) -> str:
        """SHA-256 of the content, read for it."""

        def hashed(client: Any) -> str:
            digest = hashlib.sha256()
            for piece in client.pieces(self.key):
                digest.update(piece)
            return digest.hexdigest()

        return self._do(hashed)

    def create(self, content: bytes | Path) -> bool:
        """Write an object that is not there yet, of bytes or of a file; True if this call did.

        Raises:
            Clash: there is one of the same name and other content.
            ValueError: a file is larger than one request can create.
        """
        with _whole(content) as data:
            return self._create(data)

    def _create(self, content: bytes | memoryview) -> bool:
        def attempt(client: Any) -> bool:
            try:
                client.put(self.key, content)
                made = True
            except Exists:
                made = False
            found = client.facts(self.key)
            if found is None:  # a store that forgets what it confirmed, or another's write that has not ended yet
                raise Transient(f"{self.url} was written, and is not there")
            if not made or found.size != len(content):
                self._compare(client, content, found)
            return made

        return self._do(attempt)

    def _compare(self, client: Any, content: bytes | memoryview, found: Facts) -> None:
        digest = hashlib.sha256()
        if found.size == len(content):
            for piece in client.pieces(self.key):
                digest.update(piece)
        own = hashlib.sha256(content).hexdigest()
        if found.size != len(content) or digest.hexdigest() != own:
            theirs = digest.hexdigest()[:12] if found.size == len(content) else "another size"
            raise Clash(
                f"{self.url} is there already and differs: {found.size} bytes ({theirs}) there, {len(content)} bytes "
                f"({own[:12]}) made here. Nothing was touched. Another version of the code, or other hardware, wrote "
                "it: name another folder, or remove that object and run again"
            )

    def replace(self, content: bytes | Path) -> None:
        """Write an object over another: for notes and checkpoints that only their one writer changes, never for work.

        What is larger than one request takes goes in parts, which become the object when all are there.
        """
        with _whole(content, in_parts=True) as data:
            self._do(lambda client: client.put(self.key, data, create=False))

    def listed(self) -> dict[str, Facts]:
        """Name below this folder, relative to it -> size and tag; a store may not list yet what was just written."""
        start = len(self.key) + 1 if self.key else 0
        return self._do(lambda client: dict(sorted((key[start:], found) for key, found in client.listed(self.key))))

    def names(self) -> list[str]:
        """The names alone, sorted."""
        return list(self.listed())

    @property
    def lists(self) -> bool:
        """Whether it can say what a folder holds; a web server can't."""
        return not self.root.startswith("http")

    @property
    def writable(self) -> bool:
        """Whether anything can be written there at all."""
        return self._do(lambda client: client.writable)

    def __truediv__(self, name: str) -> Store:
        return Store(f"{self.url}/{name}")


@contextlib.contextmanager
def _whole(content: bytes | Path, in_parts: bool = False) -> Iterator[bytes | memoryview]:
    """What is sent: bytes, or a file's without reading it into memory."""
    if isinstance(content, bytes):
        yield content
        return
    size = content.stat().st_size
    if size > LARGEST and not in_parts:
        raise ValueError(f"{content.name} has {size} bytes, a store takes {LARGEST} at once: fewer samples a shard")
    with open(content, "rb") as file:
        if not size:
            yield b""
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data, memoryview(data) as view:
            yield view
