"""Checkpoints: whole or not there, the last good one survives, never code."""

from __future__ import annotations

import errno
import os
import pickle

import pytest
import torch

from mobileclip2_lite.training import checkpoints


def state(value: float) -> dict:
    return {
        "model": {"w": torch.full((3,), value)},
        "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}},
        "ema": None,
    }


def test_round_trip_keeps_the_newest_two(tmp_path):
    for step in (1, 2, 3):
        assert checkpoints.save(tmp_path / "c", step, state(step)) is not None
    assert checkpoints.list_steps(tmp_path / "c") == [2, 3]
    found = checkpoints.load_latest(tmp_path / "c")
    assert found["step"] == 3
    assert found["model"]["w"].tolist() == [3.0, 3.0, 3.0]
    assert checkpoints.load_latest(tmp_path / "nothing") is None


def test_full_disk_leaves_the_last_good_checkpoint(tmp_path, monkeypatch):
    checkpoints.save(tmp_path, 1, state(1))
    real = torch.save

    def full(value, file):
        file.write(b"half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(torch, "save", full)
    with pytest.warns(UserWarning, match=r"No space left.*step 1 still stands.*Free some space"):
        assert checkpoints.save(tmp_path, 2, state(2)) is None
    monkeypatch.setattr(torch, "save", real)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001.pt"]
    assert checkpoints.load_latest(tmp_path)["step"] == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
def test_a_really_full_disk(tmp_path, monkeypatch):
    """The operating system's own refusal, while torch writes."""
    import builtins

    checkpoints.save(tmp_path, 1, state(1))
    real = builtins.open

    def onto_full(path, mode="r", *arguments, **keywords):
        return real("/dev/full" if str(path).endswith(".partial") else path, mode, *arguments, **keywords)

    monkeypatch.setattr(builtins, "open", onto_full)
    with pytest.warns(UserWarning, match="step 1 still stands"):
        assert checkpoints.save(tmp_path, 2, {"big": torch.zeros(100_000)}) is None
    monkeypatch.undo()
    assert checkpoints.load_latest(tmp_path)["step"] == 1


def test_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def stopped(value, file):
        file.write(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", stopped)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(tmp_path, 1, state(1))
    assert list(tmp_path.iterdir()) == []


def test_killed_write_is_cleaned_up_and_not_read(tmp_path):
    checkpoints.save(tmp_path, 1, state(1))
    (tmp_path / ".step-00000002.pt.99.partial").write_bytes(b"half")
    assert checkpoints.load_latest(tmp_path)["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001.pt"]


def test_torn_newest_falls_back(tmp_path):
    checkpoints.save(tmp_path, 1, state(1))
    path = checkpoints.save(tmp_path, 2, state(2))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.warns(UserWarning, match="step-00000002.pt cannot be read"):
        assert checkpoints.load_latest(tmp_path)["step"] == 1
    (tmp_path / "step-00000001.pt").write_bytes(b"")
    with pytest.warns(UserWarning, match="cannot be read"), pytest.raises(ValueError, match="no checkpoint in"):
        checkpoints.load_latest(tmp_path)


class Evil:
    def __reduce__(self):
        return (os.system, ("echo unsafe > unsafe",))


def test_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"form": 1, "step": 1, "model": Evil()}, tmp_path / "step-00000001.pt", pickle_module=pickle)
    with pytest.warns(UserWarning, match="cannot be read"), pytest.raises(ValueError, match="no checkpoint"):
        checkpoints.load_latest(tmp_path)
    assert not (tmp_path / "unsafe").exists()


def test_newer_form_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "FORM", 2)
    checkpoints.save(tmp_path, 1, state(1))
    monkeypatch.undo()
    with pytest.raises(ValueError, match="update the package"):
        checkpoints.load_latest(tmp_path)
