"""What all tests share: threads that do not spin, caches and current folder away from the user's own, the tiny run."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

# Before torch is imported anywhere: with its default, two processes on two cores are 20 to 40 times slower.
os.environ["OMP_NUM_THREADS"] = "1"  # also because a forked child of a process with OpenMP threads hangs
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("MPLBACKEND", "agg")
os.environ["HF_HUB_OFFLINE"] = "1"  # no test may reach out; a test that needs the hub's answer replaces it
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="mobileclip2_lite-test-")

import pytest

ROOT = Path(__file__).resolve().parent.parent


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes never name a test: those of a gzip or a zip file hold the time, and two processes would not agree."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real photographs beside the checkout (`MOBILECLIP2_LITE_SHARED`, or ../shared); skips where there are none."""
    folder = Path(os.environ.get("MOBILECLIP2_LITE_SHARED") or ROOT.parent / "shared")
    if not (folder / "flickr800" / "captions.csv").is_file():
        pytest.skip(f"no photographs in {folder}: set MOBILECLIP2_LITE_SHARED")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _remove_caches():
    yield
    import shutil

    shutil.rmtree(os.environ["HF_HOME"], ignore_errors=True)


# --- artefacts of a tiny run, shared by the tests that need one -----------------------------------------------------


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory) -> Path:
    """The folder of a whole finished run at recipe `tiny`; read it, never write to it."""
    from filelock import FileLock

    from mobileclip2_lite import pipeline, recipes

    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # one run for all processes that share the tests
        base = base.parent
    folder = base / "tiny" / "run"
    with FileLock(base / "tiny.lock"):
        pipeline.run(recipes.tiny(), folder, say=lambda line: None)  # whoever comes second finds it finished
    return folder


# --- golden identities ----------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--record-identities` writes what is found instead of comparing it."""
    parser.addoption("--record-identities", action="store_true", help="record golden/identities.json anew")


@pytest.fixture
def golden(request):
    """Compare a value with what `golden/identities.json` holds under a name, or record it.

    `exact` names the machine a value holds for: on another one it is not compared. `at_least` asks that a list has kept
    all that it had.
    """
    import json

    path = ROOT / "tests" / "golden" / "identities.json"

    def compare(name: str, found, exact: str = "", at_least: bool = False) -> None:
        known = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        if request.config.getoption("--record-identities"):
            known[name] = {"machine": exact, "value": found} if exact else found
            path.write_text(json.dumps(dict(sorted(known.items())), indent=1, ensure_ascii=False) + "\n", "utf-8")
            return
        before = known[name]
        if exact:
            if before["machine"] != exact:
                pytest.skip(f"recorded on {before['machine']}, this is {exact}")
            before = before["value"]
        if at_least:
            lost = set(before) - set(found)
            assert not lost, f"{name}: {sorted(lost)} lost"
        else:
            assert json.loads(json.dumps(found)) == before, name

    return compare


# --- stores -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def store(monkeypatch, tmp_path):
    """An S3 server on loopback that can be told to misbehave; stages reach it as `s3://bucket/...`."""
    from doubles.faulty_store import faulty_store

    from mobileclip2_lite.work.store import _client

    with faulty_store() as made:
        for name, value in made.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("MOBILECLIP2_LITE_CACHE", str(tmp_path / "cache"))
        _client.cache_clear()
        yield made
    _client.cache_clear()
