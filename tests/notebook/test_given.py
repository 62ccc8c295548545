"""What a reader may write into the first cells: each mistake ends in one sentence that says what to write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mobileclip2_lite import notebook
from mobileclip2_lite.notebook import given

ROOT = Path(__file__).resolve().parents[2]
NO_FOLDERS = ("nowhere", "x" * 10_000, "zero\0byte", "~nobody-of-that-name/runs", "a file")
NO_NAMES = (3, 0.5, float("nan"), ["runs"], " ", b"runs")


@pytest.mark.parametrize("wrong", NO_FOLDERS, ids=lambda one: one[:8].strip("\0"))
def test_a_place_that_is_no_folder_is_refused_and_nothing_begins_there(wrong, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a file").write_text("x")
    for look in (lambda: notebook.run_place("lite", wrong), lambda: given.folder("images", wrong)):
        with pytest.raises(FileNotFoundError, match=r"is no folder, seen from .*: write the name of a folder") as error:
            look()
        assert len(str(error.value)) < 500
        assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["a file"]


@pytest.mark.parametrize("wrong", NO_NAMES, ids=repr)
def test_what_is_no_name_of_a_folder_is_refused(wrong):
    for look in (lambda: notebook.run_folder("lite", wrong), lambda: given.folder("images", wrong)):
        with pytest.raises(ValueError, match=r"= .*: write the name of a folder in quotes"):
            look()


def test_a_folder_that_is_there_is_taken(tmp_path):
    assert given.folder("images", str(tmp_path)) == notebook.run_place("lite", tmp_path) == tmp_path


@pytest.mark.parametrize("wrong", [(), [], "", [""], [3], None, 3, float("nan"), ["a", None]], ids=repr)
def test_what_is_no_list_of_names_is_refused(wrong):
    with pytest.raises(ValueError, match=r"teachers = .*: write one name or more, each in quotes"):
        given.names("teachers", wrong)
    assert given.names("teachers", "one") == given.names("teachers", ["one"]) == ("one",)


@pytest.mark.parametrize("wrong", ["folders", 3, None, float("nan"), "x" * 100])
def test_another_word_than_those_known_is_refused(wrong):
    with pytest.raises(ValueError, match=r"texts = .*: write one of '', 'folder', 'teacher'"):
        given.one_of("texts", wrong, ("", "folder", "teacher"))
    assert given.one_of("texts", "folder", ("", "folder")) == "folder"


def test_too_few_images_are_refused():
    given.enough(range(30), 30, "images")
    with pytest.raises(ValueError, match=r"29 images, and at least 30 are needed here.*Give a folder with more"):
        given.enough(range(29), 30, "images")


@pytest.mark.parametrize("wrong", ["", " ", 3, float("nan"), None, "x" * 10_000], ids=lambda one: repr(one)[:8])
def test_what_is_no_models_name_is_refused_wherever_a_model_is_named(wrong):
    import mobileclip2_lite as mc
    from mobileclip2_lite.models.embedded import load_captioner

    for load in (mc.create_model, load_captioner, lambda name: mc.load_teachers((name,))):
        with pytest.raises(ValueError, match=r"is no name: write a model's name or the path of its folder") as error:
            load(wrong)
        assert len(str(error.value)) < 200


def test_a_recipe_is_looked_up_before_anything_else():
    for wrong in ("LITE", "lite ", 3, float("nan"), ("lite",)):
        with pytest.raises(ValueError, match=r"does not exist: one of tiny, lite"):
            notebook.setup(wrong)


def test_notebooks_look_at_what_they_are_given():
    looked_at = {"images": "given.folder(", "texts": "given.one_of(", "teachers": "given.names("}
    looked_at |= {"finetuned": "given.names(", "run_folder": "notebook.run_", "recipe": "notebook.setup(recipe)"}
    known = {"pretrained", "model", "start"}  # models' names, which are looked at where a model is loaded
    for path in sorted(ROOT.glob("notebooks/*.ipynb")):
        cells = [c for c in json.loads(path.read_text("utf-8"))["cells"] if c["cell_type"] == "code"]
        (parameters,) = ["".join(c["source"]) for c in cells if "parameters" in c["metadata"].get("tags", [])]
        text = "\n".join("".join(cell["source"]) for cell in cells)
        for line in parameters.splitlines():
            name = line.split(" = ")[0]
            assert name in known or looked_at[name] in text, f"{path.name}: nothing looks at {name}"
