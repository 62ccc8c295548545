"""A folder or file that is a path of this machine or a URL: stages write `place_of(folder) / name` for both.

`StorePath` has of `pathlib.Path` what stages use. To open it is to open a copy on this disk (`cache`), which works for
memory maps, PIL and tarfile alike; what is written to it is created once (`store`). It holds no connection, so it can
be handed to any process. Taught by notebooks/70_scaling.ipynb.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from mobileclip2_lite.work import cache
from mobileclip2_lite.work.backends import Refused
from mobileclip2_lite.work.store import Store, refuse_unknown, url_of


class Size(NamedTuple):
    """The part of `os.stat_result` that stores know."""

    st_size: int


class StorePath(os.PathLike):
    """The part of `pathlib.Path` that stages use, for an object or a folder of objects in a store."""

    __slots__ = ("store",)

    def __init__(self, url: str) -> None:
        self.store = Store(url)

    def __fspath__(self) -> str:
        """A copy of the object on this disk, fetched now if it is not there."""
        return str(cache.fetch(self.store))

    def __str__(self) -> str:
        return self.store.url

    def __repr__(self) -> str:
        return f"StorePath({self.store.url!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StorePath) and other.store == self.store

    def __hash__(self) -> int:
        return hash(self.store)

    def __lt__(self, other: StorePath) -> bool:
        return self.store.url < other.store.url

    def __reduce__(self) -> tuple:
        return StorePath, (self.store.url,)

    def __truediv__(self, name: str | os.PathLike) -> StorePath:
        return StorePath(f"{self.store.url}/{PurePosixPath(name).as_posix()}")

    @property
    def _pure(self) -> PurePosixPath:
        return PurePosixPath(self.store.key)

    @property
    def name(self) -> str:
        """The last part."""
        return self._pure.name

    @property
    def stem(self) -> str:
        """The last part without its suffix."""
        return self._pure.stem

    @property
    def suffix(self) -> str:
        """The last part's suffix, with its dot."""
        return self._pure.suffix

    @property
    def parent(self) -> StorePath:
        """The folder that it lies in."""
        return StorePath(self.store.url.rsplit("/", 1)[0])

    def with_name(self, name: str) -> StorePath:
        """Another object of the same folder."""
        return self.parent / name

    def with_suffix(self, suffix: str) -> StorePath:
        """The object of the same name with another suffix."""
        return self.parent / self._pure.with_suffix(suffix).name

    def absolute(self) -> StorePath:
        """Itself: URLs are absolute."""
        return self

    resolve = absolute

    def as_posix(self) -> str:
        """The URL."""
        return self.store.url

    def exists(self) -> bool:
        """Whether there is such an object, or any below it."""
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        """Whether there is such an object."""
        return bool(self.store.key) and self.store.facts() is not None

    def is_dir(self) -> bool:
        """Whether there are objects below it: a store has no folders of its own."""
        return (self / "manifest.json").is_file() or any(True for _ in self.store.names()[:1])

    def stat(self) -> Size:
        """Its size."""
        found = self.store.facts()
        if found is None:
            raise FileNotFoundError(f"{self} does not exist")
        return Size(found.size)

    def read_bytes(self) -> bytes:
        """The content, without a copy on the disk."""
        return self.store.read()

    def read_text(self, encoding: str = "utf-8") -> str:
        """The content as text."""
        return self.store.read().decode(encoding)

    def open(self, mode: str = "r", encoding: str | None = None):
        """Open a copy to read."""
        if mode not in ("r", "rb"):
            raise ValueError(f"{self} cannot be opened to write: an object is created whole (files.write_atomic)")
        return open(self, mode, encoding=encoding)

    def write_bytes(self, data: bytes) -> int:
        """Create the object; the same content again is no error, another is a `store.Clash`."""
        self.store.create(data)
        return len(data)

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: a folder is there as soon as an object lies in it."""

    def iterdir(self) -> Iterator[StorePath]:
        """What the store lists right below; only for looking around, since a list may be out of date."""
        seen = dict.fromkeys(name.split("/")[0] for name in self.store.names())
        yield from (self / name for name in seen)

    def glob(self, pattern: str) -> Iterator[StorePath]:
        """As `iterdir`, those objects whose name fits, part by part."""
        parts = pattern.split("/")
        for name in self.store.names():
            own = name.split("/")
            if len(own) == len(parts) and all(map(fnmatch.fnmatchcase, own, parts)):
                yield self / name

    def rglob(self, pattern: str) -> Iterator[StorePath]:
        """As `glob`, at any depth."""
        yield from (self / n for n in self.store.names() if fnmatch.fnmatchcase(n.rsplit("/", 1)[-1], pattern))


Place = Path | StorePath


def place_of(value: str | os.PathLike, shared: bool = False) -> Path | StorePath:
    """The path or the store's object that a user means.

    Args:
        value: a path, or a URL of one of `store.SCHEMES`, also one that `Path` has taken a slash from.
        shared: several machines write there at once, also to a folder of a file system: no lock, created once.

    Raises:
        ValueError: the URL holds a credential, or is of no known store (`s4://`).
    """
    if isinstance(value, StorePath):
        return value
    if url := url_of(value):
        return StorePath(url)
    refuse_unknown(value)
    path = Path(value)
    return StorePath(f"file:///{path.absolute().as_posix().lstrip('/')}") if shared else path


def on_disk(value: str | os.PathLike, why: str) -> Path:
    """The path of this machine that a user means, where a store will not do.

    Args:
        why: what a disk is needed for, and what to do, for the message.

    Raises:
        ValueError: it is a store's address, or one of no known store.
    """
    place = place_of(value)
    if isinstance(place, StorePath):
        raise ValueError(f"{place} lies in a store: {why}")
    return place


def here(value: str | os.PathLike) -> Path:
    """The file or folder that a user means, on this disk: itself, or a copy of a store's object or whole folder.

    For what is read by programs that know files alone, or again and again. A path need not exist.

    Raises:
        FileNotFoundError: the store has nothing of that name.
    """
    place = place_of(value)
    if isinstance(place, Path):
        return place
    return cache.fetch(place.store) if place.is_file() else folder_here(place, deep=True)


def file_here(value: str | os.PathLike) -> Path:
    """As `here`, for a file that names others beside it: of a store's object, the copy lies among its neighbours'.

    Raises:
        FileNotFoundError: the store has nothing of that name.
    """
    place = place_of(value)
    beside = isinstance(place, StorePath) and place.is_file()
    return here(place.parent) / place.name if beside else here(place)


def folder_here(place: StorePath, deep: bool = False, names: Iterable[str] | None = None) -> Path:
    """A copy on this disk of the files that lie right in a store's folder: a model's, for one.

    Args:
        place: the folder.
        deep: of all that lies below it, too.
        names: of those alone, where the caller knows them: a web server lists nothing.

    Raises:
        FileNotFoundError: there are none.
    """
    if names is None:
        names = [name for name in place.store.names() if deep or "/" not in name]
    names = sorted(names)
    if not names:
        raise FileNotFoundError(f"{place} does not exist, or holds no file")
    files = {}
    for name in names:
        if (found := (place / name).store.facts()) is None:
            raise FileNotFoundError(f"{place / name} does not exist")
        files[name] = (place / name).store, found
    state = hashlib.sha256(repr([str(place), *((n, *found) for n, (_, found) in files.items())]).encode()).hexdigest()
    return cache.copied_folder(state[:24], place.name or "files", files)


def those_there(place: StorePath, names: Iterable[str]) -> list[str]:
    """Those of some names that a store's folder holds; a web server that refuses a name holds no such file."""
    found = []
    for name in names:
        with contextlib.suppress(Refused):
            found += [name] if (place / name).is_file() else []
    return found


def fetch_ahead(path: Path | StorePath) -> None:
    """Begin to read an object that will be opened soon; nothing to do for a file."""
    if isinstance(path, StorePath):
        cache.fetch_ahead(path.store)


@contextlib.contextmanager
def made_here(target: Path | StorePath) -> Iterator[Path]:
    """A path to write, file or folder, or not; when the block ends well, what it holds lies at `target`.

    A path is itself. In a store every file becomes an object that is created, hidden ones left out; those that are
    there already are compared first, so that nothing is written beside another's.

    Raises:
        ValueError: the store can only be read; said before the block begins.
        store.Clash: the store has an object of a file's name and other content.
    """
    if isinstance(target, Path):
        yield target
        return
    if not target.store.writable:
        raise ValueError(f"{target} can only be read: name a bucket or a folder to write")
    with cache.scratch() as folder:
        made = folder / target.name
        yield made
        if made.is_file():
            target.store.create(made)
            return
        parts = [path.relative_to(made) for path in sorted(made.rglob("*")) if path.is_file()]
        names = [part.as_posix() for part in parts if not any(name.startswith(".") for name in part.parts)]
        there = [name for name in names if (target / name).is_file()]
        for name in (*there, *(name for name in names if name not in there)):
            (target / name).store.create(made / name)
