"""Ray: a node added, a node lost, a shard that kills, all on a cluster of one machine."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from doubles.fake_teachers import FakeTeachers, files, sample, write_pairs
from doubles.loopback import run_alone
from doubles.shard_maker import make

from mobileclip2_lite.recipes import Reinforce
from mobileclip2_lite.reinforcement.stage import reinforce
from mobileclip2_lite.work.crew import reason
from mobileclip2_lite.work.ray_crew import Actors, _connect, _death, _Handle

NODES = """
import json, os, signal, sys, time
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from mobileclip2_lite.work.crew import Run, Spread
from mobileclip2_lite.work.ray_crew import Actors

notes = Path(sys.argv[1])


class Worker:
    def __call__(self, item):
        node = ray.get_runtime_context().get_node_id()
        (notes / f"{item}.{node}.{time.time_ns()}").touch()
        if item == "poison":
            os.kill(os.getpid(), signal.SIGKILL)
        if item == "wrong":
            raise ValueError("wrong")
        first = any(notes.glob(f"quick*.{node}.*"))  # a later node is slower: they keep no step
        time.sleep(0.3 if item.startswith("quick") else 3.0 if first else 9.0)
        return node


def in_the_middle(node):
    for path in notes.glob(f"long*.{node}.*"):
        item, _, when = path.name.split(".")
        if item not in dict(done) and 0.2 < (time.time_ns() - int(when)) / 1e9 < 7.0:
            return True
    return False


def start():
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 80 * 2**20})
    ray.init(address=cluster.address, log_to_driver=False)
    return cluster


cluster = start()
items = [*(f"quick{n}" for n in range(3)), "poison", "wrong", *(f"long{n}" for n in range(10))]
crew = Actors(Worker, Spread("ray", workers=3, least=1), "test")
run, done, added, gone = Run(crew, items), [], None, None
for item, node in run:
    done.append((item, node))
    if added is None:
        added = cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
    elif gone is None and (later := {one for _, one in done if one != done[0][1]} - {node}) and in_the_middle(*later):
        cluster.remove_node(added, allow_graceful=False)  # while the first node has just ended one
        gone, crew.PATIENCE = node, 10.0  # no third node is coming, and no minute is to be spent on that
crew.close()
(notes / "found.json").write_text(json.dumps({"done": done, "failed": run.failed, "gone": gone}))
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.slow
def test_a_node_is_added_and_lost_and_a_shard_that_kills_is_given_up(tmp_path):
    run_alone(NODES, tmp_path, seconds=400)
    found = json.loads((tmp_path / "found.json").read_text())
    names = [item for item, _ in found["done"]]
    assert sorted(names) == sorted([*(f"quick{n}" for n in range(3)), *(f"long{n}" for n in range(10))]), "each once"
    assert len({node for _, node in found["done"]}) == 2, "the node that came later took part"
    assert found["gone"]
    assert {item: tries for item, _, tries in found["failed"]} == {"poison": 3, "wrong": 3}
    assert len(list(tmp_path.glob("poison.*"))) == 3
    reasons = {item: reason for item, reason, _ in found["failed"]}
    assert reasons["wrong"] == "ValueError: wrong"
    tries = [len(list(tmp_path.glob(f"{name}.*"))) for name in names if name.startswith("long")]
    assert max(tries) == 2, "the shard of the lost node was done again"


class Fake:
    """In place of an actor: notes what it is given."""

    def __init__(self) -> None:
        self.call, self.had = SimpleNamespace(remote=lambda item: self.had.append(item) or f"answer to {item}"), []


def test_a_shard_is_given_to_a_node_that_it_has_not_been_on():
    """Without a cluster: which actor is free, which node is shunned, which one is still coming up."""
    crew = Actors.__new__(Actors)
    here, there, coming = (_Handle(Fake(), None, node=node) for node in ("here", "there", None))
    crew.actors = [here, there, coming]
    assert crew.suits({"here"})
    crew.give("poison", {"here"})
    assert there.actor.had == ["poison"]
    assert not crew.suits({"here"}), "the only other node is busy: wait for it"
    assert not crew.suits({"here", "there"}), "the one that is coming up may be on a third"
    coming.since -= Actors.PATIENCE
    assert crew.suits({"here", "there"}), "there is no third: any will do"
    crew.give("poison", {"here", "there"})
    assert here.actor.had == ["poison"]
    assert here.answer == "answer to poison"


THREE = """
import json, os, signal, sys, time
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from mobileclip2_lite.work.crew import Run, Spread
from mobileclip2_lite.work.ray_crew import Actors

notes = Path(sys.argv[1])


class Worker:
    def __call__(self, item):
        node = ray.get_runtime_context().get_node_id()
        (notes / f"{item}.{node}.{time.time_ns()}").touch()
        tried = {path.name.split(".")[1] for path in notes.glob(f"{item}.*")}
        if item == "poison" or (item == "picky" and len(tried) == 1):  # the first machine that picky meets is ill
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.5)
        return node


memory = {"object_store_memory": 80 * 2**20}
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **memory})
for _ in range(2):
    cluster.add_node(num_cpus=1, **memory)
ray.init(address=cluster.address, log_to_driver=False)
Actors.PATIENCE = 600.0  # an actor may take long to come up beside other tests
crew = Actors(Worker, Spread("ray", workers=3, least=3), "test")
while not all(one.node for one in crew.actors):  # all machines are up
    crew.events(1.0)
run = Run(crew, ["poison", "picky", *(f"shard{number}" for number in range(12))])
done = list(run)
crew.close()
(notes / "found.json").write_text(json.dumps({"done": done, "failed": run.failed}))
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.soak  # three raylets on two cores: a minute and a half alone, but they may not come up beside other tests
def test_a_shard_is_given_up_after_deaths_on_three_nodes_and_an_ill_node_is_not_tried_twice(tmp_path):
    run_alone(THREE, tmp_path, seconds=600)
    found = json.loads((tmp_path / "found.json").read_text())
    assert sorted(item for item, _ in found["done"]) == sorted(["picky", *(f"shard{number}" for number in range(12))])
    assert [item for item, _, _ in found["failed"]] == ["poison"]
    nodes = {item: [path.name.split(".")[1] for path in tmp_path.glob(f"{item}.*")] for item in ("poison", "picky")}
    assert len(nodes["poison"]) == len(set(nodes["poison"])) == 3
    assert len(nodes["picky"]) == len(set(nodes["picky"])) == 2


SAME = """
import os, sys
from pathlib import Path
from doubles.fake_teachers import FakeTeachers
from mobileclip2_lite.recipes import Reinforce
from mobileclip2_lite.reinforcement.stage import reinforce
from mobileclip2_lite.work.crew import Spread
settings = Reinforce(teachers=("small", "large"), views=2)
spread = Spread(engine="ray", workers=2)
reinforce(settings, Path(sys.argv[1]), Path(sys.argv[2]), ensemble=FakeTeachers(), spread=spread)
"""


@pytest.mark.slow
def test_a_cluster_writes_the_same_bytes(tmp_path):
    pairs = write_pairs(tmp_path / "pairs", [[sample(10 * g + i) for i in range(4)] for g in range(3)])
    settings = Reinforce(teachers=("small", "large"), views=2)
    reinforce(settings, pairs, tmp_path / "local", ensemble=FakeTeachers())
    run_alone(SAME, pairs, tmp_path / "ray")
    assert files(tmp_path / "local") == files(tmp_path / "ray")


RETRY = """
import json, os, sys
from pathlib import Path
from doubles.faulty_store import faulty_store
from doubles.shard_maker import make
from mobileclip2_lite.work.crew import Spread
from mobileclip2_lite.work.failed import ShardsFailed, read_failed
from mobileclip2_lite.work.place import place_of

notes, said, folder = Path(sys.argv[1]), [], "s3://bucket/set"


def go(journal, ill=(), retry=False):
    journal.mkdir()
    spread = Spread("ray", workers=2, retry_failed=retry)
    try:
        make(folder, 6, spread, ill=dict.fromkeys(ill, "kill"), journal=journal)
        error = ""
    except ShardsFailed as failed:
        error = str(failed)
    tries = sorted(path.name.split(".")[0] for path in journal.iterdir())
    said.append({"error": error, "tries": tries, "failed": read_failed(place_of(folder))})


with faulty_store() as store:
    os.environ.update(store.environment, MOBILECLIP2_LITE_CACHE=str(notes / "cache"))
    ill = ["shard-000001.tar"]
    go(notes / "first", ill)
    go(notes / "left alone", ill)
    go(notes / "still ill", ill, retry=True)
    go(notes / "well", retry=True)
    go(notes / "found")
    (notes / "said.json").write_text(json.dumps({"said": said, "forbidden": store.forbidden}))
    for name, data in store.objects("set").items():
        (notes / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (notes / "set" / name).write_bytes(data)
"""


@pytest.mark.slow
def test_what_a_cluster_gave_up_is_left_alone_until_it_is_asked_for_again(tmp_path):
    """A shard that kills its actor, in a bucket: listed; left alone; tried while it kills; tried when it is well."""
    run_alone(RETRY, tmp_path, seconds=600)
    found = json.loads((tmp_path / "said.json").read_text())
    first, alone, ill, well, again = found["said"]
    names, poison = [f"shard-{number:06d}" for number in range(6)], "shard-000001"
    assert first["tries"] == sorted([*names, poison, poison]), "three times, the others once"
    for one in (first, alone, ill):
        assert "1 shard failed, shard-000001.tar with WorkerDied: the actor's process ended with" in one["error"]
        assert {name: line["tries"] for name, line in one["failed"].items()} == {f"{poison}.tar": 3}
    assert alone["tries"] == []
    assert ill["tries"] == [poison] * 3
    assert (well["tries"], well["error"], well["failed"]) == ([poison], "", {})
    assert again["tries"] == []
    assert not found["forbidden"]
    make(tmp_path / "local", 6)
    notes = {"failed.jsonl", "progress.json"}
    assert {name: data for name, data in files(tmp_path / "set").items() if name not in notes} == files(
        tmp_path / "local"
    )


def test_how_an_actor_died_is_said_without_advice():
    """Ray 2.60's words for an actor that was killed."""
    told = (
        "The actor died unexpectedly before finishing this task.\n\tclass_name: _Actor\n\tpid: 3243\nThe actor is dead "
        "because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker unexpectedly "
        "exits with a connection error code 2. End of file. Some common causes include: (1) the process was killed by "
        "the OOM killer due to high memory usage"
    )
    found = reason(_death(RuntimeError(told)))
    assert found == (
        "WorkerDied: the actor's process ended with SYSTEM_ERROR: Worker unexpectedly exits with a connection error "
        "code 2. End of file"
    )
    assert reason(_death(RuntimeError("another"))) == "RuntimeError: another"


def test_a_cluster_that_does_not_come_up_is_an_error_with_a_remedy(monkeypatch):
    def init(**chosen: object) -> None:
        raise Exception("The current node timed out during startup.")

    ray = SimpleNamespace(init=init)
    with pytest.raises(ConnectionError, match=r"no Ray cluster: .*timed out.*; this machine may be too busy"):
        _connect(ray, "")
    with pytest.raises(ConnectionError, match=r"no Ray cluster at head:10001: .*look at the address"):
        _connect(ray, "head:10001")
