"""One folder, many processes, a store that fails and a coordinator that does not exist: exactly one set of shards."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from doubles.faulty_store import FAULTS, Faults
from doubles.shard_maker import make

from mobileclip2_lite.work import shardwise
from mobileclip2_lite.work.backends import SharedFolder, StoreError
from mobileclip2_lite.work.claims import Claims
from mobileclip2_lite.work.crew import LOST, Spread
from mobileclip2_lite.work.failed import ShardsFailed, read_failed
from mobileclip2_lite.work.files import sha256_bytes, write_note
from mobileclip2_lite.work.folder import StageMismatch
from mobileclip2_lite.work.json_lines import to_lines
from mobileclip2_lite.work.place import place_of
from mobileclip2_lite.work.store import Clash

TESTS = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(os.name == "nt", reason="no SIGKILL there")


@pytest.fixture
def undisturbed(tmp_path) -> dict[str, str]:
    """The shards, records and manifest of a run of eight that nothing happened to, by hash."""
    make(tmp_path / "undisturbed")
    return hashes({path.name: path.read_bytes() for path in (tmp_path / "undisturbed").iterdir()})


def hashes(files: dict[str, bytes]) -> dict[str, str]:
    """What counts of a folder: notes of a run under way are none of it."""
    notes = ("claims/", "progress.json")
    return {name: sha256_bytes(data) for name, data in files.items() if not name.startswith(notes)}


def start(folder: object, journal: Path | None = None, **settings: object) -> subprocess.Popen:
    """The stage in a process of its own."""
    journal_ = ["--journal", str(journal)] if journal else []
    given = [f"--{name}={json.dumps(value) if isinstance(value, dict) else value}" for name, value in settings.items()]
    return subprocess.Popen(
        [sys.executable, "-m", "doubles.shard_maker", str(folder), *journal_, *given],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen) -> dict:
    """What a process says it has done."""
    said, wrong = process.communicate(timeout=120)
    assert said.strip(), wrong[-3000:]
    return json.loads(said.splitlines()[-1])


def made_by(journal: Path) -> dict[str, list[str]]:
    """Shard -> processes that began to make it."""
    found: dict[str, list[str]] = {}
    for path in journal.iterdir():
        name, pid, _ = path.name.rsplit(".", 2)
        found.setdefault(name, []).append(pid)
    return found


# --- one run on a store ----------------------------------------------------------------------------------------------


def test_a_bucket_gets_the_very_files_of_a_folder_and_nothing_twice(store, undisturbed):
    manifest = make("s3://bucket/set")
    assert hashes(store.objects("set")) == undisturbed
    puts = store.faults.requests["PUT"]
    assert make("s3://bucket/set") == manifest
    assert store.faults.requests["PUT"] == puts, "finished work is found"
    assert not store.forbidden
    with pytest.raises(StageMismatch, match="count: 8 there, 9 asked for"):
        make("s3://bucket/set", count=9)
    assert hashes(store.objects("set")) == undisturbed


@pytest.mark.parametrize("seed", range(3))
def test_a_store_with_every_fault_ends_in_the_same_bytes(store, undisturbed, seed):
    store.faults = Faults(FAULTS, rate=0.5, budget=60, seed=seed)
    make("s3://bucket/set")
    assert store.faults.done.total() > 15, store.faults.done
    assert hashes(store.objects("set")) == undisturbed
    assert not store.forbidden


def test_listings_that_come_late_decide_nothing(store, undisturbed):
    store.faults.deny = lambda request: "blind" if "list-type" in request.path else None
    make("s3://bucket/set")
    assert hashes(store.objects("set")) == undisturbed
    written = store.faults.requests["PUT"]
    make("s3://bucket/set")
    assert store.faults.requests["PUT"] == written, "what is finished is found without a listing"


def test_a_manifest_is_written_only_when_every_shard_is_still_there(store, undisturbed, monkeypatch):
    """A store that forgets a shard after it was looked at: what is missing is made again before the manifest."""
    lost = []

    def lose(request):
        if not lost and request.command == "PUT" and request.path.endswith("shard-000007.tar"):
            store.lose("set/shard-000002.tar")
            lost.append(1)

    store.faults.deny = lose
    puts = store.faults.requests["PUT"]
    make("s3://bucket/set")
    assert store.faults.requests["PUT"] == puts + 18 + 2, "the lost one and its record once more"
    assert hashes(store.objects("set")) == undisturbed


def test_another_tar_of_the_same_name_is_an_error_that_names_both(store):
    place_of("s3://bucket/set/shard-000003.tar").write_bytes(b"another")
    with pytest.raises(Clash, match=r"s3://bucket/set/shard-000003.tar is there already and differs"):
        make("s3://bucket/set")
    assert store.objects("set")["shard-000003.tar"] == b"another", "nothing was touched"
    assert "manifest.json" not in store.objects("set")


def test_a_driver_that_is_killed_goes_on_where_it_was(store, undisturbed, tmp_path):
    (tmp_path / "journal").mkdir()
    for seconds in (0.8, 1.2, 1.6):
        process = start("s3://bucket/set", tmp_path / "journal", seconds=0.2)
        time.sleep(seconds)
        process.kill()
        process.communicate()
    assert ended(start("s3://bucket/set", tmp_path / "journal")) == {"shards": 8}
    assert hashes(store.objects("set")) == undisturbed
    assert not list((tmp_path / "cache" / "scratch").iterdir()), "what the dead left on this disk is gone"


def test_keys_that_expire_in_the_middle_are_read_anew(store, undisturbed, monkeypatch, tmp_path):
    keys = tmp_path / "keys"
    form = "[default]\naws_access_key_id = AKIAX\naws_secret_access_key = secret\naws_session_token = {}\n"
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(keys))
    keys.write_text(form.format(0), "utf-8")
    served = [0]

    def deny(request):  # a token is good for 15 requests; whoever renews it is a little late
        served[0] += 1
        if served[0] % 15 == 0:
            threading.Timer(0.2, lambda n=served[0] // 15: keys.write_text(form.format(n), "utf-8")).start()
        return None if request.headers["x-amz-security-token"] == str(served[0] // 15) else "expired"

    store.faults.deny = deny
    make("s3://bucket/set")
    assert store.faults.done["expired"] >= 2
    assert hashes(store.objects("set")) == undisturbed


SMALL_DISK = """
import subprocess, sys, errno
from doubles.shard_maker import make
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", sys.argv[1]], check=True)
import pathlib
pathlib.Path(sys.argv[1], "other").write_bytes(b"x" * 48_000)  # a shard takes 20 kB
try:
    make(sys.argv[2])
except OSError as error:
    print(errno.errorcode[error.errno])
pathlib.Path(sys.argv[1], "other").unlink()
print(len(make(sys.argv[2])["shards"]))
"""


def test_a_full_local_disk_stops_the_run_and_harms_nothing(store, undisturbed, tmp_path, monkeypatch):
    disk = tmp_path / "cache"
    disk.mkdir()
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("may not mount here")
    command = ["unshare", "-m", sys.executable, "-c", SMALL_DISK, str(disk), "s3://bucket/set"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["ENOSPC", "8"], done.stderr[-2000:]
    assert hashes(store.objects("set")) == undisturbed


# --- shards that fail ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["folder", "bucket"])
def test_a_shard_that_kills_its_workers_is_listed_left_and_tried_again_when_asked(store, undisturbed, tmp_path, where):
    folder = tmp_path / "set" if where == "folder" else "s3://bucket/set"
    journal, two = tmp_path / "journal", Spread(workers=2)
    journal.mkdir()
    ill = {"shard-000001.tar": "kill", "shard-000006.tar": "raise"}
    with pytest.raises(
        ShardsFailed, match=r"2 shards failed, shard-000001\.tar with WorkerDied.*signal 9.*--retry-failed"
    ):
        make(folder, spread=two, ill=ill, journal=journal)
    failed = read_failed(place_of(folder))
    assert [line["tries"] for line in failed.values()] == [3, 3]
    assert "this shard is no good" in failed["shard-000006.tar"]["reason"]
    assert {name: len(pids) for name, pids in made_by(journal).items() if name in ill} == dict.fromkeys(ill, 3)
    assert len(made_by(journal)) == 8, "the others were made"
    assert not (place_of(folder) / "manifest.json").is_file()
    with pytest.raises(ShardsFailed):
        make(folder, spread=two, journal=journal)
    assert {len(pids) for name, pids in made_by(journal).items() if name in ill} == {3}, "left alone until asked"
    make(folder, spread=Spread(workers=2, retry_failed=True))
    assert not read_failed(place_of(folder))
    files = store.objects("set") if where == "bucket" else {p.name: p.read_bytes() for p in folder.iterdir()}
    assert {name: value for name, value in hashes(files).items() if name != "failed.jsonl"} == undisturbed


@pytest.mark.parametrize(
    "content", [b'{"name": "shard-000001.tar", "reas', b"3\n", b'{"tries": 3}\n', b'{"name": "shard-000001.tar"}\n']
)
@pytest.mark.parametrize("where", ["folder", "bucket"])
def test_a_list_of_failed_shards_that_is_none_is_named_and_may_be_removed(store, tmp_path, undisturbed, where, content):
    folder = place_of(tmp_path / "set" if where == "folder" else "s3://bucket/set")
    write_note(folder / "failed.jsonl", content)
    for retry in (False, True):
        with pytest.raises(ValueError, match=r"failed\.jsonl is no list of shards that failed .*: remove the file"):
            make(folder, spread=Spread(retry_failed=retry))
    if where == "folder":
        (folder / "failed.jsonl").unlink()
    else:
        store.lose("set/failed.jsonl")
    make(folder)
    files = store.objects("set") if where == "bucket" else {p.name: p.read_bytes() for p in folder.iterdir()}
    assert hashes(files) == undisturbed


def test_more_shards_than_stop_a_run_are_tried_again_while_their_cause_is_there(undisturbed, tmp_path):
    """Not one after the other at first, and therefore listed; then they come in a row."""
    folder, ill = tmp_path / "set", {f"shard-{number:06d}.tar": "kill" for number in range(5)}
    lines = [{"name": name, "reason": "died", "tries": 3} for name in ill]
    write_note(folder / "failed.jsonl", to_lines(lines))
    with pytest.raises(ShardsFailed, match="5 shards failed"):
        make(folder, spread=Spread(workers=2))
    again = Spread(workers=2, retry_failed=True)
    with pytest.raises(ShardsFailed, match="5 shards failed"):
        make(folder, spread=again, ill=ill)
    assert {name: "signal 9" in line["reason"] for name, line in read_failed(folder).items()} == dict.fromkeys(
        ill, True
    )
    make(folder, spread=again)
    assert hashes({path.name: path.read_bytes() for path in folder.iterdir()}) == undisturbed


# --- many runs -------------------------------------------------------------------------------------------------------


def test_two_runs_race_on_one_bucket_without_knowing_of_each_other(store, undisturbed):
    racing = [start("s3://bucket/set", seconds=0.05) for _ in range(2)]
    assert [ended(process) for process in racing] == [{"shards": 8}] * 2
    assert hashes(store.objects("set")) == undisturbed
    assert not store.forbidden


@pytest.mark.parametrize("where", ["folder", "bucket"])
def test_processes_that_share_a_folder_make_every_shard_once(store, undisturbed, tmp_path, where):
    folder = tmp_path / "set" if where == "folder" else "s3://bucket/set"
    journal = tmp_path / "journal"
    journal.mkdir()
    sharing = [start(folder, journal, seconds=0.3, spread={"shared": True, "lease": 20}) for _ in range(3)]
    assert [ended(process) for process in sharing] == [{"shards": 8}] * 3
    files = store.objects("set") if where == "bucket" else {p.name: p.read_bytes() for p in folder.glob("*.*")}
    assert hashes(files) == undisturbed
    made = made_by(journal)
    assert {len(pids) for pids in made.values()} == {1}, made
    assert len({pid for pids in made.values() for pid in pids}) > 1, "the work was shared"


def test_the_shard_of_a_dead_process_is_taken_over(store, undisturbed, tmp_path):
    """Of one of this machine at once; of another machine, which cannot be asked, after the lease."""
    journal = tmp_path / "journal"
    journal.mkdir()
    first = start("s3://bucket/set", journal, seconds=30, spread={"shared": True, "lease": 600})
    while not list(journal.iterdir()):
        time.sleep(0.05)
        assert first.poll() is None
    first.kill()
    first.communicate()
    far = Claims(place_of("s3://bucket/set"), 600)
    far.host = "another-machine"
    others = "shard-000004.json" if made_by(journal).keys() != {"shard-000004.tar"} else "shard-000005.json"
    (place_of("s3://bucket/set") / "claims" / f"{others}.1").write_bytes(far._sign(0))
    began = time.monotonic()
    assert ended(start("s3://bucket/set", journal, spread={"shared": True, "lease": 3})) == {"shards": 8}
    assert time.monotonic() - began > 3, "the lease was waited for"
    assert hashes(store.objects("set")) == undisturbed


def test_a_claim_is_judged_by_its_signs_of_life_and_not_by_its_clock(store):
    folder = place_of("s3://bucket/set")
    mine, theirs = Claims(folder, 1.0), Claims(folder, 1.0)
    theirs.host = "another-machine"
    ahead = theirs._sign(0).replace(b'"time": "20', b'"time": "21')  # a clock a hundred years ahead
    (folder / "claims" / "a.1").write_bytes(ahead)
    began = time.monotonic()
    while True:
        with mine.taken("a") as ours:
            if ours:
                break
        time.sleep(0.1)
    assert 1.0 <= time.monotonic() - began < 20
    behind = theirs._sign(1).replace(b'"time": "20', b'"time": "10')
    (folder / "claims" / "b.1").write_bytes(behind)
    for beat in range(2, 8):  # alive, though its clock says that this was a thousand years ago
        with mine.taken("b") as ours:
            assert not ours
        time.sleep(0.4)
        place_of("s3://bucket/set/claims/b.1").store.replace(theirs._sign(beat))


def test_of_many_that_see_a_stale_claim_one_takes_it_over(store):
    folder = place_of("s3://bucket/set")
    gone = Claims(folder, 0.2)
    gone.host = "another-machine"
    (folder / "claims" / "a.1").write_bytes(gone._sign(0))
    watchers = [Claims(folder, 0.2) for _ in range(6)]
    for watcher in watchers:
        with watcher.taken("a") as ours:
            assert not ours
    time.sleep(0.3)
    taken = [watcher._take("a") for watcher in watchers]
    assert sorted(taken) == [0, 0, 0, 0, 0, 2]


def test_a_shard_that_ends_every_process_is_reached_last_and_given_up_in_the_end(store, undisturbed, tmp_path):
    """Processes that share a folder die at one shard one by one: all others are made before, and a limit ends it."""
    journal = tmp_path / "journal"
    journal.mkdir()
    shared = {"shared": True, "lease": 5}
    ill = {"shard-000003.tar": "kill"}
    running = [start("s3://bucket/set", journal, ill=ill, spread=shared) for _ in range(3)]
    assert [process.wait(120) for process in running] == [-signal.SIGKILL] * 3
    [process.communicate() for process in running]
    assert len(made_by(journal)) == 8, "the others were made"
    for number in range(4, LOST + 1):  # as if so many more had died
        claim = Claims(place_of("s3://bucket/set"), 5)
        claim.host = "another-machine"
        (place_of("s3://bucket/set") / "claims" / f"shard-000003.json.{number}").write_bytes(claim._sign(0))
    one = Spread(shared=True, lease=0.5)
    with pytest.raises(ShardsFailed, match=rf"shard-000003\.tar with Abandoned: {LOST} processes have ended at it"):
        make("s3://bucket/set", spread=one, journal=journal)
    assert len(made_by(journal)["shard-000003.tar"]) == 3, "nobody has tried it again"
    make("s3://bucket/set", spread=dataclasses.replace(one, retry_failed=True))
    assert {n: h for n, h in hashes(store.objects("set")).items() if n != "failed.jsonl"} == undisturbed


def test_an_error_of_one_shard_does_not_end_a_process_that_shares_a_folder(store, undisturbed):
    one = Spread(shared=True, lease=5)
    with pytest.raises(ShardsFailed, match=r"1 shard failed, shard-000002\.tar with ValueError: .*no good"):
        make("s3://bucket/set", spread=one, ill={"shard-000002.tar": "raise"})
    assert len([name for name in store.objects("set") if name.endswith(".tar")]) == 7
    make("s3://bucket/set", spread=dataclasses.replace(one, retry_failed=True))
    assert {n: h for n, h in hashes(store.objects("set")).items() if n != "failed.jsonl"} == undisturbed


def test_a_shard_lost_at_the_end_that_cannot_be_made_again_is_no_finished_set(store, monkeypatch):
    """The last look finds a shard gone, and its worker ends three times when it is made again: no manifest."""

    def lose(request):
        if request.command == "PUT" and request.path.endswith("shard-000001.tar"):
            lose.puts += 1
        if not lose.lost and request.command == "PUT" and request.path.endswith("shard-000007.json"):
            store.lose("set/shard-000001.tar")
            lose.lost = True
        return "refuse" if lose.lost and request.path.endswith("shard-000001.tar") and lose.puts > 1 else None

    lose.puts, lose.lost = 0, False
    store.faults.deny = lose
    monkeypatch.setenv("MOBILECLIP2_LITE_PATIENCE", "1")
    monkeypatch.setattr(shardwise, "_from_own_start", list)  # the seventh shard is the last
    with pytest.raises(ShardsFailed, match=r"1 shard failed, shard-000001\.tar with Refused"):
        make("s3://bucket/set", spread=Spread(shared=True, lease=5))
    assert "manifest.json" not in store.objects("set")


# --- all of it -------------------------------------------------------------------------------------------------------


def soak(store, tmp_path: Path, faults: int, seed: int) -> dict[str, int]:
    """Three processes share a bucket while requests are broken and processes killed, until `faults` have happened."""
    count, chance = 24, random.Random(seed)
    make(tmp_path / "undisturbed", count=count)
    store.faults = Faults(FAULTS, rate=0.2, budget=10**6, seed=seed)
    settings = {"count": count, "seconds": 0.15, "spread": {"shared": True, "lease": 3, "workers": 1}}
    running, kills, rounds = [], 0, 0
    deadline = time.monotonic() + 4 * faults + 120
    while store.faults.done.total() + kills < faults:
        assert time.monotonic() < deadline, (store.faults.done, kills)
        running = [process for process in running if process.poll() is None]
        while len(running) < 3:
            running.append(start(f"s3://bucket/soak-{rounds}", **settings))
        time.sleep(chance.uniform(0.2, 1.0))
        if place_of(f"s3://bucket/soak-{rounds}/manifest.json").is_file():  # done before enough has happened
            check(store, tmp_path, rounds, running)
            running, rounds = [], rounds + 1
        elif chance.random() < 0.5 and running:
            victim = chance.choice(running)
            victim.send_signal(signal.SIGKILL)
            victim.communicate()
            kills += 1
    happened = {**store.faults.done, "killed": kills}
    store.faults.kinds = ()
    running.append(start(f"s3://bucket/soak-{rounds}", **settings))
    check(store, tmp_path, rounds, running)
    return happened


def check(store, tmp_path: Path, number: int, running: list[subprocess.Popen]) -> None:
    """The set is the undisturbed one: nothing lost, nothing doubled."""
    for process in running:
        if process.returncode is None:
            assert ended(process) == {"shards": 24}
    whole = {path.name: path.read_bytes() for path in (tmp_path / "undisturbed").iterdir()}
    assert hashes(store.objects(f"soak-{number}")) == hashes(whole)
    assert not store.forbidden


def test_a_short_soak_ends_in_one_whole_set(store, tmp_path):
    happened = soak(store, tmp_path, faults=60, seed=1)
    assert sum(happened.values()) >= 60
    assert happened["killed"] >= 1


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(2, 7))
def test_a_long_soak_ends_in_one_whole_set(store, tmp_path, seed):
    happened = soak(store, tmp_path, faults=300, seed=seed)
    assert sum(happened.values()) >= 300
    assert happened["killed"] >= 10


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
def test_a_shared_folder_without_hard_links_says_what_to_take(tmp_path, monkeypatch, number):
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(StoreError, match=r"has no hard links.*share a folder of NFS"):
        SharedFolder("file://").put(str(tmp_path / "shard.tar"), b"content")
    assert not list(tmp_path.iterdir())
