"""Engines: results in order, one worker a process, errors that come through."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from doubles.fake_teachers import FakeTeachers, files, sample, write_pairs

from mobileclip2_lite.recipes import Reinforce
from mobileclip2_lite.reinforcement.stage import reinforce
from mobileclip2_lite.work.shardwise import run


def test_local_makes_one_worker_and_keeps_the_order():
    made = []

    def make():
        made.append(1)
        return lambda item: item * 2

    assert list(run(make, [3, 1, 2])) == [6, 2, 4]
    assert made == [1]
    assert list(run(make, [])) == []
    assert made == [1], "no items, no worker"


def test_errors_come_through_after_the_results_before_them():
    results = run(lambda: lambda item: 1 / item, [1, 0, 2])
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)
    with pytest.raises(ValueError, match="engine 'slurm' is not one of local, ray"):
        list(run(lambda: str, [1], engine="slurm"))


RAY = """
import sys
from pathlib import Path
from doubles.fake_teachers import FakeTeachers
from mobileclip2_lite.recipes import Reinforce
from mobileclip2_lite.reinforcement.stage import reinforce
settings = Reinforce(teachers=("small", "large"), views=2)
reinforce(settings, Path(sys.argv[1]), Path(sys.argv[2]), engine="ray", workers=2, ensemble=FakeTeachers())
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="extra 'scale' is not installed")
def test_ray_writes_the_same_bytes(tmp_path):
    """In a network name space of its own: Ray listens on the machine's address, not on loopback."""
    alone = ["unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("no network name spaces here")
    pairs = write_pairs(tmp_path / "pairs", [[sample(10 * g + i) for i in range(4)] for g in range(3)])
    settings = Reinforce(teachers=("small", "large"), views=2)
    reinforce(settings, pairs, tmp_path / "local", ensemble=FakeTeachers())
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [*alone, sys.executable, "-c", RAY, str(pairs), str(tmp_path / "ray")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "local") == files(tmp_path / "ray")
