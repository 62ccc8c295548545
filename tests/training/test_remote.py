"""A training's checkpoints in a bucket: larger than a request, and a bucket that takes none for a while."""

from __future__ import annotations

import os

import pytest
from doubles.tiny_training import go, settings, write_data, write_model

from mobileclip2_lite.training.remote import Remote
from mobileclip2_lite.work import backends
from mobileclip2_lite.work import store as store_module
from mobileclip2_lite.work.place import place_of

URL = "s3://bucket/student"


def remote_with_log() -> Remote:
    remote = Remote(place_of(URL), "key")
    remote.folder.mkdir(parents=True)
    (remote.folder / "log.jsonl").write_bytes(b'{"step": 1}\n')
    return remote


def test_a_checkpoint_larger_than_a_request_goes_in_parts_and_comes_back(store, tmp_path, monkeypatch):
    for module in (backends, store_module):
        monkeypatch.setattr(module, "LARGEST", 1 << 20)
    monkeypatch.setattr(backends, "PIECE", (5 << 20) // 8)  # S3's parts are of 5 MB at least
    content = os.urandom(11 << 20)
    path = tmp_path / "step-00000007.pt"
    path.write_bytes(content)
    remote_with_log().save(path, 7)
    assert any("?uploads" in request for request in store.forbidden), "in parts"
    monkeypatch.setenv("MOBILECLIP2_LITE_CACHE", str(tmp_path / "another machine"))
    other = Remote(place_of(URL), "key")
    other.fetch()
    assert (other.folder / "checkpoints" / path.name).read_bytes() == content
    with pytest.raises(ValueError, match="fewer samples a shard"):
        place_of("s3://bucket/set/shard.tar").store.create(path)


def test_a_bucket_that_takes_no_checkpoint_ends_no_training(store, tmp_path, monkeypatch):
    """Of four checkpoints the first is taken, the others refused: the model is that of a training on a disk."""
    monkeypatch.setenv("MOBILECLIP2_LITE_PATIENCE", "1")
    data, model = write_data(tmp_path / "data"), write_model(tmp_path / "model")
    chosen, said = settings(model, checkpoint_every=1), []

    def deny(request) -> str | None:
        if request.command == "PUT" and request.path.endswith("latest.json"):
            said.append(request.path)
        return "busy" if len(said) == 1 and request.command == "PUT" and "slot-1.pt" in request.path else None

    store.faults.deny = deny
    with pytest.warns(
        UserWarning, match=r"step 2 lies in .* and not in s3://bucket/student .*training goes on"
    ) as told:
        go(chosen, data, URL)
    assert len([one for one in told if "and not in" in str(one.message)]) == 3
    assert len(said) == 1, "only of the first it was said that it is there"
    assert store.faults.done["busy"] > 1, "it was asked again"
    here = go(chosen, data, tmp_path / "here")
    assert store.objects("student")["model.safetensors"] == (here / "model.safetensors").read_bytes()


def test_what_did_not_arrive_is_not_named(store, tmp_path, monkeypatch):
    monkeypatch.setenv("MOBILECLIP2_LITE_PATIENCE", "1")
    remote = remote_with_log()
    for step in (1, 2, 3):
        path = tmp_path / f"step-{step:08d}.pt"
        path.write_bytes(b"state of step %d" % step)
        store.faults.deny = lambda request, step=step: "busy" if step == 2 and request.command == "PUT" else None
        if step == 2:
            with pytest.warns(UserWarning, match="the one before it stands there"):
                remote.save(path, step)
        else:
            remote.save(path, step)
        monkeypatch.setenv("MOBILECLIP2_LITE_CACHE", str(tmp_path / f"machine {step}"))
        other = Remote(place_of(URL), "key")
        other.fetch()
        stands = 1 if step == 2 else step
        found = other.folder / "checkpoints" / f"step-{stands:08d}.pt"
        assert found.read_bytes() == b"state of step %d" % stands
