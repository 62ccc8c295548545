"""JupyterLab in a browser: a notebook opens and runs, its dial is turned and names are typed, and the images change.

Skipped, with the reason, where playwright, JupyterLab or Chromium is missing. The model behind the names is made
up, so that torch is not loaded; tests/notebook/test_naming.py asks a real one. Screenshots lie in the test's folder.
"""

from __future__ import annotations

import pytest
from doubles.browser import chromium
from doubles.jupyter_lab import assert_no_complaints, jupyter_lab, run_all, wait_for, write_notebook

CELLS = (
    "from mobileclip2_lite import notebook\n\nnotebook.setup('tiny')",
    "notebook.dial(lambda axes, width: axes.bar(['a bar'], [width]), 'height', [1, 2, 3, 4, 5], share='y')",
    "import numpy as np\n\nfrom mobileclip2_lite.notebook import naming\n\n"
    "naming.answers_of = lambda loaded, templates: lambda image, names: [1 / (k + 2) for k in range(len(names))]\n"
    "notebook.naming_box(None, [np.full((8, 8, 3), grey, np.uint8) for grey in (80, 180)], 'dog, cat', ['{}'])",
    "from types import SimpleNamespace\n\nfrom mobileclip2_lite.notebook import targets\n\n"
    "targets.cosines_of = lambda ensemble, images: lambda texts: {'T': np.eye(len(images), len(texts))}\n"
    "grey = [np.full((8, 8, 3), grey, np.uint8) for grey in (80, 180)]\n"
    "notebook.targets_box(SimpleNamespace(logit_scales={'T': 2.0}), grey, ['a dog', 'a cat'])",
    "from pathlib import Path\n\nfrom PIL import Image\n\n"
    "for name, grey in (('dark', 20), ('light', 230)):\n    Image.new('RGB', (8, 8), (grey,) * 3).save(f'{name}.png')\n"
    "def search(text, top):\n    return [SimpleNamespace(path=Path(f'{text}.png'), score=0.5)]\n\n"
    "notebook.search_box(SimpleNamespace(search=search), 'dark')",
    "notebook.claim('two and two are {four}', 2 + 2 == 4, four=2 + 2)",
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a JupyterLab of its own, on a folder with one notebook."""
    folder = tmp_path_factory.mktemp("lab")
    write_notebook(folder / "dial.ipynb", CELLS)
    with jupyter_lab(folder, tmp_path_factory.mktemp("jupyter")) as address:
        yield address


@pytest.fixture
def tab(lab):
    """A browser's page on the notebook, whose cells run."""
    with chromium() as browser:
        # high enough for all cells: JupyterLab draws those that are in sight
        opened = browser.new_page(viewport={"width": 1200, "height": 2600})
        run_all(opened, lab, "dial.ipynb")
        yield opened


def pixels(image) -> str:
    """What an image in the page shows; nothing while it is being replaced."""
    fetched = "Array.from(new Uint8Array(await (await fetch(node.src)).arrayBuffer())).join()"
    return image.evaluate(f"async (node) => {{ try {{ return {fetched}; }} catch {{ return ''; }} }}")


def changed(image, before: str) -> str:
    """The image's pixels once they are others."""
    return wait_for(lambda: ((now := pixels(image)) not in ("", before) and now) or None, 60)


@pytest.mark.slow
def test_a_dial_is_turned_and_names_are_typed_and_the_images_change(tab, tmp_path):
    tab.get_by_text("two and two are 4").wait_for()
    views = tab.locator("img.widget-image, .widget-image img")
    handle, dialled, named = tab.locator(".noUi-handle").first, views.nth(0), views.nth(1)
    for part in (handle, dialled, named):
        part.wait_for()
    assert_no_complaints(tab)
    tab.screenshot(path=str(tmp_path / "opened.png"))

    before = pixels(dialled)
    handle.focus()
    handle.press("ArrowRight")
    changed(dialled, before)
    handle.press("ArrowLeft")
    assert wait_for(lambda: pixels(dialled) == before or None, 60), "turned back, the image is the old one"
    place = handle.bounding_box()
    tab.mouse.move(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
    tab.mouse.down()
    tab.mouse.move(place["x"] + 400, place["y"] + place["height"] / 2, steps=4)
    tab.mouse.up()
    changed(dialled, before)

    before, line = pixels(named), tab.locator(".widget-text input").first
    line.fill("dog, cat, cow")
    line.press("Enter")
    with_cow = changed(named, before)
    named.scroll_into_view_if_needed()
    tab.screenshot(path=str(tmp_path / "three-names.png"))
    line.fill("dog")
    line.press("Enter")
    tab.get_by_text("Type two names or more").wait_for()
    assert pixels(named) == with_cow, "the last answer stays"
    tab.screenshot(path=str(tmp_path / "one-name.png"))

    blend, lines = views.nth(2), tab.locator(".widget-textarea textarea")
    blend.scroll_into_view_if_needed()
    before = pixels(blend)
    scale = tab.locator(".noUi-handle").last
    scale.focus()
    scale.press("ArrowRight")
    louder = changed(blend, before)
    lines.fill("a dog")
    lines.press("Tab")
    tab.get_by_text("Write two texts or more").wait_for()
    assert pixels(blend) == louder, "the last answer stays"
    lines.fill("a dog\na cow\na cat")
    lines.press("Tab")
    changed(blend, louder)
    tab.screenshot(path=str(tmp_path / "three-texts.png"))

    found, box = views.nth(3), tab.locator(".widget-text input").last
    before = pixels(found)
    box.fill("light")
    box.press("Enter")
    tab.get_by_text("0.50 light.png").wait_for()
    changed(views.nth(3), before)
    box.fill("gone")
    box.press("Enter")
    tab.get_by_text("build the index again").wait_for()
    box.fill("")
    box.press("Enter")
    tab.get_by_text("Type what to look for").wait_for()
    box.fill("dark")
    box.press("Enter")
    tab.get_by_text("0.50 dark.png").wait_for()
    assert wait_for(lambda: pixels(views.nth(3)) == before or None, 60)
    tab.screenshot(path=str(tmp_path / "found.png"))
