"""Google's and Azure's stores on the wire: created once by their own conditions, asked again, nothing forbidden."""

from __future__ import annotations

import os
import socket
import struct
import time
import urllib.request

import pytest
from doubles.shard_maker import make

from mobileclip2_lite.notebook.cluster import faulty_bucket
from mobileclip2_lite.work.crew import Spread
from mobileclip2_lite.work.folder import StageMismatch
from mobileclip2_lite.work.place import place_of
from mobileclip2_lite.work.store import Clash, _client


@pytest.fixture
def other(monkeypatch, tmp_path):
    pytest.importorskip("obstore", reason="the extra 'scale' is not installed")
    with faulty_bucket(0.0) as made:
        for name, value in made.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("MOBILECLIP2_LITE_CACHE", str(tmp_path / "cache"))
        _client.cache_clear()
        yield made
    _client.cache_clear()


@pytest.mark.parametrize("scheme", ["s3", "gs", "az", "abfs"])
@pytest.mark.parametrize("shared", [False, True])
def test_a_set_is_made_there_as_on_a_disk(other, tmp_path, scheme, shared):
    make(tmp_path / "disk")
    wanted = {path.name: path.read_bytes() for path in (tmp_path / "disk").iterdir()}
    other.failing = 0.2
    folder = f"{scheme}://bucket/some/set"
    manifest = make(folder, spread=Spread(shared=shared, lease=20))
    assert other.failed > 5
    found = other.below("bucket/some/set")
    notes = ("claims/", "progress.json")
    assert {name: data for name, data in found.items() if not name.startswith(notes)} == wanted
    assert not other.refused
    assert not [name for name in other.written_over if "/claims/" not in name], "work is created by condition only"
    assert make(folder) == manifest, "found finished"
    with pytest.raises(StageMismatch, match="count: 8 there, 9 asked for"):
        make(folder, count=9)


@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
def test_who_comes_second_compares(other, scheme):
    place = place_of(f"{scheme}://bucket/one.tar")
    assert place.store.create(b"one" * 1000) is True
    assert place.store.create(b"one" * 1000) is False
    with pytest.raises(Clash, match="differs"):
        place.store.create(b"two" * 1000)
    assert place.read_bytes() == b"one" * 1000
    assert place.store.read(3, 9) == b"oneone"
    assert other.ranges == [("/bucket/one.tar", 3, 9)], "a range is asked for, not the whole"
    assert [path.name for path in place.parent.glob("*.tar")] == ["one.tar"]


def test_a_client_that_is_killed_prints_no_traceback(capsys):
    with faulty_bucket(0.0) as made:
        with socket.create_connection(made.server.server_address) as client:
            client.sendall(b"GET /bucket/")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("hh" if os.name == "nt" else "ii", 1, 0))
        with urllib.request.urlopen(f"{made.environment['AWS_ENDPOINT_URL']}/bucket/?list-type=2") as answer:
            assert answer.status == 200
        time.sleep(0.2)
        try:
            raise ValueError("a fault of the server's own")
        except ValueError:
            made.server.handle_error(None, ("127.0.0.1", 1))
    said = capsys.readouterr().err
    assert "ConnectionResetError" not in said
    assert "a fault of the server's own" in said
