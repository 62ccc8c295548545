"""The real launcher, as docs/stores.md gives it: stopped by SIGTERM, taken up by another number of processes.

Each process notes the samples of its steps, so that an epoch is counted by its samples and not by its losses alone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from doubles.noted_training import noted
from doubles.tiny_training import write_data, write_model

from mobileclip2_lite import cli
from mobileclip2_lite.training import checkpoints
from mobileclip2_lite.training import log as training_log
from mobileclip2_lite.work.folder import read_manifest
from mobileclip2_lite.work.randomness import stable_uid

BATCH, STEPS = 6, 150
SAMPLES = BATCH * STEPS
"""Of the data, so that all steps together are one epoch."""
TESTS = Path(__file__).parents[1]


def options(model: Path) -> list[str]:
    # AdamW: timm's Muon orthogonalises in bf16 where the CPU has it, and there last bits soon count a thousand times
    chosen = {"samples": SAMPLES, "batch-size": BATCH, "workers": 0, "log-every": 1, "precision": "fp32"}
    chosen |= {"optimizer": "adamw", "learning-rate": 1e-3}
    words = [word for name, value in chosen.items() for word in (f"--{name}", str(value))]
    return ["--model", str(model), "--tracker", "none", "--checkpoint-every", "100000", *words]


def launch(count: int, data: Path, out: Path, model: Path) -> subprocess.Popen:
    """`torchrun --nproc_per_node COUNT -m mobileclip2_lite train ...`, whose steps are noted."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"]
    noting = ["-m", "doubles.noted_training", str(out.parent / "notes")]
    command = [*launcher, *noting, "train", str(data), str(out), *options(model)]
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def steps_logged(out: Path) -> int:
    path = out / "log.jsonl"
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def stopped(running: subprocess.Popen, out: Path, after: int) -> int:
    """Send SIGTERM to the launcher after so many steps in all; the step of the checkpoint that is left."""
    try:
        deadline = time.monotonic() + 600
        while steps_logged(out) < after and running.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        running.send_signal(signal.SIGTERM)
        said = running.communicate(timeout=300)[0].decode()
    finally:
        running.kill()
    assert running.returncode == 1, said[-3000:]
    assert "asked to stop (SIGTERM) at step" in said, said[-3000:]
    assert not (out / "manifest.json").is_file()
    assert not (out / ".lock").is_file()
    [step] = checkpoints.list_steps(out / "checkpoints")[-1:]
    return step


@pytest.mark.slow
def test_two_processes_stop_three_go_on_and_one_ends_as_one_alone(tmp_path):
    data, model = write_data(tmp_path / "data", SAMPLES), write_model(tmp_path / "model")
    out, alone = tmp_path / "out", tmp_path / "alone"
    first = stopped(launch(2, data, out, model), out, 5)
    second = stopped(launch(3, data, out, model), out, first + 5)
    assert 0 < first < second < STEPS
    running = launch(1, data, out, model)
    assert running.wait(900) == 0, running.communicate()[0].decode()[-3000:]
    cli.main(["train", str(data), str(alone), *options(model)])
    one, other = (list(training_log.read(folder / "log.jsonl")) for folder in (alone, out))
    assert [line["step"] for line in other] == list(range(1, STEPS + 1)), "each step once"
    for mine, theirs in zip(one, other, strict=True):
        assert theirs["loss"] == pytest.approx(mine["loss"], rel=1e-4)
    assert read_manifest(out)["processes"] == 1
    seen = list(noted(tmp_path / "notes"))
    assert Counter(uid for _, _, uid in seen) == {stable_uid(str(n)): 1 for n in range(SAMPLES)}, "an epoch: each once"
    steps = {count: sorted({step for processes, step, _ in seen if processes == count}) for count in (2, 3, 1)}
    assert steps == {2: [*range(first)], 3: [*range(first, second)], 1: [*range(second, STEPS)]}
    shares = Counter((processes, step) for processes, step, _ in seen)
    assert set(shares.values()) == {BATCH}, "no process repeats what another one has"
