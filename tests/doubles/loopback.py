"""Programs that open ports run in a network name space with only loopback up: nothing listens outside, nothing gets in.

Ray answers on the machine's own address, which no setting can change; so its tests run here, and are skipped where a
name space cannot be had.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent.parent
RAY_GAVE_UP = "timed out during startup"  # after 30 s, which no setting of Ray's changes: a busy machine needs more
_ALONE = ["unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh"]


def run_alone(program: str, *arguments: object, seconds: float = 300) -> str:
    """What a Python program prints; fails with what it says if it does not end well."""
    pytest.importorskip("ray", reason="the extra 'scale' is not installed")
    if shutil.which("unshare") is None or subprocess.run([*_ALONE, "true"], capture_output=True).returncode:
        pytest.skip("no network name spaces here: Linux and root are needed")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    environment |= {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    for _ in range(2):
        done = subprocess.run(
            [*_ALONE, sys.executable, "-c", program, *map(str, arguments)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        if not (done.returncode and RAY_GAVE_UP in done.stderr):
            break
    if done.returncode and RAY_GAVE_UP in done.stderr:
        pytest.skip("Ray did not come up within its own time, twice: the machine is too busy")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout
