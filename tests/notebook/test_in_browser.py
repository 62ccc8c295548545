"""The playground within a notebook: shown where its runtime is, and a line of remedy where it is not."""

from __future__ import annotations

import pytest

from mobileclip2_lite.deployment import playground
from mobileclip2_lite.notebook import in_browser


@pytest.fixture
def shown(monkeypatch):
    """What is shown, in a shell that says it is a notebook."""
    found = []
    monkeypatch.setattr(in_browser, "in_notebook", lambda: True)
    monkeypatch.setattr(in_browser, "show_widget", lambda widget, what: found.append(widget))
    return found


def test_the_box_hands_everything_to_the_widget(shown, tmp_path, monkeypatch):
    monkeypatch.setattr(playground, "widget", lambda *given: given)
    (tmp_path / "runs/npm/package/dist").mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    in_browser.playground_box("towers/student", [("a", 1)], ["dog"], "the {}", "cat", "by me")
    ((towers, runtime, album, start),) = shown
    assert (towers, runtime) == ("towers/student", tmp_path / "runs/npm/package/dist")
    assert album == [playground.Picture("a", 1)]
    assert start == playground.Start("student", ("dog",), "the {}", "cat", "by me")


def test_without_its_runtime_a_line_says_how_to_get_it(shown, tmp_path, capsys):
    in_browser.playground_box(tmp_path, runtime=tmp_path / "nowhere")
    assert "`make playground`" in capsys.readouterr().out
    assert shown == []


def test_elsewhere_than_in_a_notebook_nothing_is_shown(tmp_path, capsys):
    in_browser.playground_box(tmp_path, runtime=tmp_path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("form", ["ipywidgets", "anywidget"])
def test_widgets_of_either_kind_are_shown_with_a_line_for_where_none_runs(monkeypatch, form):
    display = pytest.importorskip("IPython.display", reason="needs the extra `notebooks`")
    from mobileclip2_lite.notebook.dials import show_widget

    bundle, facts = {"application/x": {"model_id": "1"}, "text/plain": "Widget()"}, {"isolated": True}

    class Widget:
        def _repr_mimebundle_(self):
            return (bundle, facts) if form == "anywidget" else bundle

    shown = []
    monkeypatch.setattr(display, "display", lambda data, **options: shown.append((data, options)))
    show_widget(Widget(), "a thing")
    ((data, options),) = shown
    assert data == {**bundle, "text/plain": "(a thing: run this cell in JupyterLab to use it)"}
    assert options == {"metadata": facts if form == "anywidget" else {}, "raw": True}


def test_anywidgets_own_form_is_one_of_these():
    anywidget = pytest.importorskip("anywidget", reason="needs the extra `notebooks`")

    class Widget(anywidget.AnyWidget):
        _esm = "export default {}"

    found = Widget()._repr_mimebundle_()
    assert isinstance(found, dict) or [type(part) for part in found] == [dict, dict]
