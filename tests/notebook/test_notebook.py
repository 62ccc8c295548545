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


def test_table_outside_of_a_notebook(capsys):
    notebook.table(["who", "right", "says"], [["control", 0.12345, "an onion"], ["student", 3, "–"]])
    assert capsys.readouterr().out.splitlines() == [
        "| who | right | says |",
        "|---|---:|---|",
        "| control | 0.123 | an onion |",
        "| student | 3 | – |",
    ]


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


# --- sentences that cannot lie --------------------------------------------------------------------------------------


def test_a_claim_prints_its_numbers_and_fails_when_they_say_otherwise(capsys):
    notebook.setup(recipe="lite")
    gain, error = 12.34, 2.0
    notebook.claim("the teacher adds {gain:.1f} ± {error:.1f} points to {what}", gain > 2 * error, what="zero-shot")
    assert capsys.readouterr().out == "✓ the teacher adds 12.3 ± 2.0 points to zero-shot\n"
    with pytest.raises(notebook.ClaimFailed, match=r"no longer true: it adds 12\.3"):
        notebook.claim("it adds {gain:.1f}", gain < error)
    with pytest.raises(NameError, match="nowhere"):
        notebook.claim("{nowhere}", True)
    notebook.setup(recipe="tiny")
    notebook.claim("it adds {gain:.1f}", gain < error)
    assert "not borne out at recipe tiny" in capsys.readouterr().out
    notebook.setup()


def test_a_recap_lists_its_numbers_and_fails_as_a_claim_does(capsys):
    notebook.setup(recipe="lite")
    gain = 12.34
    notebook.recap("one idea", ("the teacher adds {gain:.1f} points, {share:.0%}", gain > 0), share=0.5)
    assert capsys.readouterr().out == "- one idea\n- the teacher adds 12.3 points, 50%\n"
    with pytest.raises(notebook.ClaimFailed, match=r"recap is no longer true: it adds 12\.3"):
        notebook.recap(("it adds {gain:.1f}", gain < 0))
    with pytest.raises(NameError, match="nowhere"):
        notebook.recap("{nowhere}")
    notebook.setup(recipe="tiny")
    notebook.recap(("it adds {gain:.1f}", gain < 0))
    assert capsys.readouterr().out.startswith(
        "- ✗ not borne out at recipe tiny, which is too short for it: it adds 12.3"
    )
    notebook.setup()


def test_a_guess_is_asked_and_an_exercise_checked(capsys):
    notebook.guess("Which is larger?", ["the control", "the student"])
    assert capsys.readouterr().out.splitlines() == ["Guess: Which is larger?", "  - the control", "  - the student"]
    for answer in (None, ...):
        notebook.check(answer, lambda x: x == 3, "count them")
        assert capsys.readouterr().out == "Nothing to check yet. Hint: count them\n"
    kind = "Not yet. 'x' is not of the kind that is asked for. Hint: count them"
    for answer, said in ((3, "Right."), (4, "Not yet. Hint: count them"), ("x", kind)):
        notebook.check(answer, lambda x: x + 0 == 3, "count them")
        assert capsys.readouterr().out == f"{said}\n"
    for answer, said in ((3, "Right."), (0, "Not yet. Too few. Hint: count them"), (9, "Not yet. Too many. Hint:")):
        notebook.check(answer, lambda x: [(x > 0, "too few."), (x < 9, "too many."), (x, "")], "count them")
        assert capsys.readouterr().out.startswith(said)

    def judged(x):
        yield x != 0, "it is nothing."
        yield 3 / x == 1, "it is another number."

    for answer, said in ((3, "Right."), (0, "Not yet. It is nothing."), (9, "Not yet. It is another number.")):
        notebook.check(answer, judged, "count them")
        assert capsys.readouterr().out.startswith(said), "what comes after the first that is missing is not asked"


def test_fixed_values_are_kept_apart(tmp_path):
    from mobileclip2_lite.notebook import RECORD

    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("")])
    made.cells[0].outputs = [nbformat.v4.new_output("display_data", {RECORD: {"fixed": {"gain": 1.5}, "seconds": 3.0}})]
    nbformat.write(made, tmp_path / "made.ipynb")
    assert notebook.recorded(tmp_path / "made.ipynb") == {"fixed": {"gain": 1.5}, "seconds": 3.0}


def test_the_run_is_found_from_any_folder_below_and_missed_with_a_remedy(tmp_path, monkeypatch):
    (tmp_path / "runs" / "made").mkdir(parents=True)
    (tmp_path / "notebooks" / "solutions").mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "notebooks", tmp_path / "notebooks" / "solutions"):
        monkeypatch.chdir(folder)
        assert notebook.run_folder("made") == tmp_path / "runs" / "made"
    assert notebook.run_folder("never", tmp_path) == tmp_path
    with pytest.raises(FileNotFoundError, match="make run RECIPE=never"):
        notebook.run_folder("never")


def test_panels_of_a_dial_share_their_axes():
    from mobileclip2_lite.notebook.dials import shared_limits
    from mobileclip2_lite.reports.figures import figure

    _, axes = figure(6, 2, 1, 2)
    axes[0, 0].barh([0, 1], [0.2, 0.1])
    axes[0, 1].barh([0, 1], [1.0, 0.4])
    assert shared_limits(list(axes.ravel()), "x")["x"][1] >= 1.0
    assert axes[0, 0].get_xlim() == axes[0, 1].get_xlim()


DIAGRAMS = ("two_towers", "distillation", "coca", "repmixer", "view_stored", "who_pays", "cluster")


@pytest.mark.parametrize("name", DIAGRAMS)
def test_diagrams_draw_something(name):
    import io

    import numpy as np
    from PIL import Image

    from mobileclip2_lite.notebook import diagrams
    from mobileclip2_lite.reports.figures import png

    pixels = np.asarray(Image.open(io.BytesIO(png(getattr(diagrams, name)()))).convert("L"))
    assert (pixels < 128).mean() > 0.002  # ink
    assert (pixels > 250).mean() > 0.3  # and air


def test_the_present_station_is_marked():
    from mobileclip2_lite.notebook import diagrams

    words = [text.get_text() for text in diagrams.life_of_a_sample("caption").axes[0].texts]
    assert "you are here" in words
    assert set(diagrams.STATIONS) <= set(words)
    with pytest.raises(ValueError, match="none of pairs"):
        diagrams.life_of_a_sample("lunch")
