"""A bounded folder of copies: what was read from a store lies on this disk until room is needed.

Processes of one machine share it: a file is fetched by one of them while the others wait, and appears whole. The
longest unused copies go first, of files and of whole folders alike, never those of the last minute, so that a file that
was just asked for can be opened, and no folder that a living process has asked for. What is made here for a store (an
index, a training's folder, exported towers) is bounded with them, by the same rule.
Gives up: an exact bound; what one minute, or the living processes, need may stand above it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mobileclip2_lite.work.backends import Facts
from mobileclip2_lite.work.store import Store

FRESH = 60.0
"""Seconds after its last use in which a copy is not removed."""
AHEAD = 2
"""Shards that are fetched before they are asked for."""
_ours = threading.Lock()
_holding: dict[str, threading.Lock] = {}
_pools: dict[int, ThreadPoolExecutor] = {}
_kept: dict[str, int] = {}
"""Folder of copies -> this process's handle of its lock, which the system takes back when the process ends."""
_MADE = ("indexes", "trainings", "towers")
"""Folders below the cache of what was made on this machine, and can be made or fetched again."""
_SIZE = ".bytes"
"""File within a folder of copies that says how many bytes it takes, so that not all its files are asked."""


def folder() -> Path:
    """MOBILECLIP2_LITE_CACHE, else the user's cache folder."""
    if set_to := os.environ.get("MOBILECLIP2_LITE_CACHE"):
        return Path(set_to)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return base / "mobileclip2_lite"


def limit(taken: int) -> int:
    """Bytes that copies may take: MOBILECLIP2_LITE_CACHE_GB (in 10^9 bytes), else half of what the disk has for them.

    Args:
        taken: what they take now.
    """
    if set_to := os.environ.get("MOBILECLIP2_LITE_CACHE_GB"):
        return int(float(set_to) * 1e9)
    return (shutil.disk_usage(folder()).free + taken) // 2


def fetch(store: Store, found: Facts | None = None) -> Path:
    """A copy of an object on this disk; it is asked for only if it is not there, or has changed.

    Args:
        store: the object.
        found: what the store has just said of it, if it was asked.

    Raises:
        FileNotFoundError: there is no such object. StoreError: the store does not answer.
        OSError: the disk is full even without any other copy.
    """
    if store.root == "file://":
        return Path(store.key)  # is on this disk, or looks so
    found = found or store.facts()
    if found is None:
        raise FileNotFoundError(f"{store.url} does not exist")
    name = hashlib.sha256(f"{store.url}\n{found.tag}\n{found.size}".encode()).hexdigest()[:24]
    target = folder() / "copies" / name / store.url.rsplit("/", 1)[-1]
    with _held(name):
        if target.is_file() and target.stat().st_size == found.size:
            os.utime(target)
        else:
            make_room(found.size)
            _download(store, target)
    return target


def _download(store: Store, target: Path) -> None:
    beside = target.with_name(f".{target.name}.{os.getpid()}.partial")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        store.download(beside)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        make_room(0, fresh=0.0, bound=0)  # others' copies have taken the disk: better none than no run
        target.parent.mkdir(parents=True, exist_ok=True)
        store.download(beside)
    os.replace(beside, target)


def make_room(size: int, fresh: float | None = None, bound: int | None = None) -> None:
    """Remove the longest unused copies until `size` more bytes keep within the bound."""
    fresh = FRESH if fresh is None else fresh
    copies = [*_files(), *_folders()]
    taken = sum(entry[1] for entry in copies)
    bound = limit(taken) if bound is None else bound
    for used, bytes_, path in sorted(copies):
        if taken + size <= bound or used > time.time() - fresh:
            return
        with contextlib.suppress(OSError):  # in use, open on Windows, or gone
            (_remove_folder if path.is_dir() else _remove_file)(path)
            taken -= bytes_


def _files() -> Iterator[tuple[float, int, Path]]:
    """(last use, bytes, path) of every copy of an object."""
    for path in (folder() / "copies").glob("*/*"):
        with contextlib.suppress(FileNotFoundError):  # another process makes room as well
            found = path.stat()
            yield found.st_mtime, found.st_size, path


def _folders() -> Iterator[tuple[float, int, Path]]:
    """The same of every folder; what a process left that was killed while it removed one goes."""
    for path in (path for kind in ("folders", *_MADE) for path in (folder() / kind).glob("*") if path.is_dir()):
        if path.name.startswith("."):
            shutil.rmtree(path, ignore_errors=True)
            continue
        with contextlib.suppress(FileNotFoundError):
            yield path.stat().st_mtime, _bytes_of(path), path


def _bytes_of(copied: Path) -> int:
    try:
        return int((copied / _SIZE).read_text("utf-8"))
    except (FileNotFoundError, ValueError):  # made here, or of an older version
        return sum(path.stat().st_size for path in copied.rglob("*") if path.is_file())


def _remove_file(path: Path) -> None:
    """Remove a copy of an object, and the folder that held it alone.

    Raises:
        OSError: it is open on Windows, or gone.
    """
    path.unlink()
    with contextlib.suppress(OSError):  # another copy lies there
        path.parent.rmdir()


def _remove_folder(path: Path) -> None:
    """Remove a copy of a folder, unless a living process has asked for it.

    Raises:
        OSError: one has.
    """
    with _lock_of(path.name) as handle:
        if os.name != "nt":  # there a folder with an open file cannot be renamed
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        going = path.with_name(f".{path.name}.{os.getpid()}")
        path.rename(going)
    shutil.rmtree(going, ignore_errors=True)


@contextlib.contextmanager
def _lock_of(state: str) -> Iterator[int]:
    locks = folder() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    handle = os.open(locks / f"folder-{state}", os.O_CREAT | os.O_RDWR)
    try:
        yield handle
    finally:
        os.close(handle)


def copied_folder(state: str, called: str, files: Mapping[str, tuple[Store, Facts]]) -> Path:
    """A folder of copies of objects; no process removes it while this one lives.

    Args:
        state: its name in the cache, another one for other content.
        called: its last name.
        files: relative name -> object, and what the store says of it.
    """
    _keep(state)
    target = folder() / "folders" / state
    if not target.is_dir():
        with scratch() as made:
            (made / called).mkdir(exist_ok=True)
            for name, (store, found) in files.items():
                (made / called / name).parent.mkdir(parents=True, exist_ok=True)
                _put(store, found, made / called / name)
            (made / _SIZE).write_text(str(sum(found.size for _, found in files.values())), "utf-8")
            target.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(OSError):  # another process was faster
                made.rename(target)
            made.mkdir(exist_ok=True)
    os.utime(target)
    return target / called


def made_folder(kind: str, state: str) -> Path:
    """A place for what is made on this machine; it may not be there yet. No process removes it while this one lives.

    Others that no living process has asked for go, the longest unused first, if they and the copies exceed the bound.

    Args:
        kind: one of `_MADE`.
        state: its name in the cache, another one for other content.
    """
    _keep(state)
    target = folder() / kind / state
    with contextlib.suppress(FileNotFoundError):
        os.utime(target)
    make_room(0)
    return target


def _put(store: Store, found: Facts, target: Path) -> None:
    """A copy of an object at a place within the cache, which takes no room of its own where the disk knows links."""
    copy = fetch(store, found)
    try:
        os.link(copy, target)
    except FileNotFoundError:  # another process has just made room
        shutil.copyfile(fetch(store, found), target)
    except OSError:
        shutil.copyfile(copy, target)


def _keep(state: str) -> None:
    """Hold a folder of copies as long as this process lives."""
    if os.name == "nt":
        return
    import fcntl

    with _ours, _lock_of(state) as handle:
        key = f"{folder()}/{state}"
        if key not in _kept:
            fcntl.flock(handle, fcntl.LOCK_SH)  # waits for one who is just removing it
            _kept[key] = os.dup(handle)  # the lock is held until all its handles are closed


def fetch_ahead(store: Store) -> None:
    """Begin to fetch a copy in the background; whoever opens it waits for the rest. Errors come up there."""
    with _ours:
        pool = _pools.get(os.getpid())
        if pool is None:
            pool = _pools[os.getpid()] = ThreadPoolExecutor(AHEAD, "fetch ahead")
    pool.submit(_quietly, store)


def _quietly(store: Store) -> None:
    with contextlib.suppress(OSError):  # asked for again, and reported, when the file is opened
        fetch(store)


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder for what is made here before it goes to a store; those of processes that died are removed."""
    place = folder() / "scratch"
    place.mkdir(parents=True, exist_ok=True)
    host = socket.gethostname()
    for left in place.glob(f"{host}.*"):
        if not _alive(left.name.rsplit(".", 2)[1]):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{host}.{os.getpid()}.", dir=place) as made:
        yield Path(made)


def _alive(pid: str) -> bool:
    if os.name == "nt" or not pid.isdigit():
        return True  # Windows has no harmless way to ask: what a killed process left stays there
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


@contextlib.contextmanager
def _held(name: str) -> Iterator[None]:
    """Be the only thread of this machine at a copy; the system lets go when a process dies."""
    stripe = name[:2]  # 256 lock files for any number of copies; a thread holds one at a time
    locks = folder() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with _ours:
        mine = _holding.setdefault(stripe, threading.Lock())
    with mine:  # record locks do not keep a process from itself
        handle = os.open(locks / stripe, os.O_CREAT | os.O_RDWR)
        try:
            _wait_for(handle)
            yield
        finally:
            os.close(handle)


def _wait_for(handle: int) -> None:
    if os.name != "nt":
        import fcntl

        fcntl.lockf(handle, fcntl.LOCK_EX)
        return
    import msvcrt

    while True:
        with contextlib.suppress(OSError):  # held: msvcrt waits for ten seconds at most
            msvcrt.locking(handle, msvcrt.LK_LOCK, 1)
            return
