"""How far a run is: a line a minute in a log, a bar on a terminal, nothing where nobody looks."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from mobileclip2_lite.work import progress
from mobileclip2_lite.work.progress import Progress


class Items:
    """Ten shards of ten seconds each; one failed."""

    failed = ("one",)

    def __init__(self, clock: list[float]) -> None:
        self.clock = clock

    def __iter__(self):
        for number in range(10):
            self.clock[0] += 10.0
            yield f"shard-{number}", number


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.delenv("TQDM_DISABLE")
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    return now


def test_a_log_gets_a_line_a_minute(clock, capsys):
    assert len(list(Progress("reinforced", 20).over(Items(clock)))) == 10
    assert capsys.readouterr().err == "reinforced: 6 of 20 shards, 1 failed, about 2 min left\n"


@pytest.mark.parametrize(("total", "quiet"), [(0, ""), (20, "1")])
def test_nothing_is_said_where_the_number_is_unknown_or_nobody_looks(clock, capsys, monkeypatch, total, quiet):
    monkeypatch.setenv("TQDM_DISABLE", quiet)
    assert len(list(Progress("reinforced", total).over(Items(clock)))) == 10
    assert capsys.readouterr().err == ""


def test_a_notebook_keeps_its_outputs_clean(clock, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    assert len(list(Progress("reinforced", 20).over(Items(clock)))) == 10
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(clock, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    list(Progress("reinforced", 10).over(Items(clock)))
    said = capsys.readouterr().err
    assert "reinforced: 100%" in said
    assert "failed=1" in said
