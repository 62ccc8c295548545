"""The example jobs are what they say: their commands parse, and agree with what the cluster gives."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from mobileclip2_lite import cli, recipes
from mobileclip2_lite.reinforcement import stage
from mobileclip2_lite.work.crew import Spread
from mobileclip2_lite.work.failed import ShardsFailed
from mobileclip2_lite.work.place import place_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def asked(monkeypatch) -> list[dict]:
    """What `reinforce` was asked to do."""
    calls: list[dict] = []

    def record(settings, pairs, out, **given):
        calls.append({"settings": settings, "pairs": place_of(pairs), "out": place_of(out), **given})
        return {"samples": 0, "shards": [], "dropped": {}}

    monkeypatch.setattr(stage, "reinforce", record)
    return calls


def run(command: str) -> None:
    name, *arguments = shlex.split(command)
    assert name == "mobileclip2-lite"
    cli.main(arguments)


def test_the_kubernetes_job_parses_and_asks_for_what_its_nodes_have(asked, capsys):
    yaml = pytest.importorskip("yaml")
    job = yaml.safe_load((ROOT / "examples" / "kuberay.yaml").read_text("utf-8"))
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    run(job["spec"]["entrypoint"])
    (call,) = asked
    spread, cluster = call["spread"], job["spec"]["rayClusterSpec"]
    assert (spread.engine, spread.address) == ("ray", "auto")
    assert call["settings"] == recipes.named("paper_12m").reinforce
    assert [str(call["pairs"]), str(call["out"])] == ["s3://my-bucket/captioned", "s3://my-bucket/reinforced"]
    assert "s3://my-bucket/reinforced" in capsys.readouterr().out
    assert cluster["enableInTreeAutoscaling"] is True
    (group,) = cluster["workerGroupSpecs"]
    (container,) = group["template"]["spec"]["containers"]
    assert spread.workers * spread.gpus <= group["maxReplicas"] * int(
        container["resources"]["limits"]["nvidia.com/gpu"]
    )
    assert spread.least <= group["minReplicas"]
    head = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert not [entry for entry in [*container.get("env", []), *head.get("env", [])] if "SECRET" in entry["name"]]


def test_the_slurm_job_parses_and_needs_no_coordinator(asked):
    lines = (ROOT / "examples" / "slurm.sbatch").read_text("utf-8").splitlines()
    assert lines[0] == "#!/bin/bash"
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(.*))?$", "\n".join(lines), re.MULTILINE))
    assert {"array", "gres", "requeue"} <= options.keys()
    (command,) = [line.removeprefix("srun ") for line in lines if line.startswith("srun ")]
    run(command)
    (call,) = asked
    assert call["spread"] == Spread(shared=True, lease=900)
    assert not re.search(r"SECRET|KEY_ID", "\n".join(line for line in lines if not line.startswith("#")))


def test_exit_status_says_that_shards_failed(monkeypatch, capsys):
    def fail(*_, **__):
        raise ShardsFailed("1 shard failed, shard-000001.tar with WorkerDied")

    monkeypatch.setattr(stage, "reinforce", fail)
    with pytest.raises(SystemExit) as caught:
        cli.main(["reinforce", "a", "b", "--workers", "2"])
    assert caught.value.code == 3
    assert "shard-000001.tar" in capsys.readouterr().err


def test_every_test_that_the_tables_of_faults_name_is_there():
    names = {
        (path.name, name)
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text("utf-8"), re.MULTILINE)
    }
    missing, tables = [], (ROOT / "docs" / "faults.md").read_text("utf-8")
    for file, name in re.findall(r"`(test_\w+\.py)(?:::(test_\w+))?`", tables):
        if file not in {known for known, _ in names} or (name and (file, name) not in names):
            missing.append(f"{file}::{name}")
    for name in re.findall(r"`(test_\w+)`", tables):
        if ("test_faults.py", name) not in names:
            missing.append(name)
    assert not missing
