"""A JupyterLab of a test's own, and notebooks that are opened and run in it by a browser."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
WAIT = 120_000
"""Milliseconds that anything may take on a busy machine."""
SOON = 500
"""Milliseconds in which a reader expects an answer."""


def soon() -> float:
    """`SOON`, as many times longer as programs share a core at the moment."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return SOON * max(1.0, load / (os.cpu_count() or 1))


def quickest(tab, act, times: int, answer: int) -> float:
    """The least milliseconds from what the reader did to an answer; other programs may take the processor.

    Args:
        tab: a page that notes its answers' milliseconds in `window.took`.
        act: does something, the turn's number given.
        answer: which of the answers to one turn counts: 0, the first; -1, the last.
    """
    found = []
    for turn in range(times):
        tab.evaluate("window.took.length = 0")
        act(turn)
        tab.wait_for_function("window.took.length > 0")
        tab.wait_for_timeout(400)  # whatever else the last stroke or key brings
        found.append(tab.evaluate(f"window.took.at({answer})"))
    return min(found)


def wait_for(what, seconds: float = WAIT / 1000):
    """The first value of `what()` that is not None."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (found := what()) is not None:
            return found
        time.sleep(0.2)
    raise TimeoutError(f"nothing within {seconds:.0f} s")


def write_notebook(path: Path, sources: Sequence[str]) -> None:
    """A notebook of code cells that has not run."""
    cells = [
        {"cell_type": "code", "id": f"c{k}", "metadata": {}, "execution_count": None, "outputs": [], "source": code}
        for k, code in enumerate(sources)
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path.write_text(json.dumps({"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}), "utf-8")


@contextmanager
def jupyter_lab(folder: Path, state: Path) -> Iterator[str]:
    """The address of a JupyterLab on a folder, which keeps what it writes for itself in `state`."""
    pytest.importorskip("jupyterlab", reason="needs the extra `notebooks`")
    pytest.importorskip("ipywidgets", reason="needs the extra `notebooks`")
    state.mkdir(exist_ok=True)
    places = {f"JUPYTER_{name}_DIR": str(state / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    environment = {**os.environ, **places, "IPYTHONDIR": str(state / "ipython"), "PYTHONPATH": str(ROOT)}
    environment.pop("MPLBACKEND", None)
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--ip=127.0.0.1", "--port=0"]
    command += ["--allow-root", "--IdentityProvider.token=course", "--LabApp.news_url=None", f"--notebook-dir={folder}"]
    with open(state / "log", "wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:

        def address() -> str | None:
            assert server.poll() is None, (state / "log").read_text("utf-8")
            for path in (state / "runtime").glob("jpserver-*.json"):
                return f"http://127.0.0.1:{json.loads(path.read_text('utf-8'))['port']}"
            return None

        found = wait_for(address)

        def answers() -> bool | None:
            try:
                return urllib.request.urlopen(f"{found}/api/status?token=course", timeout=5).status == 200 or None
            except OSError:  # not listening yet
                return None

        wait_for(answers)
        yield found
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()


def run_all(tab: Any, lab: str, name: str) -> None:
    """Open a notebook in a browser's page and run its cells."""
    tab.set_default_timeout(WAIT)
    tab.goto(f"{lab}/lab/tree/{name}?token=course")
    tab.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
    tab.get_by_text("Python 3", exact=False).first.wait_for()
    tab.locator(".lm-MenuBar-itemLabel", has_text="Run").first.click()
    tab.locator(".lm-Menu-itemLabel", has_text="Run All Cells").first.click()


def assert_no_complaints(tab: Any) -> None:
    """No cell printed a warning or ended in an error."""
    assert tab.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
    assert tab.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.error']").count() == 0
