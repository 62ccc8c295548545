"""Every notebook runs from top to bottom at recipe tiny, and records what its published outputs record."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))


@pytest.fixture(scope="session")
def copy(tmp_path_factory, tiny_run) -> Path:
    """The notebooks and the tiny run where they look for it, copied: neither they nor the reader's runs are touched."""
    folder = tmp_path_factory.mktemp("course")
    ignored = shutil.ignore_patterns(".ipynb_checkpoints", "runs")
    shutil.copytree(ROOT / "notebooks", folder / "notebooks", ignore=ignored)
    shutil.copytree(tiny_run, folder / "runs" / "tiny")
    return folder


def declared(path: Path) -> dict:
    """The parameters that a notebook declares, as papermill understands them."""
    import papermill

    return papermill.inspect_notebook(str(path))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_at_tiny(path, copy):
    import papermill

    from mobileclip2_lite.notebook import recorded

    parameters = {"recipe": "tiny"}
    assert set(parameters) <= set(declared(path)), f"{path.name} does not declare what is passed"
    done = copy / f"{path.stem}-done.ipynb"
    papermill.execute_notebook(
        copy / "notebooks" / path.name,
        done,
        parameters=parameters,
        cwd=copy / "notebooks",
        kernel_name="python3",
        progress_bar=False,
        log_output=False,
        start_timeout=120,
        execution_timeout=600,
    )
    found, published = recorded(done), recorded(path)
    assert set(found) == set(published), "the published outputs are of another version"
    for name, value in published.get("fixed", {}).items():
        assert found["fixed"][name] == pytest.approx(value, rel=1e-3, abs=1e-6), f"{name}: run this notebook again"
