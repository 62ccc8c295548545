"""Stores: created once, compared, asked again, no credential in any word."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import pickle
import threading
import time
from pathlib import Path

import pytest
from doubles.faulty_store import FAULTS, Faults, served
from doubles.workers import look

from mobileclip2_lite.pairs.collect import make_pairs
from mobileclip2_lite.recipes import Pairs
from mobileclip2_lite.work import backends, cache, credentials
from mobileclip2_lite.work import store as store_module
from mobileclip2_lite.work.backends import Refused, StoreError
from mobileclip2_lite.work.place import StorePath, place_of
from mobileclip2_lite.work.store import Clash, Store, url_of

CONTENT = bytes(range(256)) * 200


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("s3://bucket/a/b/", "s3://bucket/a/b"),
        (Path("s3://bucket/a"), "s3://bucket/a"),
        ("gs://bucket", "gs://bucket"),
        ("az://container/a", "az://container/a"),
        ("hf://datasets/owner/name", "hf://datasets/owner/name"),
        ("https://host/a", "https://host/a"),
        ("file:///a/b", "file:///a/b"),
        ("/a/b", None),
        ("a:b/c", None),
        ("hf:owner/name", None),
        ("C:/a", None),
        ("runs/s3:/a", None),
    ],
)
def test_which_places_are_urls(given, url):
    assert url_of(given) == url


@pytest.mark.parametrize("url", ["s3://AKIA:secret@bucket/a", "https://host/a?X-Amz-Signature=abc"])
def test_a_url_with_a_credential_is_refused_and_not_repeated(url):
    with pytest.raises(ValueError, match="holds no key") as caught:
        place_of(url)
    assert "secret" not in str(caught.value)
    assert "abc" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "meant"),
    [("s4://bucket/a", "s3://bucket/a"), (Path("S3://bucket/a"), "s3://bucket/a"), ("gcs://bucket", "gs://bucket")],
)
def test_a_scheme_that_is_not_known_is_refused(given, meant, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=rf"of no store that is known: did you mean {meant}\? Known are s3://, gs://"):
        place_of(given)
    with pytest.raises(ValueError, match="of no store that is known"):
        make_pairs(Pairs(source="s4://bucket/{000..003}.tar"), tmp_path / "out")
    (tmp_path / "odd:").mkdir()
    assert place_of("odd:/name") == Path("odd:/name"), "a folder of this disk"


def test_a_wrong_clock_is_named(store, monkeypatch):
    monkeypatch.setenv("MOBILECLIP2_LITE_PATIENCE", "1")
    store.faults = Faults(["skewed"], rate=1.0, budget=10**6)
    with pytest.raises(Refused, match=r"RequestTimeTooSkewed \(this machine's clock is wrong: set it\)"):
        place_of("s3://bucket/a").read_bytes()


def test_a_bucket_that_is_not_there_is_named(store):
    with pytest.raises(StoreError, match=r"s3://buckett/a/b \(there is no such bucket: look for a typing error"):
        place_of("s3://buckett/a/b").write_bytes(CONTENT)


def test_missing_keys_are_named(store, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("MOBILECLIP2_LITE_PATIENCE", "1")
    monkeypatch.setitem(backends.RETRIES, "max_retries", 0)
    with pytest.raises(StoreError, match=r"no keys in the environment .* set AWS_ACCESS_KEY_ID"):
        place_of("s3://bucket/a").read_bytes()


def test_what_is_refused_names_the_right_that_is_often_missing(store, monkeypatch, tmp_path):
    """Of what is not there S3 says 403 to keys that may not list; a web server is shown no keys, nor asked again."""
    monkeypatch.setenv("MOBILECLIP2_LITE_PATIENCE", "1")
    store.faults = Faults(["refuse"], rate=1.0, budget=10**6)
    place = place_of("s3://bucket/a")
    for ask in (place.is_file, place.read_bytes):
        with pytest.raises(Refused, match=r"s3://bucket/a: .*403.*these keys may not do that.*s3:ListBucket"):
            ask()
    monkeypatch.setenv("MOBILECLIP2_LITE_PATIENCE", "600")
    with served(tmp_path, missing=403) as address, pytest.raises(Refused, match=r"403.*after 1 tries") as caught:
        place_of(f"{address}/a").is_file()
    assert "keys" not in str(caught.value)


def test_a_store_that_is_silent_for_long_is_spoken_of(store, monkeypatch):
    monkeypatch.setattr(store_module, "QUIET", 0.2)
    monkeypatch.setitem(backends.RETRIES, "max_retries", 0)
    store.faults = Faults(["busy"], rate=1.0, budget=6)
    with pytest.warns(UserWarning, match=r"503.*asked again for up to 300 s \(MOBILECLIP2_LITE_PATIENCE\)"):
        place_of("s3://bucket/a").write_bytes(CONTENT)


def places(tmp_path: Path) -> list[StorePath]:
    return [place_of(f"memory://{tmp_path.name}/a"), place_of(tmp_path / "a", shared=True), place_of("s3://bucket/a")]


def test_an_object_is_created_once_and_compared(store, tmp_path):
    for folder in places(tmp_path):
        one = folder / "one.tar"
        assert not one.is_file()
        assert not folder.is_dir()
        assert one.store.create(CONTENT) is True
        assert one.store.create(CONTENT) is False, "the same content again is no error"
        with pytest.raises(Clash, match="differs"):
            one.store.create(CONTENT[::-1])
        with pytest.raises(Clash, match="another size"):
            one.store.create(b"short")
        assert one.read_bytes() == CONTENT
        assert Path(one).read_bytes() == CONTENT, "opened, it is a copy on this disk"
        assert one.store.read(3, 7) == CONTENT[3:7]
        assert one.store.read(len(CONTENT) - 2) == CONTENT[-2:]
        assert one.stat().st_size == len(CONTENT)
        (folder / "empty").write_bytes(b"")
        assert (folder / "empty").read_bytes() == b""
        assert sorted(path.name for path in folder.glob("*")) == ["empty", "one.tar"]
        assert (folder / "one.tar").store.sha256() == hashlib.sha256(CONTENT).hexdigest()
        with pytest.raises(FileNotFoundError, match="nothing"):
            (folder / "nothing").read_bytes()
        with pytest.raises(FileNotFoundError, match="nothing"):
            Path(folder / "nothing").read_bytes()
        assert pickle.loads(pickle.dumps(one)) == one
    assert not store.forbidden


def test_a_file_is_created_from_this_disk(store, tmp_path):
    made = tmp_path / "made.tar"
    for content in (CONTENT, b""):
        made.write_bytes(content)
        target = place_of("s3://bucket/made") / f"{len(content)}.tar"
        assert target.store.create(made) is True
        assert target.read_bytes() == content


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_of_a_store_is_survived(store, fault):
    store.faults = Faults([fault], rate=0.5, budget=8, seed=3)
    folder = place_of("s3://bucket/faulty")
    for number in range(8):
        (folder / f"{number}").store.create(CONTENT + bytes([number]))
        assert (folder / f"{number}").read_bytes() == CONTENT + bytes([number])
    assert store.faults.done[fault] >= 3, store.faults.done
    assert store.objects("faulty") == {f"{number}": CONTENT + bytes([number]) for number in range(8)}


def test_a_write_that_the_store_confirmed_and_forgot_is_written_again(store):
    store.faults = Faults(["forget"], rate=1.0, budget=2)
    place_of("s3://bucket/forgotten").store.create(CONTENT)
    assert store.faults.done["forget"] == 2
    assert store.objects("forgotten") == {}, "the object itself, not a folder"
    assert place_of("s3://bucket/forgotten").read_bytes() == CONTENT


def test_a_store_that_never_answers_is_given_up_after_patience(store, monkeypatch):
    monkeypatch.setenv("MOBILECLIP2_LITE_PATIENCE", "0.5")
    monkeypatch.setitem(backends.RETRIES, "max_retries", 1)
    store.faults = Faults(["busy"], rate=1.0, budget=10**6)
    with pytest.raises(StoreError, match=r"s3://bucket/a: .*503.*SlowDown.*given up after"):
        place_of("s3://bucket/a").read_bytes()


def test_errors_and_pickles_hold_no_credential(store, monkeypatch):
    monkeypatch.setenv("MOBILECLIP2_LITE_PATIENCE", "1")
    store.faults = Faults(["refuse"], rate=1.0, budget=10**6)
    folder = place_of("s3://bucket/secret")
    words = [repr(folder), str(folder), repr(pickle.dumps(folder))]
    for action in (folder.read_bytes, folder.is_file, lambda: folder.write_bytes(CONTENT)):
        with pytest.raises(Refused) as caught:
            action()
        words.append(str(caught.value))
        assert caught.value.__suppress_context__, "obstore's own error repeats the request"
    text = " ".join(words)
    assert store.environment["AWS_SECRET_ACCESS_KEY"] not in text
    assert store.environment["AWS_ACCESS_KEY_ID"] not in text
    assert "AccessDenied" in text


def test_words_of_other_errors_are_cleaned(monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0c2VjcmV0")
    said = credentials.without_secrets(
        "GET https://user:pw@host/a?sig=abc&se=1 failed with c2VjcmV0c2VjcmV0\n\nDebug source: everything"
    )
    assert said == "GET https://host/a failed with $AZURE_STORAGE_ACCOUNT_KEY"


@pytest.mark.parametrize("answer", ["expired", "refuse"])
def test_credentials_that_expire_are_read_anew_from_the_file(store, monkeypatch, tmp_path, answer):
    keys = tmp_path / "credentials"
    form = "[default]\naws_access_key_id = AKIAX\naws_secret_access_key = secret\naws_session_token = {}\n"
    keys.write_text(form.format("first"), "utf-8")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(keys))
    valid = ["first"]
    store.faults.deny = lambda request: None if request.headers["x-amz-security-token"] in valid else answer
    folder = place_of("s3://bucket/expiring")
    (folder / "0").write_bytes(CONTENT)
    valid[:] = ["second"]
    threading.Timer(0.5, lambda: keys.write_text(form.format("second"), "utf-8")).start()
    (folder / "1").write_bytes(CONTENT)
    assert store.faults.done[answer] >= 1
    assert sorted(store.objects("expiring")) == ["0", "1"]


def test_the_cache_is_bounded_and_the_last_used_stays(store, monkeypatch):
    monkeypatch.setenv("MOBILECLIP2_LITE_CACHE_GB", str(2.5 * len(CONTENT) / 1e9))
    monkeypatch.setattr(cache, "FRESH", 0.0)
    folder = place_of("s3://bucket/many")
    for number in range(5):
        (folder / f"{number}").store.create(CONTENT + bytes([number]))
    first = os.fspath(folder / "0")
    for number in range(1, 5):
        time.sleep(0.01)
        os.fspath(folder / f"{number}")
        os.fspath(folder / "4") if number > 3 else None
    left = sorted(path.name for path in (cache.folder() / "copies").glob("*/*"))
    assert left == ["3", "4"]
    assert not Path(first).exists()
    before = store.faults.requests["GET"]
    assert Path(folder / "4").read_bytes() == CONTENT + b"\x04"
    assert store.faults.requests["GET"] == before, "a copy that is there is only looked up"


def test_one_fetch_for_all_who_want_the_same(store):
    (place_of("s3://bucket/one") / "a").store.create(CONTENT)
    store.faults.kinds, store.faults.rate, store.faults.budget = ("slow",), 1.0, 100
    threads = [threading.Thread(target=os.fspath, args=(place_of("s3://bucket/one/a"),)) for _ in range(4)]
    gets = store.faults.requests["GET"]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert store.faults.requests["GET"] == gets + 1


def test_a_full_local_disk_while_fetching_makes_room_once_and_then_says_so(store, monkeypatch):
    folder = place_of("s3://bucket/full")
    for name in "ab":
        (folder / name).store.create(CONTENT + name.encode())
    Path(folder / "a").read_bytes()
    calls = []

    def full(self, target):
        calls.append(target)
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(Store, "download", full)
    with pytest.raises(OSError, match="No space left"):
        os.fspath(folder / "b")
    assert len(calls) == 2
    assert not list((cache.folder() / "copies").glob("*/a")), "copies went before the run does"


@pytest.mark.skipif(os.name == "nt", reason="no fork there")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_is_told_instead_of_waiting_for_ever(store):
    place_of("s3://bucket/x").is_file()
    for method, status in (("fork", 3), ("spawn", 0)):
        process = multiprocessing.get_context(method).Process(target=look, args=("s3://bucket/x",))
        process.start()
        process.join(60)
        assert process.exitcode == status


def test_what_can_only_be_read_says_so(tmp_path):
    pytest.importorskip("obstore", reason="the extra 'scale' is not installed")
    from mobileclip2_lite.work.place import made_here

    with pytest.raises(ValueError, match="can only be read"), made_here(place_of("https://host/a.tar")):
        pass


def test_a_missing_extra_names_its_remedy(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "obstore", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'mobileclip2_lite\[scale\]'"):
        place_of("gs://other-bucket/a").is_file()


def test_a_folder_is_read_from_a_web_server(tmp_path, monkeypatch):
    pytest.importorskip("obstore", reason="the extra 'scale' is not installed")
    monkeypatch.setenv("MOBILECLIP2_LITE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "served" / "a").mkdir(parents=True)
    (tmp_path / "served" / "a" / "one.tar").write_bytes(CONTENT)

    with served(tmp_path / "served") as address:
        folder = place_of(f"{address}/a")
        assert (folder / "one.tar").is_file()
        assert not (folder / "two.tar").is_file()
        assert Path(folder / "one.tar").read_bytes() == CONTENT
        assert not folder.store.writable
        assert (folder / "one.tar").store.read(3, 9) == CONTENT[3:9]


def test_the_hub_is_read_through_fsspec(tmp_path, monkeypatch):
    import fsspec
    from fsspec.implementations.dirfs import DirFileSystem

    hub = DirFileSystem(str(tmp_path / "hub"), fsspec.filesystem("file"))
    monkeypatch.setattr(fsspec, "filesystem", lambda name: {"hf": hub}[name])
    monkeypatch.setenv("MOBILECLIP2_LITE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "hub" / "datasets" / "owner" / "name").mkdir(parents=True)
    (tmp_path / "hub" / "datasets" / "owner" / "name" / "one.tar").write_bytes(CONTENT)
    folder = place_of("hf://datasets/owner/name")
    assert [path.name for path in folder.glob("*.tar")] == ["one.tar"]
    assert Path(folder / "one.tar").read_bytes() == CONTENT
    assert (folder / "one.tar").store.read(3, 9) == CONTENT[3:9]
    assert not (folder / "two.tar").is_file()
    with pytest.raises(StoreError, match="only read"):
        (folder / "two.tar").write_bytes(b"x")
