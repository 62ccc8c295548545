"""The playground in a live JupyterLab, by mouse and by keyboard: its bars change as soon as the reader looks up.

Skipped, with the reason, where playwright, JupyterLab, Chromium or ONNX Runtime Web is missing. The model is real and
runs in the page. Screenshots lie in the test's folder.
"""

from __future__ import annotations

import numpy as np
import pytest
from doubles.browser import chromium
from doubles.jupyter_lab import assert_no_complaints, jupyter_lab, quickest, run_all, soon, write_notebook
from doubles.playground_page import bars, drop, first_bar, runtime

CELLS = (
    "from mobileclip2_lite import notebook\n\nnotebook.setup('tiny')",
    "from pathlib import Path\n\nfrom PIL import Image\n\n"
    "album = [(path.stem, Image.open(path)) for path in sorted(Path('album').glob('*.png'))]\n"
    "notebook.playground_box('towers', album, [name for name, _ in album], query=album[1][0], runtime='runtime')",
    "print('the last cell')",
)

WATCH = """() => {
  window.took = [];
  let asked = 0;
  const note = (event) => { if (event.type !== "pointermove" || event.buttons) asked = performance.now(); };
  for (const kind of ["pointermove", "input", "drop"]) document.addEventListener(kind, note, true);
  const answered = new MutationObserver(() => window.took.push(performance.now() - asked));
  answered.observe(document.querySelector(".playground .bars"), { childList: true });
}"""
"""Notes how long after the last of what the reader did the bars changed, in milliseconds."""


@pytest.fixture
def folder(tmp_path):
    """What JupyterLab is opened on."""
    (tmp_path / "lab").mkdir()
    write_notebook(tmp_path / "lab" / "playground.ipynb", CELLS)
    return tmp_path / "lab"


@pytest.fixture
def tab(folder, drawings, tmp_path):
    """A browser's page on the notebook, whose cells run."""
    with jupyter_lab(folder, tmp_path / "jupyter") as lab, chromium() as browser:
        opened = browser.new_page(viewport={"width": 1200, "height": 1800})
        opened.on("filechooser", lambda _: None)  # from now on they are the test's; the switch takes a while
        run_all(opened, lab, "playground.ipynb")
        yield opened


@pytest.fixture
def drawings(folder):
    """A teacher's exported towers, the browser's runtime and four drawings, by name, in JupyterLab's folder."""
    pytest.importorskip("anywidget", reason="needs the extra `notebooks`")
    pytest.importorskip("onnxscript", reason="needs the extra `export`")
    from PIL import Image

    from mobileclip2_lite import emoji_world
    from mobileclip2_lite.deployment.export import export_onnx
    from mobileclip2_lite.models.embedded import data_folder
    from mobileclip2_lite.models.zoo import create_model
    from mobileclip2_lite.recipes import World

    (folder / "runtime").symlink_to(runtime().resolve())
    export_onnx(create_model(data_folder() / "teachers" / "lite-teacher-conv"), folder / "towers")
    images, labels, names = emoji_world.zero_shot_set(World(names=4), 1)
    (folder / "album").mkdir()
    made = {names[label]: np.asarray(image) for image, label in zip(images, labels, strict=True)}
    for name, image in made.items():
        Image.fromarray(image).save(folder / "album" / f"{name}.png")
    return made


@pytest.mark.slow
def test_the_playground_answers_mouse_and_keyboard_in_a_live_notebook(tab, folder, drawings, tmp_path):
    tab.wait_for_selector(".playground[data-ready=yes]")
    assert_no_complaints(tab)
    cells, (first, second, third, *_) = tab.locator(".jp-Notebook .jp-CodeCell").count(), sorted(drawings)
    assert next(iter(bars(tab))) == first, "the first of the album is looked at"
    tab.screenshot(path=str(tmp_path / "opened.png"))
    tab.evaluate(WATCH)
    pad = tab.locator(".playground .pad").bounding_box()

    def stroke(turn: int) -> None:
        tab.mouse.move(pad["x"] + 30, pad["y"] + 40 + 60 * turn)
        tab.mouse.down()
        tab.mouse.move(pad["x"] + 180, pad["y"] + 60 + 60 * turn, steps=8)
        tab.mouse.up()

    before = bars(tab)
    tab.click(".playground .clear")
    assert quickest(tab, stroke, 3, -1) < soon()
    assert bars(tab) != before
    tab.screenshot(path=str(tmp_path / "drawn.png"))

    assert (
        quickest(tab, lambda turn: drop(tab, ".playground .pad", drawings[(first, second)[turn % 2]]), 2, -1) < soon()
    )
    first_bar(tab, second)

    tab.focus(".playground .pad")
    with tab.expect_file_chooser() as chooser:
        tab.keyboard.press("Enter")
    chooser.value.set_files(folder / "album" / f"{third}.png")
    first_bar(tab, third)

    def retype(turn: int) -> None:
        tab.focus(".playground .names")
        tab.keyboard.press("Control+A")
        tab.keyboard.type("\n".join([third, "a bad day", "dd"][: 3 - turn % 2]))

    assert quickest(tab, retype, 3, -1) < soon()
    assert set(bars(tab)) == {third, "a bad day", "dd"}
    first_bar(tab, third)
    assert tab.locator(".jp-Notebook .jp-CodeCell").count() == cells, "keys are the playground's, not JupyterLab's"
    tab.screenshot(path=str(tmp_path / "typed.png"))
