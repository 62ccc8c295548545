"""Copies of whole folders: bounded with all other copies, the longest unused go, never one in use."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from doubles.workers import ask_for

from mobileclip2_lite.work import cache
from mobileclip2_lite.work.place import StorePath, here, place_of

CONTENT = bytes(range(256)) * 200
URL = "s3://bucket/{}"


def write(*names: str) -> None:
    """Folders of two files each."""
    for name in names:
        for part in ("a", "deep/b"):
            (place_of(URL.format(name)) / part).store.create(CONTENT + f"{name}/{part}".encode())


def bound(monkeypatch, contents: float) -> None:
    """Room for so many times CONTENT, and nothing is too fresh to go."""
    monkeypatch.setenv("MOBILECLIP2_LITE_CACHE_GB", str(contents * len(CONTENT) / 1e9))
    monkeypatch.setattr(cache, "FRESH", 0.0)


@contextlib.contextmanager
def asked(name: str) -> Iterator[tuple[Path, multiprocessing.Process]]:
    """The copy that another process has asked for, and that process, which lives on."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=ask_for, args=(URL.format(name), theirs))
    process.start()
    try:
        assert ours.poll(60)
        yield ours.recv(), process
    finally:
        process.kill()
        process.join()


def whole(folder: Path) -> bool:
    return folder.is_dir() and {path.name for path in folder.rglob("*") if path.is_file()} == {"a", "b"}


@pytest.mark.skipif(os.name == "nt", reason="there open files alone hold a folder")
def test_the_folder_that_a_living_process_asked_for_stays_and_goes_when_it_has_ended(store, monkeypatch):
    write("used", "unused", "later")
    with asked("unused") as (unused, _):
        assert whole(unused)
    bound(monkeypatch, 5)
    with asked("used") as (used, process):
        assert whole(used)
        os.utime(used.parent, (0, 0))  # longer unused than any other
        cache.make_room(3 * len(CONTENT))
        assert whole(used), "in use"
        assert not unused.exists()
        assert not unused.parent.exists()
        process.kill()
        process.join()
        cache.make_room(5 * len(CONTENT))
        assert not used.parent.exists(), "nobody uses it any more"
    mine = here(URL.format("later"))
    cache.make_room(0, fresh=0.0, bound=0)
    assert whole(mine), "this process lives"


def test_the_longest_unused_folder_goes_first(store, monkeypatch):
    write("first", "second", "third")
    folders = {}
    for name in ("first", "second", "third"):
        with asked(name) as (folders[name], _):
            pass
    shutil.rmtree(cache.folder() / "copies")
    for age, name in enumerate(("second", "third", "first")):
        os.utime(folders[name].parent, (age, age))
    bound(monkeypatch, 6.5)
    cache.make_room(len(CONTENT))
    assert {name: whole(folder) for name, folder in folders.items()} == {"first": True, "second": False, "third": True}
    cache.make_room(3 * len(CONTENT))
    assert {name: whole(folder) for name, folder in folders.items()} == {"first": True, "second": False, "third": False}


def test_a_folder_that_went_is_copied_again_and_one_that_stayed_is_not(store):
    write("set")
    first = here(URL.format("set"))
    gets = store.faults.requests["GET"]
    shutil.rmtree(cache.folder() / "copies")
    assert here(URL.format("set")) == first
    assert store.faults.requests["GET"] == gets + 1, "a list, no file"
    shutil.rmtree(first.parent)
    assert whole(here(URL.format("set")))
    store.lose("set/a")
    (place_of(URL.format("set")) / "a").store.create(CONTENT + b"other")
    other = here(URL.format("set"))
    assert other != first, "another content has a copy of its own"
    assert (other / "a").read_bytes() == CONTENT + b"other"
    assert (first / "a").read_bytes() == CONTENT + b"set/a"


def test_what_a_killed_process_left_and_folders_of_older_versions_are_counted_or_go(store, tmp_path, monkeypatch):
    folders = cache.folder() / "folders"
    (folders / ".going.1").mkdir(parents=True)
    (folders / ".going.1" / "a").write_bytes(CONTENT)
    (folders / "old" / "set").mkdir(parents=True)  # without a note of its size
    (folders / "old" / "set" / "a").write_bytes(CONTENT)
    assert [entry[1:] for entry in cache._folders()] == [(len(CONTENT), folders / "old")]
    assert not (folders / ".going.1").exists()
    bound(monkeypatch, 1)
    cache.make_room(1)
    assert not (folders / "old").exists()


def test_a_disk_without_hard_links_gets_copies(store, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    write("set")
    assert whole(here(URL.format("set")))
    assert isinstance(place_of(URL.format("set")), StorePath)


@pytest.mark.skipif(os.name == "nt", reason="there open files alone hold a folder")
def test_what_was_made_here_is_bounded_as_copies_are(tmp_path, monkeypatch):
    monkeypatch.setenv("MOBILECLIP2_LITE_CACHE", str(tmp_path / "cache"))
    kinds = ("indexes", "trainings", "towers")
    old = {kind: cache.folder() / kind / f"of-{kind}-by-an-earlier-process" for kind in kinds}
    for age, folder in enumerate(old.values()):
        (folder / "deep").mkdir(parents=True)
        (folder / "deep" / "a").write_bytes(CONTENT)
        os.utime(folder, (age, age))
    bound(monkeypatch, 3.5)
    mine = [cache.made_folder("trainings", "mine")]
    assert all(folder.is_dir() for folder in old.values()), "there is room"
    mine[0].mkdir()
    (mine[0] / "log").write_bytes(CONTENT)
    os.utime(mine[0], (0, 0))  # longer unused than any other, but this process lives
    mine.append(cache.made_folder("indexes", "other"))
    assert [old[kind].is_dir() for kind in kinds] == [False, True, True], "the longest unused goes, of any kind"
    kept = cache.made_folder("trainings", old["trainings"].name)
    assert kept == old["trainings"]
    bound(monkeypatch, 0)
    cache.made_folder("towers", "another")
    assert (mine[0] / "log").is_file()
    assert (kept / "deep" / "a").is_file(), "asked for by a living process"
    assert not old["towers"].exists()
