"""The skeleton of stages: found, locked, resumed, spread; errors that come through."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import pytest
from doubles.fake_teachers import files
from doubles.shard_writer import NAMES, Writer

from mobileclip2_lite.work.crew import Spread
from mobileclip2_lite.work.failed import ShardsFailed
from mobileclip2_lite.work.folder import FolderLocked, StageMismatch, Work
from mobileclip2_lite.work.shardwise import make_shards

# --- the skeleton ----------------------------------------------------------------------------------------------------


def made(work: Work, journal: Path, *, fails: str = "", dies: str = "", workers: int = 1) -> dict:
    journal.mkdir(exist_ok=True)
    make = functools.partial(Writer, journal, fails, dies)
    return make_shards(work, NAMES, make, summarise, Spread(workers=workers))


def summarise(records: list[dict]) -> dict:
    return {"shards": [record["name"] for record in records]}


def work_of(folder: Path, settings: int = 0) -> Work:
    return Work(folder, "stage", 1, {"setting": settings})


def test_several_processes_make_the_same_folder_in_the_shards_order(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    alone = made(work_of(tmp_path / "one"), tmp_path / "journal-1")
    spread = made(work_of(tmp_path / "two"), tmp_path / "journal-2", workers=2)
    assert spread == alone
    assert spread["shards"] == list(NAMES)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    journal = [(tmp_path / "journal-2" / name).read_text().split() for name in NAMES]
    assert str(os.getpid()) not in {pid for pid, _ in journal}
    assert {int(threads) for _, threads in journal} == {max(1, os.cpu_count() // 2)}, "processes share the cores"


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_names_its_shard_and_a_later_run_makes_only_what_is_missing(tmp_path, workers):
    with pytest.raises(ValueError if workers == 1 else ShardsFailed, match=r"shard-000002\.tar.*no good"):
        made(work_of(tmp_path / "out"), tmp_path / "first", fails=NAMES[2], workers=workers)
    (tmp_path / "out" / "failed.jsonl").unlink(missing_ok=True)
    finished = {path.name for path in (tmp_path / "first").iterdir()}
    assert set(NAMES[:2]) <= finished
    manifest = made(work_of(tmp_path / "out"), tmp_path / "second", workers=workers)
    assert {path.name for path in (tmp_path / "second").iterdir()} == set(NAMES) - finished
    assert manifest["shards"] == list(NAMES)


def test_a_worker_that_is_killed_is_named_with_what_it_had(tmp_path):
    with pytest.raises(ShardsFailed, match=r"shard-000003\.tar with WorkerDied: .* exit status 9"):
        made(work_of(tmp_path / "out"), tmp_path / "first", dies=NAMES[3], workers=2)
    (tmp_path / "out" / "failed.jsonl").unlink()
    assert made(work_of(tmp_path / "out"), tmp_path / "second")["shards"] == list(NAMES)


def test_finished_work_is_found_without_a_worker_and_other_work_refused(tmp_path):
    manifest = made(work_of(tmp_path / "out"), tmp_path / "first")
    assert made(work_of(tmp_path / "out"), tmp_path / "second", fails=NAMES[0]) == manifest
    with pytest.raises(StageMismatch, match="setting: 0 there, 1 asked for"):
        made(work_of(tmp_path / "out", 1), tmp_path / "third")


def test_work_is_looked_for_again_under_the_lock(tmp_path, monkeypatch):
    """Another process finishes the folder between our looking and our locking."""
    work, looks = work_of(tmp_path / "out"), []
    done = Work.done

    def late(self):
        looks.append(1)
        if len(looks) == 1:
            found = done(self)
            other = work_of(tmp_path / "out")
            with monkeypatch.context() as patch:
                patch.setattr(Work, "done", done)
                made(other, tmp_path / "theirs")
            return found
        return done(self)

    monkeypatch.setattr(Work, "done", late)
    assert made(work, tmp_path / "ours")["shards"] == list(NAMES)
    assert len(list((tmp_path / "theirs").iterdir())) == 4
    assert not list((tmp_path / "ours").iterdir())


def test_what_fails_before_the_first_shard_leaves_the_folder_for_other_settings(tmp_path):
    with pytest.raises(ValueError, match="no good"):
        made(work_of(tmp_path / "out"), tmp_path / "first", fails=NAMES[0])
    assert made(work_of(tmp_path / "out", 1), tmp_path / "second")["settings"] == {"setting": 1}


def test_a_locked_folder_is_left_alone(tmp_path):
    with work_of(tmp_path / "out").lock(), pytest.raises(FolderLocked):
        made(work_of(tmp_path / "out"), tmp_path / "first")
