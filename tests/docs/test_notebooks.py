"""Every notebook runs from top to bottom at recipe tiny, and records what its published outputs record."""

from __future__ import annotations

import csv
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


@pytest.mark.slow
def test_own_photographs_go_through_their_notebook(shared, tmp_path, monkeypatch):
    """Sixty photographs with five captions each and their teachers: searched, reinforced, trained on, measured."""
    import papermill

    from mobileclip2_lite.models import photo_teachers
    from mobileclip2_lite.models.folders import PLACE
    from mobileclip2_lite.notebook import recorded

    teachers = ["photo-teacher-names", "photo-teacher-vectors"]
    try:
        for name in teachers:
            photo_teachers.save(name, photo_teachers.make(name), {}, tmp_path / "models" / name)
    except ModuleNotFoundError as error:
        pytest.skip(str(error))
    monkeypatch.setenv(PLACE, str(tmp_path / "models"))
    with open(shared / "flickr800" / "captions.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    images = sorted({row["image"] for row in rows})[:60]
    (tmp_path / "own").mkdir()
    for image in images:
        shutil.copyfile(shared / "flickr800" / image, tmp_path / "own" / Path(image).name)
    with open(tmp_path / "own" / "captions.csv", "w", encoding="utf-8", newline="") as file:
        pairs = [(Path(row["image"]).name, row["caption"]) for row in rows if row["image"] in images]
        csv.writer(file).writerows([("file_name", "text"), *pairs])
    done = tmp_path / "done.ipynb"
    papermill.execute_notebook(
        ROOT / "notebooks" / "80_your_own_data.ipynb", done, cwd=tmp_path, kernel_name="python3", progress_bar=False,
        parameters={"recipe": "tiny", "images": str(tmp_path / "own"), "teachers": teachers},
        log_output=False, start_timeout=120, execution_timeout=600,
    )  # fmt: skip
    found, said = recorded(done), done.read_text("utf-8")
    assert found["samples"] == 60
    assert found["teacher_r5"] > 2 * 5 / 60
    assert "60 of 60 samples have more than one text" in said
    assert sorted(path.suffix for path in (tmp_path / "own").iterdir()) == [".csv", *[".jpg"] * 60], "only read"
