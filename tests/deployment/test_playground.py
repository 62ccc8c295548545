"""The playground: its JavaScript gives what Python gives, and the page works in a browser without any network."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
from doubles.browser import chromium
from doubles.playground_page import bars, drop, first_bar, runtime
from PIL import Image

from mobileclip2_lite import emoji_world
from mobileclip2_lite.deployment import playground
from mobileclip2_lite.models.embedded import data_folder
from mobileclip2_lite.models.preprocess import Preprocess
from mobileclip2_lite.models.tokenizer import CLIP_VOCABULARY, prefix_merges, prefix_tokenizer
from mobileclip2_lite.models.zoo import create_model
from mobileclip2_lite.recipes import World

ROOT = Path(__file__).resolve().parents[2]
NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="needs node to run the page's modules")

TEXTS = (
    "a photo of a dog",
    "",
    "   ",
    "two red apples left of a green bicycle, it's 1234 o'clock!",
    "Ünïcode ☃ <b>and</b> markup &amp; &lt;entities&gt; &notit; &#233;&#x1F600; &hellip;",
    "“curly” ‘quotes’ ŉ ﬁne ﬂuff ＬＯＵＤ　ＮＯＩＳＥＳ",
    "line\r\nbreaks\x85and\u2028more\x00\x1f\ufeff",
    "日本語のテキスト 🍎🚗👩‍👩‍👧 مرحبا Привет ΣΊΣΥΦΟΣ İstanbul e\u0301",
    "don't can't we're I've I'm they'll he'd 'S",
    "word " * 99,
    "<start_of_text> and <end_of_text>",
    "1½ ² Ⅷ x_y-z... ___ ??!! a.b@c.d https://x.y/z?q=1&r=2",
    "\x1b[31mred\x1b[0m \u200b zero\u00a0width",
)


def run_node(script: str, value: object) -> object:
    """What a module script prints for a JSON value on its input."""
    whole = f"""
    import {{ readFileSync }} from "node:fs";
    const input = JSON.parse(readFileSync(0, "utf8"));
    {script.replace("WEB", playground.WEB.as_uri())}
    """
    command = [NODE, "--input-type=module", "-e", whole]
    done = subprocess.run(
        command, input=json.dumps(value), capture_output=True, text=True, encoding="utf-8", timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@needs_node
@pytest.mark.parametrize("vocabulary", [4_096, CLIP_VOCABULARY])
def test_the_pages_tokenizer_equals_pythons(vocabulary):
    import html.entities

    config = {"merges": prefix_merges(vocabulary), "context_length": 33, "entities": html.entities.html5}
    texts = [*TEXTS, *(text for scene in emoji_world.retrieval_set(World(), 20).captions for text in scene)]
    script = """
    const { Tokenizer } = await import("WEB/tokenizer.mjs");
    const tokenizer = new Tokenizer(input.config);
    console.log(JSON.stringify(input.texts.map((text) => tokenizer.encode(text))));
    """
    found = run_node(script, {"config": config, "texts": texts})
    wanted = prefix_tokenizer(vocabulary, 33)(texts).tolist()
    for text, ids, right in zip(texts, found, wanted, strict=True):
        assert ids == right, text


@needs_node
@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_the_pages_preprocess_equals_pythons(mode, interpolation):
    preprocess = Preprocess(24, (0.48, 0.45, 0.4), (0.26, 0.25, 0.27), interpolation, mode)
    rng = np.random.default_rng(0)
    images = [
        rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((24, 24), (37, 61), (100, 25), (9, 5), (31, 24), (1, 70))
    ]
    rows = [{"data": im.ravel().tolist(), "width": im.shape[1], "height": im.shape[0]} for im in images]
    script = """
    const { pixels, square } = await import("WEB/images.mjs");
    const out = input.images.map((image) => [[...square(image, input.config).data], [...pixels(image, input.config)]]);
    console.log(JSON.stringify(out));
    """
    found = run_node(script, {"images": rows, "config": playground.browser_preprocess(preprocess)})
    for image, (resized, normalised) in zip(images, found, strict=True):
        pil = Image.fromarray(image)
        np.testing.assert_array_equal(np.reshape(resized, (24, 24, 3)), np.asarray(preprocess.resize(pil)))
        np.testing.assert_array_equal(np.float32(normalised).reshape(3, 24, 24), preprocess(pil).numpy())


@needs_node
def test_the_bundle_is_one_module_with_everything(tmp_path):
    (tmp_path / "bundle.mjs").write_text(playground.bundle(), "utf-8")
    script = f"""
    const all = await import({json.dumps((tmp_path / "bundle.mjs").as_uri())});
    console.log(JSON.stringify(Object.keys(all).sort()));
    """
    assert {"Tokenizer", "mount", "openTowers", "pixels"} <= set(run_node(script, None))


# --- the page in a browser --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def page_folder(tmp_path_factory):
    pytest.importorskip("onnxruntime", reason="needs the extra `export`")
    pytest.importorskip("onnxscript", reason="needs the extra `export`")
    from mobileclip2_lite.deployment.export import export_onnx

    folder = tmp_path_factory.mktemp("playground")
    loaded = create_model(data_folder() / "teachers" / "lite-teacher-conv")
    export_onnx(loaded, folder / "towers")
    images, labels, names = emoji_world.zero_shot_set(World(names=8), 1)
    album = [playground.Picture(names[label], image) for image, label in zip(images, labels, strict=True)]
    start = playground.Start("conv", tuple(names), query=names[3], credit=emoji_world.ATTRIBUTION)
    playground.write_playground(folder / "towers", folder / "page", runtime(), album, start)
    return folder, loaded, list(images), names


@pytest.fixture
def page(browser, page_folder):
    with playground.server(page_folder[0] / "page", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = browser.new_page(viewport={"width": 1_100, "height": 1_000})
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("filechooser", lambda _: None)  # from now on they are the test's; the switch takes a while
        page.goto(f"http://127.0.0.1:{server.server_address[1]}/")
        page.wait_for_selector("#playground[data-ready=yes]", timeout=60_000)
        yield page
        page.close()
        server.shutdown()
    assert not errors


@pytest.mark.slow
def test_the_page_names_and_finds_as_python_does(page, page_folder):
    folder, _, images, names = page_folder
    from mobileclip2_lite.deployment.runtime import load_exported

    towers = load_exported(folder / "towers")
    image = towers.embed_images([Image.fromarray(images[0])])[0]
    scores = towers.logit_scale * towers.embed_texts([f"a picture of a {name}" for name in names]) @ image
    shares = np.exp(scores - scores.max())
    wanted = dict(zip(names, 100 * shares / shares.sum(), strict=True))
    found = bars(page)
    assert found == pytest.approx(wanted, abs=0.06), "the album's first image is opened at the start"
    assert list(found.values()) == sorted(found.values(), reverse=True)
    first = page.locator(".found figcaption").first.inner_text()
    order = np.argsort(-towers.embed_images([Image.fromarray(i) for i in images]) @ towers.embed_texts([names[3]])[0])
    assert first.split(maxsplit=1)[1] == names[order[0]]
    page.fill(".query", names[5])
    page.wait_for_function("name => document.querySelector('.found figcaption').innerText.endsWith(name)", arg=names[5])
    page.fill(".names", "\n".join(names[:2]))
    page.wait_for_function("document.querySelectorAll('.bar').length === 2")


@pytest.mark.slow
def test_an_image_that_is_dropped_pasted_or_opened_changes_the_answer(page, page_folder, tmp_path):
    _, _, images, names = page_folder
    assert not drop(page, ".pad", images[6]), "the browser must not leave the page for the file"
    first_bar(page, names[6])
    assert not drop(page, ".bars", images[2]), "nor where it is let go beside the image"
    first_bar(page, names[2])
    drop(page, ".pad", images[4], "paste")
    first_bar(page, names[4])
    for number in (7, 1, 7):  # the same file again, after another
        Image.fromarray(images[number]).save(tmp_path / f"{number}.png")
        page.set_input_files(".file", tmp_path / f"{number}.png")
        first_bar(page, names[number])
    drop(page, ".pad", b"no image", kind="text/plain")
    page.wait_for_function("document.querySelector('.status').innerText.includes('is not an image')")
    drop(page, ".pad", None)
    page.wait_for_function("document.querySelector('.status').innerText.includes('no links')")


@pytest.mark.slow
def test_a_drawing_changes_the_answer(page):
    before = bars(page)
    page.click(".clear")
    box = page.locator(".pad").bounding_box()
    page.mouse.move(box["x"] + 40, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 180, box["y"] + 160, steps=8)
    page.mouse.up()
    page.wait_for_timeout(600)
    assert bars(page) != before


@pytest.mark.slow
def test_everything_can_be_done_with_the_keyboard(page, page_folder, tmp_path):
    _, _, images, names = page_folder
    order = []
    page.focus(".pad")
    for _ in range(40):
        order.append(
            page.evaluate("document.activeElement.className || document.activeElement.parentElement.className")
        )
        page.keyboard.press("Tab")
    stops = ["pad", "colour", "brush", "clear", "file", "names", "template", "query", "like"]
    assert order[: len(stops)] == stops, "ten colours are one stop, as radio buttons are"
    Image.fromarray(images[5]).save(tmp_path / "five.png")
    page.focus(".pad")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(tmp_path / "five.png")
    first_bar(page, names[5])
    page.focus(".colour[aria-checked=true]")
    for key, colour in (("ArrowRight", "orange"), ("ArrowLeft", "red"), ("End", "white"), ("ArrowDown", "black")):
        page.keyboard.press(key)
        assert page.locator(".colour[aria-checked=true]").get_attribute("title") == colour
        assert page.evaluate("document.activeElement.title") == colour, "the focus goes along"
    page.focus(".names")
    page.keyboard.press("Control+A")
    page.keyboard.type(f"{names[5]}\n{names[0]}")
    page.wait_for_function("document.querySelectorAll('.bar').length === 2")
    first_bar(page, names[5])
    page.keyboard.press("Control+A")
    page.keyboard.press("Delete")
    page.wait_for_function("document.querySelector('.bars').innerText === 'Write names for the image, one a line.'")
    page.focus(".query")
    page.keyboard.press("Escape")
    shown = "[...document.querySelectorAll('.found figcaption')].map((one) => one.innerText)"
    page.wait_for_function(f"JSON.stringify({shown}) === '{json.dumps(names, separators=(',', ':'))}'")
    assert page.input_value(".query") == "", "Escape empties the question, and the album stands there as it is"
    thumbnail = page.locator(".found button").first
    thumbnail.focus()
    ring = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert ring == "solid", "where the keyboard is can be seen"
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('.status').innerText.includes('ms an image')")


def test_the_widgets_style_touches_nothing_around_it():
    """In a notebook it is a style of the whole page: each of its rules begins with the playground's own class."""
    text = re.sub(r"/\*.*?\*/", "", (playground.WEB / "style.css").read_text("utf-8"), flags=re.S)
    rules = [
        rule.partition("{")[0] for rule in re.split(r"(?<=[{};])", text.replace("@media", "\n@media")) if "{" in rule
    ]
    selectors = [one.strip() for rule in rules if "@media" not in rule for one in rule.split(",")]
    assert len(selectors) > 20
    assert [one for one in selectors if not one.startswith(".playground")] == []


@pytest.mark.slow
def test_the_page_says_what_to_do_when_it_is_opened_as_a_file(browser, page_folder):
    page = browser.new_page()
    page.goto((page_folder[0] / "page" / "index.html").as_uri())
    assert "Start a local server" in page.inner_text("#note")
    page.close()


@pytest.mark.slow
def test_the_page_asks_nobody_else(page, page_folder):
    """Everything comes from the folder: nothing that it loaded has another address, and none stands in its files."""
    loaded = page.evaluate("performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert any(name.endswith(".wasm") for name in loaded)
    assert all(name.startswith((page.url, "blob:", "data:")) for name in loaded)
    for file in (page_folder[0] / "page").iterdir():
        if file.suffix in (".html", ".css", ".mjs"):
            assert "://" not in file.read_text("utf-8").replace("http://127.0.0.1:8000/", "")


@pytest.mark.slow
def test_the_notebooks_widget_shows_the_same(browser, page_folder, tmp_path):
    """As JupyterLab does it: the widget's module gets the kernel's values as plain data and views of bytes."""
    pytest.importorskip("anywidget")
    folder, _, images, names = page_folder
    album = [playground.Picture(names[0], images[0])]
    view = playground.widget(folder / "towers", runtime(), album, playground.Start("conv", tuple(names)))
    (tmp_path / "widget.mjs").write_text(view._esm, "utf-8")
    for name in ("image", "text", "runtime", "wasm"):
        (tmp_path / name).write_bytes(getattr(view, name))
    rest = {"config": view.config, "tokenizer": view.tokenizer, "album": view.album}
    (tmp_path / "rest.json").write_text(json.dumps(rest), "utf-8")
    (tmp_path / "index.html").write_text(
        """<div id="el"></div><script type="module">
        import widget from "./widget.mjs";
        const values = await (await fetch("rest.json")).json();
        for (const name of ["image", "text", "runtime", "wasm"])
          values[name] = new DataView(await (await fetch(name)).arrayBuffer());
        await widget.render({ model: { get: (name) => values[name] }, el: document.getElementById("el") });
        </script>""",
        "utf-8",
    )
    with playground.server(tmp_path, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{server.server_address[1]}/")
        page.wait_for_selector("#el[data-ready=yes]", timeout=60_000)
        found = bars(page)
        assert not drop(page, ".pad", images[3])
        first_bar(page, names[3])
        page.fill(".names", f"{names[3]}\n{names[1]}")
        page.wait_for_function("document.querySelectorAll('.bar').length === 2")
        assert page.get_attribute("#el", "data-lm-suppress-shortcuts") == "true", "keys are not JupyterLab's commands"
        page.close()
        server.shutdown()
    assert max(found, key=found.get) == names[0]
    assert sum(found.values()) == pytest.approx(100, abs=0.5)


def test_wrong_requests_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="write the playground first"):
        playground.server(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"make playground"):
        playground.check_runtime(tmp_path)
    with pytest.raises(ValueError, match="holds no image that can be read"):
        playground.folder_album(tmp_path)


def test_albums_begin_with_what_they_show(tmp_path):
    pictures, start = playground.drawn_album(World(names=12, max_objects=2), count=14)
    assert len(pictures) == 14
    assert [picture.name for picture in pictures[:8]] == list(start.names)
    assert "OpenMoji" in start.credit
    for number in range(3):
        Image.new("RGB", (9, 9), "red").save(tmp_path / f"r{number}.png")
    (tmp_path / "x.png").write_bytes(b"no image")
    pictures, _ = playground.folder_album(tmp_path, count=2)
    assert [picture.name for picture in pictures] == ["r0", "r1"]
