"""Finding finished work, one process a folder, and chance that depends on nothing but its seed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mobileclip2_lite.work.files import read_object, write_atomic
from mobileclip2_lite.work.folder import FolderLocked, StageMismatch, Work, read_manifest
from mobileclip2_lite.work.randomness import pick, rng, stable_uid

HOLD = """
import sys, time
from mobileclip2_lite.work.folder import Work
with Work(sys.argv[1], "hold", 1, {}).lock():
    print("held", flush=True)
    time.sleep(60)
"""


def test_chance_depends_on_its_parts_alone():
    assert rng(0, "views", "a").random() == rng(0, "views", "a").random()
    assert rng(0, "views", "a").random() != rng(1, "views", "a").random()
    assert rng("0").random() != rng(0).random(), "a string is not a number"
    assert rng("a", "bc").random() != rng("ab", "c").random(), "parts do not run together"
    assert len(stable_uid("https://example.org/é.jpg")) == 16
    odd = b"caf\xe9".decode("utf-8", "surrogateescape")  # a uid in a table that is not UTF-8
    assert rng(0, "views", odd).random() != rng(0, "views", "caf").random()
    assert pick(1 << 62, "image", odd) == pick(1 << 62, "image", odd)


def test_finished_work_is_found_and_other_work_refused(tmp_path):
    work = Work(tmp_path / "out", "stage", 1, {"views": 2}, {"data": "x"})
    assert work.done() is None
    work.begin()
    assert work.done() is None, "begun is not done"
    with pytest.raises(StageMismatch, match="views"):
        Work(tmp_path / "out", "stage", 1, {"views": 3}, {"data": "x"}).done()
    manifest = work.commit(samples=7)
    work.begin()  # as if killed between manifest and clean-up
    assert work.done() == manifest == read_manifest(tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["manifest.json"]
    with pytest.raises(StageMismatch, match="version"):
        Work(tmp_path / "out", "stage", 2, {"views": 2}, {"data": "x"}).done()


def test_manifest_that_is_missing_or_newer(tmp_path):
    with pytest.raises(FileNotFoundError, match="has not finished"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text('{"schema": 99}', encoding="utf-8")
    with pytest.raises(ValueError, match="schema 99"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b'{"a": ', "is not valid JSON"),
        (b"", "is not valid JSON"),
        (b"\xff\xfe", "is not valid JSON"),
        (b"[1]", "holds a list"),
        (b"null", "holds a NoneType"),
    ],
)
def test_a_damaged_json_file_is_named(tmp_path, content, match):
    path = tmp_path / "card.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"card.json {match}.*mend it, or take it away"):
        read_object(path)
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_object(path) == {"a": 1}


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, b"old")
    with pytest.raises(TypeError):
        write_atomic(path, "not bytes")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"], "nothing is left beside"


def test_second_process_is_told_who_holds_the_folder(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline() == "held\n"
        with pytest.raises(FolderLocked, match=f"process {child.pid}"), Work(tmp_path, "other", 1, {}).lock():
            pass
    finally:
        child.kill()
        child.wait()
    with Work(tmp_path, "other", 1, {}).lock():  # the dead process's lock is gone with it
        assert (tmp_path / ".lock").exists()
    assert not (tmp_path / ".lock").exists()


def test_one_process_does_not_lock_itself_twice(tmp_path):
    work = Work(tmp_path, "stage", 1, {})
    with work.lock(), pytest.raises(FolderLocked, match="this very process"), work.lock():
        pass
    with work.lock():
        pass
