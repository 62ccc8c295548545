"""Search: finds what is there, embeds only what is new, survives a kill."""

from __future__ import annotations

import os

import numpy as np
import pytest
from PIL import Image

from mobileclip2_lite.deployment import search
from mobileclip2_lite.deployment.runtime import Exported
from mobileclip2_lite.deployment.search import build_index
from mobileclip2_lite.models.preprocess import Preprocess

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


class Towers:
    """Stand-ins whose features can be checked by eye: an image's mean colour, a text's named colour."""

    def __init__(self, key="a" * 64):
        self.seen = 0
        preprocess = Preprocess(8, (0.0,) * 3, (1.0,) * 3, "bilinear", "squash")
        self.model = Exported(self.pixels, self.tokens, preprocess, self.tokenize, 10.0, key)

    def pixels(self, batch):
        self.seen += len(batch)
        mean = batch.mean((2, 3)) + 1e-6
        return mean / np.linalg.norm(mean, axis=1, keepdims=True)

    def tokens(self, batch):
        return np.asarray([COLOURS[list(COLOURS)[row[0]]] for row in batch], np.float32) / 255

    def tokenize(self, texts):
        import torch

        return torch.tensor([[next(i for i, name in enumerate(COLOURS) if name in text)] for text in texts])


@pytest.fixture
def folder(tmp_path):
    for name, colour in COLOURS.items():
        for number in range(2):
            path = tmp_path / ("deep/er" if number else ".") / f"{name} ünï {number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20 + number, 10), colour).save(path)
    (tmp_path / ".hidden").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / ".hidden" / "x.png")
    (tmp_path / "notes.txt").write_text("red", "utf-8")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8nothing")
    return tmp_path


def test_finds_by_text_by_image_and_by_both(folder):
    index = build_index(folder, Towers().model)
    assert len(index.entries) == 6
    for name in COLOURS:
        hits = index.search(f"something {name}", top=2)
        assert {hit.path.name.split()[0] for hit in hits} == {name}
        assert hits[0].score == pytest.approx(1, abs=1e-4)
    hits = index.search(image=Image.new("RGB", (5, 5), (0, 0, 200)), top=2)
    assert {hit.path.name.split()[0] for hit in hits} == {"blue"}
    assert index.search(image=folder / "red ünï 0.png", top=1)[0].path.name.startswith("red")
    both = index.search("red", image=folder / "blue ünï 0.png", top=4)
    assert {hit.path.name.split()[0] for hit in both} == {"red", "blue"}
    with pytest.raises(ValueError, match="a text, an image, or both"):
        index.search()


def test_unreadable_files_are_counted_by_reason(folder):
    index = build_index(folder, Towers().model)
    assert sum(index.dropped.values()) == 1
    assert next(iter(index.dropped)).startswith("UnidentifiedImageError")


def test_only_new_and_changed_images_are_embedded(folder):
    towers = Towers()
    assert build_index(folder, towers.model).embedded == 6
    assert towers.seen == 6
    again = build_index(folder, towers.model)
    assert (again.embedded, again.removed, towers.seen) == (0, 0, 6)
    Image.new("RGB", (20, 10), COLOURS["blue"]).save(folder / "red ünï 0.png")
    os.utime(folder / "red ünï 0.png", ns=(1, 1))
    (folder / "deep/er/green ünï 1.png").unlink()
    Image.new("RGB", (3, 3), (250, 5, 5)).save(folder / "new.webp")
    third = build_index(folder, towers.model)
    assert (third.embedded, third.removed, towers.seen) == (2, 2, 8)
    assert [entry.name for entry in third.entries] == sorted(entry.name for entry in third.entries)
    fresh = build_index(folder, Towers().model, folder / "elsewhere")
    names = [entry.name for entry in fresh.entries]
    assert set(names) == {entry.name for entry in third.entries}
    for entry, row in zip(third.entries, third.features, strict=True):
        np.testing.assert_array_equal(row, fresh.features[names.index(entry.name)])


def test_a_kill_loses_at_most_one_part(folder, monkeypatch):
    monkeypatch.setattr(search, "PART", 2)
    towers = Towers()
    write, calls = search._write_part, []

    def killed(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return write(*args)

    monkeypatch.setattr(search, "_write_part", killed)
    with pytest.raises(KeyboardInterrupt):
        build_index(folder, towers.model)
    monkeypatch.setattr(search, "_write_part", write)
    resumed = build_index(folder, towers.model)
    done = 6 - resumed.embedded
    assert done >= 3
    assert len(resumed.entries) == 6
    parts = list((folder / search.INDEX).rglob("part-*"))
    assert len(parts) == 1, "compacted"
    parts[0].write_bytes(parts[0].read_bytes()[:50])
    assert build_index(folder, towers.model).embedded == 6, "a broken part is made again"


def test_models_do_not_share_an_index(folder):
    build_index(folder, Towers("a" * 64).model)
    assert build_index(folder, Towers("b" * 64).model).embedded == 6
    assert build_index(folder, Towers("a" * 64).model).embedded == 0


def test_empty_and_missing_folders(tmp_path):
    index = build_index(tmp_path, Towers().model)
    assert index.entries == []
    assert index.search("red") == []
    with pytest.raises(FileNotFoundError, match="not a folder"):
        build_index(tmp_path / "none", Towers().model)


def test_widget_shows_what_the_text_finds(folder):
    pytest.importorskip("ipywidgets")
    view = search.widget(build_index(folder, Towers().model), "green", top=2)
    box, shown = view.children
    assert ["green" in cell.children[1].value for cell in shown.children] == [True, True]
    box.value = "blue"
    assert ["blue" in cell.children[1].value for cell in shown.children] == [True, True]
    box.value = " "
    assert shown.children == ()


def test_one_call_exports_once_and_searches(folder, monkeypatch):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from mobileclip2_lite.deployment import export
    from mobileclip2_lite.models.zoo import create_model, save_model

    model = save_model(create_model("lite-mci-s"), folder / ".model")
    hits, index = search.search_folder(folder, "a cat", model=str(model), top=3, progress=False)
    assert len(hits) == 3
    assert index.embedded == 6
    monkeypatch.setattr(export, "export_onnx", None)  # not needed again
    hits, index = search.search_folder(folder, image=hits[0].path, model=str(model), top=1, progress=False)
    assert hits[0].score == pytest.approx(1, abs=1e-4)
    assert index.embedded == 0
    with pytest.raises(ValueError, match="no trained weights"):
        search.search_folder(folder, "x", model="lite-mci-s")
    with pytest.raises(ValueError, match="a text, an image, or both"):
        search.search_folder(folder)
