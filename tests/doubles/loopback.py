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
PATIENT = """
import re, socket, time
import ray._private.node as nodes
import ray._private.services as services
look_once, begin, launch = services.get_node, nodes.Node.__init__, services.start_ray_process


def look_again(*arguments):
    end = time.monotonic() + 240
    while True:
        try:
            return look_once(*arguments)
        except RuntimeError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def with_ports(node, ray_params, *arguments, **others):
    for name in ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port"):
        if not getattr(ray_params, name):
            with socket.socket() as taken:
                taken.bind(("127.0.0.1", 0))
                setattr(ray_params, name, taken.getsockname()[1])
    begin(node, ray_params, *arguments, **others)


def told_its_agents_port(command, *arguments, **others):
    agents = [part for part in command if part.startswith("--dashboard_agent_command")]
    ports = [re.search(r"--listen-port=(\\d+)", agent)[1] for agent in agents]
    more = [f"--dashboard_agent_listen_port={port}" for port in ports]
    return launch([*command, *more], *arguments, **others)


services.get_node, nodes.Node.__init__, services.start_ray_process = look_again, with_ports, told_its_agents_port
"""
"""Ray gives its own node 30 s to start, and that 15 s until its agents have told their ports, which no setting changes
and a busy machine does not keep; here the node has 240, and the ports are chosen before."""
_ALONE = ["unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh"]


def run_alone(program: str, *arguments: object, seconds: float = 300) -> str:
    """What a Python program prints, Ray's own lines among it; fails with what it says if it does not end well."""
    pytest.importorskip("ray", reason="the extra 'scale' is not installed")
    if shutil.which("unshare") is None or subprocess.run([*_ALONE, "true"], capture_output=True).returncode:
        pytest.skip("no network name spaces here: Linux and root are needed")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    environment |= {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    done = subprocess.run(
        [*_ALONE, sys.executable, "-c", PATIENT + program, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout
