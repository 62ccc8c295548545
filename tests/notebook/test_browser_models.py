"""Dials, names and texts on embedded models in a live JupyterLab, with a clock in the page.

A dial's handle, the names of the zero-shot box and the scales of the teachers' box are moved and typed as a reader
does; the image has to change within half a second of it. Skipped, with the reason, where playwright, JupyterLab or
Chromium is missing. Screenshots lie in the test's folder.
"""

from __future__ import annotations

import pytest
from doubles.browser import chromium
from doubles.jupyter_lab import assert_no_complaints, jupyter_lab, quickest, run_all, soon, write_notebook

CELLS = (
    "from mobileclip2_lite import notebook\n\nnotebook.setup('tiny')\nimport mobileclip2_lite as mc\n"
    "from mobileclip2_lite import emoji_world, recipes\nfrom mobileclip2_lite.models.loaded import encode_images\n\n"
    "world = recipes.World(names=6, max_objects=1)\npictures, labels, names = emoji_world.zero_shot_set(world, 1)\n"
    "ensemble = mc.load_teachers(('lite-teacher-conv', 'lite-teacher-se'))\n"
    "teacher, images = ensemble.loaded('lite-teacher-conv'), list(pictures)",
    "from mobileclip2_lite.evaluation import measures\n\n"
    "classes = measures.zero_shot_classifier(teacher, names, ['a {}'])\n"
    "cosines = encode_images(teacher, images[:1])[0] @ classes.T\n"
    "notebook.dial(lambda axes, t: axes.bar(names, (t * cosines).softmax(0).tolist()), 'scale', [1, 5, 20, 50, 200])",
    "notebook.naming_box(teacher, images, ', '.join(names), emoji_world.TEMPLATES)",
    "notebook.targets_box(ensemble, images[:3], [f'a {names[labels[row]]}' for row in range(3)])",
    "print('all', names[labels[0]], 'done')",
)
WATCH = """(image) => {
  window.took = [];
  window.asked = performance.now();
  const note = (event) => { if (event.type !== "pointermove" || event.buttons) window.asked = performance.now(); };
  for (const kind of ["keydown", "pointermove", "change"]) document.addEventListener(kind, note, true);
  new MutationObserver(() => window.took.push(performance.now() - window.asked)).observe(
    image, { attributes: true, attributeFilter: ["src"] });
}"""
"""Notes how long after the last of what the reader did an image became another, in milliseconds."""


@pytest.fixture
def tab(tmp_path):
    """A browser's page on the notebook, whose cells have run."""
    (tmp_path / "lab").mkdir()
    write_notebook(tmp_path / "lab" / "models.ipynb", CELLS)
    with jupyter_lab(tmp_path / "lab", tmp_path / "jupyter") as lab, chromium() as browser:
        # high enough for all cells: JupyterLab draws those that are in sight
        opened = browser.new_page(viewport={"width": 1200, "height": 2600})
        run_all(opened, lab, "models.ipynb")
        yield opened


@pytest.mark.slow
def test_embedded_models_answer_a_reader_in_a_browser_within_half_a_second(tab, tmp_path):
    tab.get_by_text("done").last.wait_for()
    images = tab.locator("img.widget-image, .widget-image img")
    dialled, named, blended = (images.nth(place) for place in range(3))
    for image in (dialled, named, blended):
        image.wait_for()
    assert_no_complaints(tab)
    tab.screenshot(path=str(tmp_path / "opened.png"))

    handle = tab.locator(".noUi-handle").first
    dialled.evaluate(WATCH)
    handle.focus()
    assert quickest(tab, lambda turn: handle.press(("ArrowRight", "ArrowLeft")[turn % 2]), 4, 0) < soon()

    line = tab.locator(".widget-text input").first
    shown = [name.strip() for name in line.input_value().split(",")]
    named.evaluate(WATCH)

    def type_names(turn: int) -> None:
        line.fill(", ".join([*shown[: 2 + turn], f"a new name, number {turn}"]))  # none that was asked before
        line.press("Enter")

    assert quickest(tab, type_names, 4, 0) < soon()
    before = named.get_attribute("src")
    line.fill(shown[0])
    line.press("Enter")
    tab.get_by_text("Type two names or more").wait_for()
    assert named.get_attribute("src") == before, "the last answer stays"
    tab.screenshot(path=str(tmp_path / "names.png"))

    scale = tab.locator(".noUi-handle").last
    blended.evaluate(WATCH)
    scale.focus()
    assert quickest(tab, lambda turn: scale.press(("ArrowRight", "ArrowLeft")[turn % 2]), 4, 0) < soon()
    lines = tab.locator(".widget-textarea textarea")

    def write_texts(turn: int) -> None:
        lines.fill(f"a {shown[0]}\na {shown[1]}\nsomething else, number {turn}")
        lines.press("Tab")

    assert quickest(tab, write_texts, 4, 0) < soon()
    assert_no_complaints(tab)
    tab.screenshot(path=str(tmp_path / "texts.png"))
