"""A process that is killed leaves no worker behind: pools of trainings, and a training's loaders."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

TRAININGS = """
import dataclasses, os, sys
from pathlib import Path
from doubles.workers import train_for_ever
from mobileclip2_lite import pipeline, recipes
pipeline.train_one = train_for_ever
os.environ.pop("OMP_NUM_THREADS", None)
pipeline.train_all(dataclasses.replace(recipes.tiny(), name=sys.argv[1]), Path(sys.argv[2]), jobs=2)
"""
STUDIES = """
import sys
from doubles.workers import stay
from mobileclip2_lite.studies import record
record.one = stay
list(record._outcomes([sys.argv[1]] * 2, 2))
"""
LOADERS = """
import sys
from doubles.workers import Endless
from mobileclip2_lite.training import feeding
next(feeding._loader(Endless(sys.argv[1]), 2))
"""


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL there")
@pytest.mark.parametrize("program", [TRAININGS, STUDIES, LOADERS], ids=["trainings", "studies", "loaders"])
def test_a_killed_process_leaves_no_worker_behind(program, tmp_path):
    tests = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent)])}
    with socket.create_server(("127.0.0.1", 0)) as here:
        here.settimeout(120)
        words = [sys.executable, "-c", program, str(here.getsockname()[1]), str(tmp_path)]
        parent = subprocess.Popen(words, env=environment)
        try:
            workers = [here.accept()[0] for _ in range(2)]
        finally:
            parent.kill()
            parent.wait()
    for worker in workers:
        with worker:
            worker.settimeout(60)
            assert broken(worker), "it ended with its parent"


def broken(line: socket.socket) -> bool:
    """Whether the other end has gone, waited for."""
    try:
        return line.recv(1) == b""
    except ConnectionResetError:
        return True
