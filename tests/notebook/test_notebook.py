"""What notebooks need, tried in a kernel as a notebook would."""

import json

import nbformat
import pytest

from mobileclip2_lite import notebook

CELLS = [
    "from mobileclip2_lite import notebook\nnotebook.setup()",
    "from mobileclip2_lite.work.randomness import stable_uid\nnotebook.show(stable_uid)",
    "made, axes = notebook.figure()\naxes.plot([1, 2])\nmade",
    "notebook.dial(lambda axes, t: axes.bar([0, 1], [t, 1 - t]), 'share', [0.1, 0.2, 0.3, 0.4])",
    "from ipywidgets.widgets import widget\nmade = {type(w).__name__: w for w in widget._instances.values()}\n"
    "before = made['Image'].value\nmade['SelectionSlider'].value = 0.4\nprint(made['Image'].value != before)",
    "import warnings\nwarnings.warn('noise', FutureWarning)",
    "notebook.record(zero_shot=0.5, better=True, names=['a', 'b'])",
    "notebook.record(zero_shot=0.75)",
]


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    from nbclient import NotebookClient

    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    NotebookClient(made, timeout=60, kernel_name="python3").execute()
    path = tmp_path_factory.mktemp("notebook") / "made.ipynb"
    nbformat.write(made, path)
    return path


def outputs(path, cell):
    return json.loads(path.read_text("utf-8"))["cells"][cell]["outputs"]


def test_setup_and_warnings_are_silent(executed):
    assert outputs(executed, 0) == []
    assert outputs(executed, 5) == []


def test_show_prints_the_librarys_source(executed):
    (shown,) = outputs(executed, 1)
    text = "".join(shown["data"]["text/markdown"])
    assert text.startswith("`mobileclip2_lite/work/randomness.py, line ")
    assert "def stable_uid(source_key: str) -> str:" in text
    assert "stable_uid" in "".join(shown["data"]["text/plain"])


def test_figures_are_shown_once_as_png(executed):
    (shown,) = outputs(executed, 2)
    assert "image/png" in shown["data"]


def test_dial_shows_static_panels_and_a_slider(executed):
    static, slider = outputs(executed, 3)
    assert "image/png" in static["data"]
    assert "application/vnd.jupyter.widget-view+json" in slider["data"]
    assert "slider for share" in "".join(slider["data"]["text/plain"])


def test_turning_the_slider_draws_again(executed):
    (printed,) = outputs(executed, 4)
    assert "".join(printed["text"]).strip() == "True"


def test_record_is_read_back_and_the_last_value_wins(executed):
    assert notebook.recorded(executed) == {"zero_shot": 0.75, "better": True, "names": ["a", "b"]}


def test_run_folder_is_the_repositorys_from_both_places(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    for here in (tmp_path, tmp_path / "notebooks"):
        monkeypatch.chdir(here)
        assert notebook.run_folder("lite") == tmp_path / "runs" / "lite"
    assert notebook.run_folder("lite", "elsewhere").as_posix() == "elsewhere"


def test_table_outside_of_a_notebook(capsys):
    notebook.table(["who", "right"], [["control", 0.12345], ["student", 3]])
    assert capsys.readouterr().out == "| who | right |\n| --- | ---: |\n| control | 0.123 |\n| student | 3 |\n\n"


def test_recorded_refuses_what_is_no_notebook(tmp_path):
    (tmp_path / "a.json").write_text("{}", "utf-8")
    with pytest.raises(ValueError, match="not a notebook"):
        notebook.recorded(tmp_path / "a.json")


def test_record_refuses_what_is_no_json():
    with pytest.raises(TypeError):
        notebook.record(value=object())


def test_outside_of_a_notebook_the_text_is_printed(capsys):
    notebook.record(loss=1 / 3)
    notebook.show(notebook.recorded)
    printed = capsys.readouterr().out
    assert "loss = 0.3333" in printed
    assert "def recorded(path" in printed
