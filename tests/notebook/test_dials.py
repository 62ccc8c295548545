"""Every dial of the course answers within half a second of work, with the embedded models and the notebooks' own cells.

`pytest -s tests/notebook/test_dials.py` prints each dial's median and worst answer. What is bounded is CPU time of one
thread: beside other work, seconds on the clock say more about that work. A slower machine has longer, by as much as it
takes longer for a piece of work of the same kinds (`slowness`).
"""

from __future__ import annotations

import ast
import gc
import io
import json
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from mobileclip2_lite import emoji_world, notebook, recipes
from mobileclip2_lite.notebook import dials, naming, targets

pytest.importorskip("ipywidgets")

ROOT = Path(__file__).resolve().parents[2]
BOUND = 0.5
"""Seconds that a reader waits at most."""
WORLD = recipes.lite().world
THINGS = [f"thing {number}" for number in range(520)]


UNIT = 0.18
"""CPU seconds of `slowness`'s work on one quiet core of the machine that the bound was set on (lab log)."""


def slowness() -> float:
    """How many times as long as the bound's machine this one takes at present, beside all that runs; at least 1."""
    rng = np.random.default_rng(0)
    pixels = Image.fromarray(rng.integers(0, 255, (2_000, 2_000, 3), dtype=np.uint8))
    rows = torch.from_numpy(rng.normal(size=(700, 700)))
    took = []
    for _ in range(3):
        began = time.process_time()
        pixels.resize((224, 224), Image.Resampling.BICUBIC)
        for _ in range(4):
            rows @ rows
        sum(len(f"{number:,}") for number in range(200_000))
        took.append(time.process_time() - began)
    return max(1.0, statistics.median(took) / UNIT)


def turned(name: str, control, values, view) -> None:
    """Set a control to each of some values, print how long the answers took, and hold them to the bound."""
    control.value = values[0]  # the first answer loads what all others find
    wall, cpu, slow = [], [], slowness()
    for value in values[1:]:
        before, began = picture_of(view), (time.perf_counter(), time.process_time())
        control.value = value
        wall.append(time.perf_counter() - began[0])
        cpu.append(time.process_time() - began[1])
        assert picture_of(view) != before, f"{name}: turned to {value!r:.40} and nothing changed"
    clock = f"clock {statistics.median(wall):.2f}, worst {max(wall):.2f} s"
    print(f"{name}: {clock}; CPU {statistics.median(cpu):.2f}, worst {max(cpu):.2f} s, {len(cpu)} turns")
    bound = BOUND * max(slow, slowness())  # what runs beside comes and goes while a dial is turned
    said = f"{name} takes {statistics.median(cpu):.2f} s, at worst {max(cpu):.2f} of {bound:.2f}: embed or draw less"
    assert statistics.median(cpu) < bound, said
    assert max(sorted(cpu)[:-1]) < 2 * bound, said  # any single turn may meet Python's collector, or a busy machine


def picture_of(view) -> object:
    """What a reader sees: the bytes of an image, or of the images in a box."""
    return view.value if hasattr(view, "value") else [cell.children[0].value for cell in view.children]


@pytest.fixture
def shown(monkeypatch) -> list:
    """The widgets that a notebook would show."""
    widgets: list = []
    monkeypatch.setattr("IPython.display.display", lambda *_, **__: None)
    for module in (dials, naming, targets):
        monkeypatch.setattr(module, "in_notebook", lambda: True)
        monkeypatch.setattr(module, "show_widget", lambda widget, what: widgets.append(widget))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # what a thousand tests before have left is no part of a reader's wait
    yield widgets
    gc.unfreeze()
    torch.set_num_threads(threads)


def dials_of(stem: str) -> list[tuple[ast.stmt, str]]:
    """The statements of a notebook that show a dial, and their source."""
    cells = json.loads((ROOT / "notebooks" / f"{stem}.ipynb").read_text("utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return [
        (node, source)
        for source in sources
        if "notebook.dial(" in source
        for node in ast.parse(source).body
        if any(isinstance(part, ast.Attribute) and part.attr == "dial" for part in ast.walk(node))
    ]


def numbers_of_08() -> dict:
    rng = np.random.default_rng(0)
    true, false = rng.normal(0.56, 0.2, 1_440).tolist(), rng.normal(0, 0.2, 560).tolist()
    cuts = {keep: float(np.quantile(true + false, 1 - keep)) for keep in (0.95, 0.7, 0.5, 0.3, 0.15)}
    look = {"bins": 35, "range": (-0.75, 1.0), "edgecolor": "white"}
    return {"true": true, "false": false, "cuts": cuts, "look": look}


def numbers_of_10() -> dict:
    return {"labels_of": [f"a picture of thing {k}" for k in range(8)], "cosines": torch.linspace(0.1, 0.6, 8)}


def numbers_of_21() -> dict:
    from mobileclip2_lite.captioning import stage as captioning
    from mobileclip2_lite.models.embedded import load_captioner
    from mobileclip2_lite.studies import captions as caption_figures

    one, picture = load_captioner("lite-captioner-short"), Image.fromarray(drawings(1)[0])
    words, chances = caption_figures.next_words(one, picture, "a")
    at, true = {}, {}
    for temperature in (0.25, 0.5, 0.75, 1.0, 1.25, 1.5):
        settings = recipes.Generate(temperature=temperature, top_p=1.0)
        at[temperature] = [[c.text for c in own] for own in captioning.caption_pictures(one, [picture], settings)]
        true[temperature] = [True] * len(at[temperature][0])
    known = {"caption_figures": caption_figures, "words": words, "chances": chances}
    return known | {"at": at, "true": true, "images": [picture], "busy": 0}


def numbers_of_35() -> dict:
    cropped, distorted = {a: ("crop", a) for a in (0.9, 0.5, 0.25, 0.08)}, {m: m for m in (0, 3, 9, 15, 22, 30)}
    rng, looks = np.random.default_rng(0), [*cropped.values(), *distorted.values()]
    tiles = {look: rng.integers(0, 255, (128, 256, 3), dtype=np.uint8) for look in looks}
    return {"cropped": cropped, "distorted": distorted, "tiles": tiles, "alike": {look: [0.5] for look in looks}}


def numbers_of_50() -> dict:
    sizes = [128, 192, 256, 384, 512, 768, 1024]
    stages = {s: [SimpleNamespace(name=f"stage{k}", flops=s * s * k * 1e4) for k in range(1, 6)] for s in sizes}
    return {"sizes": sizes, "counted": stages}


def drawings(count: int) -> list[np.ndarray]:
    return [emoji_world.render(emoji_world.scene(WORLD, "dial", number), 128) for number in range(count)]


@pytest.mark.parametrize(
    ("stem", "numbers", "count"),
    [
        ("08_filter", numbers_of_08, 1),
        ("10_teacher_ensemble", numbers_of_10, 1),
        pytest.param("21_caption_diversity", numbers_of_21, 2, marks=pytest.mark.slow),  # it writes captions first
        ("35_reinforce", numbers_of_35, 2),
        ("50_architecture_and_latency", numbers_of_50, 1),
    ],
)
def test_a_notebooks_own_slider_is_turned_in_time(stem, numbers, count, shown):
    names = {"notebook": notebook, "np": np, **numbers()}
    for node, source in dials_of(stem):
        exec(compile(ast.Module([node], []), stem, "exec"), names)  # our own tracked cell
        assert "notebook.dial(" in source
    assert len(shown) == count
    for widget in shown:
        slider, view = widget.children
        turned(f"{stem[:2]}, {slider.description}", slider, [slider.options[1], *slider.options], view)


def upload(picture: Image.Image, form: str = "JPEG") -> tuple:
    """What a browser sends."""
    data = io.BytesIO()
    picture.save(data, form)
    file = {"name": "own", "type": "image/*", "size": 1, "last_modified": datetime(2026, 1, 1, tzinfo=UTC)}
    return ({**file, "content": memoryview(data.getvalue())},)


def test_the_playground_of_05_answers_in_time(shown):
    from mobileclip2_lite.models.teachers import load_teachers

    teacher = load_teachers(("lite-teacher-conv",)).loaded("lite-teacher-conv")
    notebook.naming_box(teacher, drawings(6), ", ".join(THINGS[:6]), emoji_world.TEMPLATES)
    line, row, said, view = shown[0].children
    which, own = row.children
    turned("05, another image", which, [1, 2, 3, 4, 5, 0], view)
    turned("05, names never asked about", line, [", ".join(THINGS[k : k + 6]) for k in range(10, 52, 6)], view)
    many = [", ".join(THINGS[k:][: naming.MOST_NAMES]) for k in (60, 210, 360)]
    turned("05, as many names as may be", line, ["a, b", *many], view)
    line.value = ", ".join(THINGS[:6])
    rng = np.random.default_rng(0)
    large = [Image.fromarray(np.kron(rng.integers(0, 255, (75, 100, 3), np.uint8), np.ones((40, 40, 1), np.uint8)))]
    large.append(large[0].rotate(180))
    turned("05, twelve megapixels of one's own", own, [upload(one) for one in (large[0].resize((9, 9)), *large)], view)
    assert said.value == ""


def test_the_teachers_of_10_answer_in_time(shown):
    from mobileclip2_lite.models.teachers import load_teachers

    ensemble = load_teachers(recipes.lite().reinforce.teachers)
    notebook.targets_box(ensemble, drawings(6), [f"a picture of {thing}" for thing in THINGS[:6]])
    first, second, lines, _, said, view = shown[0].children
    turned("10, a weight", first.children[0], [0.1, 0.5, 0.0, 0.9], view)
    turned("10, a scale", second.children[1], [2.0, 10.0, 50.0, 200.0], view)
    batches = [THINGS[20 + targets.MOST * k :][: targets.MOST] for k in range(4)]
    turned("10, twelve texts never asked about", lines, ["\n".join(batch) for batch in batches], view)
    assert said.value == ""


@pytest.mark.slow
def test_the_search_of_60_answers_in_time(shown, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from mobileclip2_lite.deployment.export import export_onnx
    from mobileclip2_lite.deployment.runtime import load_exported
    from mobileclip2_lite.deployment.search import build_index
    from mobileclip2_lite.models.teachers import load_teachers

    export_onnx(load_teachers(("lite-teacher-conv",)).loaded("lite-teacher-conv"), tmp_path / "towers")
    (tmp_path / "album").mkdir()
    for number, pixels in enumerate(drawings(60)):
        Image.fromarray(pixels).save(tmp_path / "album" / f"{number:03d}.png")
    index = build_index(tmp_path / "album", load_exported(tmp_path / "towers", threads=1), workers=1)
    notebook.search_box(index, "a picture of a cat")
    box, view = shown[0].children
    turned("60, other words", box, [f"a picture of a {name}" for name in ("dog", "tree", "car", "pill", "tram")], view)
