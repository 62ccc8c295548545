"""Crews: every shard once, a slow one holds nobody back, and three deaths are enough."""

from __future__ import annotations

import functools
import os

import pytest
from doubles.workers import Worker

from mobileclip2_lite.work.crew import Event, GivenUp, Run, Spread, WorkerDied
from mobileclip2_lite.work.processes import Alone, Processes, _devices


def test_in_this_process_errors_come_through_and_one_worker_is_made(tmp_path):
    made = []

    def make():
        made.append(1)
        return Worker(tmp_path)

    assert list(Run(Alone(make), ["a", "b"])) == [("a", "A"), ("b", "B")]
    assert made == [1]
    assert list(Run(Alone(make), [])) == []
    assert made == [1], "no shards, no worker"
    with pytest.raises(ValueError, match="wrong1 is wrong"):
        list(Run(Alone(make), ["wrong1", "a"]))


def test_a_shard_that_another_process_has_is_asked_for_again(tmp_path):
    done = list(Run(Alone(functools.partial(Worker, tmp_path)), ["taken", "a", "b"], pause=0.01))
    assert [item for item, _ in done] == ["a", "b", "taken"]


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL there")
def test_deaths_are_survived_counted_and_given_up_after_three(tmp_path):
    crew = Processes(functools.partial(Worker, tmp_path), 2)
    items = ["slow", "poison", "a", "once", "wrong", "b", "c"]
    run = Run(crew, items)
    try:
        done = list(run)
    finally:
        crew.close()
    assert dict(done) == {name: name.upper() for name in ("slow", "a", "once", "b", "c")}
    assert len(done) == 5, "each once"
    assert {(one.item, one.tries, one.reason.split(":")[0]) for one in run.failed} == {
        ("poison", 3, "WorkerDied"),
        ("wrong", 3, "ValueError"),
    }
    assert "signal 9" in next(one.reason for one in run.failed if one.item == "poison")
    assert len(list(tmp_path.glob("poison.*"))) == 3
    assert done[0][0] != "slow", "the slow one held nobody back"


def test_when_all_shards_fail_it_is_not_the_shards(tmp_path):
    crew = Processes(functools.partial(Worker, tmp_path), 1)
    try:
        with pytest.raises(
            GivenUp, match="4 shards failed one after the other, the last with ValueError: wrong"
        ) as caught:
            list(Run(crew, [f"wrong{number}" for number in range(9)]))
    finally:
        crew.close()
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL there")
def test_shards_that_failed_before_fail_again_and_stop_nothing(tmp_path):
    """`--retry-failed` while the cause is still there: five in a row say what is known already."""
    crew, before = Processes(functools.partial(Worker, tmp_path), 1), [f"wrong{number}" for number in range(5)]
    run = Run(crew, [*before, "a"], known=before)
    try:
        assert list(run) == [("a", "A")]
    finally:
        crew.close()
    assert [one.item for one in run.failed] == before


class Nodes:
    """A worker on each of some machines, in this process; `ill` says where an item ends its worker."""

    def __init__(self, nodes: int, ill: dict[str, set[str]]) -> None:
        self.at: dict[str, str | None] = {f"node{n}": None for n in range(nodes)}
        self.ill, self.tried = ill, {}

    def free(self, waiting):
        return None in self.at.values()

    def suits(self, shunned):
        elsewhere = {node: item for node, item in self.at.items() if node not in shunned}
        return not elsewhere or None in elsewhere.values()

    def give(self, item, shunned=()):
        free = [node for node, has in self.at.items() if has is None]
        node = next((node for node in free if node not in shunned), free[0])
        self.at[node] = item
        self.tried.setdefault(item, []).append(node)

    def events(self, seconds):
        """The worker that was given something last is done first: the one that is free is always the same."""
        node, item = next((node, item) for node, item in reversed(self.at.items()) if item is not None)
        self.at[node] = None
        wrong = node in self.ill.get(item, ())
        return [Event(item, error=WorkerDied("died"), node=node) if wrong else Event(item, result=item, node=node)]

    def busy(self):
        return any(item is not None for item in self.at.values())


def test_a_shard_is_given_up_after_three_deaths_on_three_machines():
    everywhere = {f"node{n}" for n in range(4)}
    crew = Nodes(4, {"poison": everywhere, "picky": {"node3", "node2"}})
    run = Run(crew, ["poison", "picky", *"abcdefghij"])
    assert sorted(item for item, _ in run) == sorted(["picky", *"abcdefghij"])
    assert [one.item for one in run.failed] == ["poison"]
    assert len(set(crew.tried["poison"])) == len(crew.tried["poison"]) == 3
    assert len(set(crew.tried["picky"])) == len(crew.tried["picky"]), "a machine that is ill is not tried twice"
    crew = Nodes(2, {"poison": everywhere})
    run = Run(crew, ["a", "poison", "b"])
    assert len(list(run)) == 2
    assert len(crew.tried["poison"]) == 3, "two machines are all there are"
    assert set(crew.tried["poison"]) == {"node0", "node1"}


def test_what_another_process_has_comes_after_all_that_nobody_has(tmp_path):
    seen = []

    def work(item):
        seen.append(item)
        return None if item == "theirs" and seen.count(item) < 2 else item

    assert len(list(Run(Alone(lambda: work), ["theirs", *"abc"], pause=0.0))) == 4
    assert seen == ["theirs", "a", "b", "c", "theirs"]


def test_one_of_many_that_share_a_folder_lists_what_fails(tmp_path):
    make = functools.partial(Worker, tmp_path)
    run = Run(Alone(make, one_of_many=True), ["wrong1", "a", "b"])
    assert [item for item, _ in run] == ["a", "b"]
    assert [(one.item, one.tries) for one in run.failed] == [("wrong1", 3)]


def test_settings_that_make_no_sense_are_refused():
    for wrong, words in (
        ({"engine": "slurm"}, "engine 'slurm' is not one of local, ray"),
        ({"workers": 0}, "1 <= least <= workers"),
        ({"workers": 1, "least": 2}, "1 <= least <= workers"),
        ({"gpus": 1.5}, "a fraction of one GPU, or whole ones"),
        ({"lease": 0}, "more than none"),
    ):
        with pytest.raises(ValueError, match=words):
            Spread(**wrong)


def test_local_workers_share_the_gpus_of_the_machine(monkeypatch):
    import torch

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert _devices(3, 0) == [None] * 3
    assert _devices(4, 1) == ["0", "1", "2", "3"]
    assert _devices(4, 0.5) == ["0", "0", "1", "1"]
    assert _devices(2, 2) == ["0,1", "2,3"]
    with pytest.raises(ValueError, match="more than the 4 GPUs"):
        _devices(5, 1)
    with pytest.raises(ValueError, match="2 fit on one, and there are 4"):
        _devices(10, 0.4)  # four GPUs in all, of which a fifth of each would be left
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6,7,3,1")
    assert _devices(2, 1) == ["6", "7"]
