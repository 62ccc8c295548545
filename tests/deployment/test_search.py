"""Search: finds what is there, embeds only what is new, survives a kill."""

from __future__ import annotations

import dataclasses
import os
import re
import sys
import time
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image, ImageOps

from mobileclip2_lite.deployment import embedding, index_parts, near_duplicates, search
from mobileclip2_lite.deployment.image_files import Entry, open_image
from mobileclip2_lite.deployment.runtime import Exported
from mobileclip2_lite.deployment.search import build_index
from mobileclip2_lite.models.preprocess import Preprocess
from mobileclip2_lite.reports.search import write_search_page
from mobileclip2_lite.views.decoding import BadImage

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
    assert both[0].score == pytest.approx(0.5**0.5, abs=1e-4), "neither shows both"
    with pytest.raises(ValueError, match="a text, an image, or both"):
        index.search()


def test_unreadable_files_are_counted_by_reason(folder):
    index = build_index(folder, Towers().model)
    assert sum(index.dropped.values()) == 1
    assert index.dropped == {"not_an_image": 1} or index.dropped == {"broken_image": 1}
    assert index.unread == [("broken.jpg", next(iter(index.dropped)))]


def test_a_score_is_the_cosine_with_the_query_whatever_was_asked(folder):
    Image.new("RGB", (9, 9), (200, 200, 0)).save(folder / "yellow.png")
    index = build_index(folder, Towers().model)
    best = index.search("red", image=Image.new("RGB", (4, 4), COLOURS["green"]), top=1)[0]
    assert best.path.name == "yellow.png", "red and green light"
    assert best.score == pytest.approx(1, abs=1e-4)
    assert [hit.path.name for hit in index.search(["red", "green"], top=1)] == ["yellow.png"]
    assert index.search(["red", " ", "green"], top=1)[0].score == pytest.approx(1, abs=1e-4)


def test_what_shall_not_fit_goes_down(folder):
    Image.new("RGB", (9, 9), (200, 100, 0)).save(folder / "orange.png")
    Image.new("RGB", (9, 9), (200, 0, 100)).save(folder / "rose.png")
    index = build_index(folder, Towers().model)
    names = lambda **asked: [hit.path.name for hit in index.search("red", **asked)]  # noqa: E731
    assert {"orange.png", "rose.png"} == set(names(top=4)[2:])
    assert names(without="blue").index("orange.png") < names(without="blue").index("rose.png")
    assert names(without=["green"]).index("rose.png") < names(without=["green"]).index("orange.png")
    assert names(without=" ") == names()


def test_images_that_are_the_same_are_found_in_groups(folder):
    index = build_index(folder, Towers().model)
    groups = index.duplicates(0.999, block=2)
    assert [{path.name.split()[0] for path in group} for group in groups] == [{"blue"}, {"green"}, {"red"}]
    assert groups == index.duplicates(0.999)
    assert all(a.stat().st_size >= b.stat().st_size for a, b in groups)
    assert index.duplicates(1.1) == []
    assert len(index.duplicates(-1.0)) == 1


def test_a_chain_of_like_images_is_one_group_and_many_copies_take_no_longer():
    angles = np.radians([0, 10, 20, 90, 30, 180])
    features = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    entries = [Entry(name, size, 0) for name, size in zip("abcdef", (1, 1, 9, 1, 1, 1), strict=True)]
    for block in (1, 2, 6):
        found = near_duplicates.groups(entries, features, np.cos(np.radians(11)), block)
        assert ["".join(entry.name for entry in group) for group in found] == ["cabe"]
    copies = [Entry(f"{number:04d}", 1, 0) for number in range(4_000)]
    start = time.process_time()
    assert len(near_duplicates.groups(copies, np.tile(features[:1], (4_000, 1)), 0.999)[0]) == 4_000
    assert time.process_time() - start < 5, "eight million pairs, none of them looked at by itself"


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_links_are_followed_once_and_broken_ones_counted(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    Image.new("RGB", (5, 5), "red").save(other / "linked.png")
    (folder / "link").symlink_to(other)
    (folder / "loop").symlink_to(folder)
    (folder / "gone.jpg").symlink_to(folder / "nothing.jpg")
    (folder / "itself.jpg").symlink_to(folder / "itself.jpg")
    (folder / "one").symlink_to(folder / "two")
    (folder / "two").symlink_to(folder / "one")
    (folder / "file.png").symlink_to(other / "linked.png")
    index = build_index(folder, Towers().model)
    assert len(index.entries) == 8
    assert {"link/linked.png", "file.png"} <= {entry.name for entry in index.entries}
    assert index.dropped["broken_link"] == 2
    assert [name for name, reason in index.unread if reason == "broken_link"] == ["gone.jpg", "itself.jpg"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_name_that_is_not_utf8_is_found_again(folder):
    path = os.fsencode(folder) + b"/caf\xe9.png"
    with open(path, "wb") as file:
        Image.new("RGB", (5, 5), "red").save(file, "PNG")
    for _ in range(2):
        index = build_index(folder, Towers().model)
        assert os.fsencode(index.search("red", top=9)[0].path.parent) == os.fsencode(folder)
        assert path in {os.fsencode(hit.path) for hit in index.search("red", top=9)}
    assert index.embedded == 0


def test_exif_turns_an_image_as_viewers_do(tmp_path):
    image = Image.new("RGB", (16, 8), "blue")
    image.paste((255, 0, 0), (0, 0, 8, 8))
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        image.save(tmp_path / "x.png", exif=exif.tobytes())
        with Image.open(tmp_path / "x.png") as opened:
            wanted = ImageOps.exif_transpose(opened).convert("RGB")
        found = open_image(tmp_path / "x.png")
        assert found.size == wanted.size
        assert found.tobytes() == wanted.tobytes()
    data = (tmp_path / "x.png").read_bytes()
    (tmp_path / "x.png").write_bytes(data.replace(b"II*", b"I?*").replace(b"MM\0*", b"M?\0*"))
    with pytest.raises(BadImage):
        open_image(tmp_path / "none.png")


def test_many_threads_give_what_one_gives(folder, monkeypatch):
    for number in range(40):
        Image.new("RGB", (7, 7), (number, 5 * number, 99)).save(folder / f"many{number}.png")
    one = build_index(folder, Towers().model, folder / "a", batch_size=3, workers=1)
    many = build_index(folder, Towers().model, folder / "b", batch_size=4, workers=5)
    assert one.entries == many.entries
    np.testing.assert_allclose(one.features, many.features, atol=1e-7)
    assert (one.dropped, many.dropped) == ({"not_an_image": 1},) * 2 or one.dropped == many.dropped


def test_features_are_mapped_and_a_small_change_does_not_write_all_again(folder, monkeypatch):
    for number in range(60):
        Image.new("RGB", (7, 7), (number, 99, 99)).save(folder / f"many{number:02d}.png")
    build_index(folder, Towers().model)
    again = build_index(folder, Towers().model)
    assert isinstance(again.features, np.memmap)
    parts = sorted((folder / search.INDEX).rglob("part-*"))
    assert len(parts) == 1
    written = parts[0].stat().st_mtime_ns
    Image.new("RGB", (7, 7), "red").save(folder / "aaa.png")
    changed = build_index(folder, Towers().model)
    assert changed.embedded == 1
    assert [entry.name for entry in changed.entries] == sorted(entry.name for entry in changed.entries)
    assert changed.search("red", top=1)[0].score == pytest.approx(1, abs=1e-4)
    assert parts[0].stat().st_mtime_ns == written
    assert len(list((folder / search.INDEX).rglob("part-*"))) == 2
    monkeypatch.setattr(index_parts, "MAX_PARTS", 1)
    build_index(folder, Towers().model)
    assert len(list((folder / search.INDEX).rglob("part-*"))) == 1


def test_a_search_over_fifty_thousand_images_takes_a_moment(tmp_path):
    """Many times what it takes, in seconds of this process alone; one that looks at images singly would not keep it."""
    random = np.random.default_rng(0).normal(size=(50_000, 256)).astype(np.float32)
    random /= np.linalg.norm(random, axis=1, keepdims=True)
    entries = [Entry(f"{number:05d}.jpg", 1, 1) for number in range(50_000)]
    index_parts.write_part(tmp_path, entries, random)
    start = time.process_time()
    stored = index_parts.read_parts(tmp_path)
    index = search.Index(tmp_path, Towers().model, stored.entries, stored.features)
    index.query = lambda *_: random[777]
    hits = index.search("x", top=5)
    assert time.process_time() - start < 2.5
    assert hits[0].path.name == "00777.jpg"
    wanted = np.argsort(-(random @ random[777]), kind="stable")[:5]
    assert [int(hit.path.stem) for hit in hits] == wanted.tolist()


def test_fewer_dimensions(folder):
    index = build_index(folder, Towers().model)
    assert {hit.path.name.split()[0] for hit in index.search("red", top=2, dimensions=2)} == {"red"}
    with pytest.raises(ValueError, match="4 dimensions of embeddings that have 3"):
        index.search("red", dimensions=4)


def test_a_model_for_which_all_images_are_alike_is_named(folder):
    """A student of few samples: features that hardly differ, of which a fixed cosine makes one group of everything."""
    index = build_index(folder, Towers().model)
    draw = np.random.default_rng(0)
    entries = [Entry(f"{n}.png", 1, 1) for n in range(40)]

    def of(apart: float) -> search.Index:
        rows = np.eye(1, 16) + apart * draw.normal(size=(40, 16))
        rows[7] = rows[3]
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return dataclasses.replace(index, entries=entries, features=rows)

    alike, known = of(0.02), of(1.0)
    assert len(alike.duplicates(0.95)[0]) == 40
    assert re.match(r"half of all pairs of these images have a cosine of 0\.99\d or more", alike.too_alike(0.95))
    assert known.too_alike(0.95) == ""
    assert [len(group) for group in known.duplicates(0.95)] == [2]
    assert dataclasses.replace(index, entries=entries[:2], features=alike.features[:2]).too_alike(0.95) == ""
    page = write_search_page(folder / "page.html", index, (), "", [], alike.too_alike(0.95)).read_text("utf-8")
    assert "tells no copies from others: take one far nearer to 1, or a model that knows such images." in page


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
    monkeypatch.setattr(embedding, "PART", 2)
    towers = Towers()
    write, calls = search.write_part, []

    def killed(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return write(*args)

    monkeypatch.setattr(search, "write_part", killed)
    with pytest.raises(KeyboardInterrupt):
        build_index(folder, towers.model, batch_size=1)
    monkeypatch.setattr(search, "write_part", write)
    resumed = build_index(folder, towers.model)
    done = 6 - resumed.embedded
    assert done >= 3
    assert len(resumed.entries) == 6
    parts = list((folder / search.INDEX).rglob("part-*"))
    assert len(parts) == 1, "compacted"
    parts[0].write_bytes(parts[0].read_bytes()[:50])
    assert build_index(folder, towers.model).embedded == 6, "a broken part is made again"


@pytest.mark.parametrize("error", [PermissionError(13, "not allowed"), OSError(30, "read-only file system")])
@pytest.mark.parametrize("step", ["mkdir", "write_part", "exported_folder"])
def test_where_the_index_may_not_be_written_the_error_says_where_to(folder, monkeypatch, step, error):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(Path if step == "mkdir" else search, step, refuse)
    with pytest.raises(OSError, match=r"can't be written.*name another place for the index \(index=, --index\)"):
        search.open_index(folder, "a model") if step == "exported_folder" else build_index(folder, Towers().model)


def test_models_do_not_share_an_index(folder):
    build_index(folder, Towers("a" * 64).model)
    assert build_index(folder, Towers("b" * 64).model).embedded == 6
    assert build_index(folder, Towers("a" * 64).model).embedded == 0


def test_empty_and_missing_folders(tmp_path):
    index = build_index(tmp_path, Towers().model)
    assert index.entries == []
    assert index.search("red") == []
    for index in (lambda folder: build_index(folder, Towers().model), search.open_index):
        with pytest.raises(FileNotFoundError, match="not a folder"):
            index(tmp_path / "none")
        assert not (tmp_path / "none").exists(), "a folder that is looked for is not made"


def test_widget_shows_what_the_text_finds(folder):
    pytest.importorskip("ipywidgets")
    from mobileclip2_lite.notebook import dials

    view = dials._search_widget(build_index(folder, Towers().model), "green", top=2, side=110)
    box, shown = view.children
    assert ["green" in cell.children[1].value for cell in shown.children] == [True, True]
    box.value = "blue"
    assert ["blue" in cell.children[1].value for cell in shown.children] == [True, True]
    box.value = " "
    assert [cell.value for cell in shown.children] == ["Type what to look for, and press Enter."]
    for file in folder.rglob("*blue*"):
        file.unlink()
    box.value = "blue"
    (said,) = shown.children
    assert "build the index again" in said.value, "an image that is gone is answered in words"


def test_one_call_exports_once_and_searches(folder, monkeypatch):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from mobileclip2_lite.deployment import export, towers
    from mobileclip2_lite.models.zoo import create_model, save_model

    model = save_model(create_model("lite-mci-s"), folder / ".model")
    hits, index = search.search_folder(folder, "a cat", model=str(model), top=3, progress=False)
    assert len(hits) == 3
    assert index.embedded == 6
    monkeypatch.setattr(export, "export_onnx", None)  # not needed again
    monkeypatch.setattr(towers, "_export", None)  # nor is the model built or hashed
    hits, index = search.search_folder(folder, image=hits[0].path, model=str(model), top=1, progress=False)
    assert hits[0].score == pytest.approx(1, abs=1e-4)
    assert index.embedded == 0
    monkeypatch.undo()
    with pytest.raises(ValueError, match="weights would be random"):
        search.search_folder(folder, "x", model="lite-mci-s")
    with pytest.raises(ValueError, match="a text, an image, or both"):
        search.search_folder(folder)


# --- the command and the page ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def towers(tmp_path_factory):
    """Exported towers of an embedded teacher."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from mobileclip2_lite.deployment.export import export_onnx
    from mobileclip2_lite.models.embedded import data_folder
    from mobileclip2_lite.models.zoo import create_model

    folder = tmp_path_factory.mktemp("towers")
    export_onnx(create_model(data_folder() / "teachers" / "lite-teacher-conv"), folder)
    return folder


def test_the_command_searches_writes_a_page_and_says_what_it_could_not_read(folder, towers, tmp_path_factory, capsys):
    from mobileclip2_lite.cli import main

    away = tmp_path_factory.mktemp("away")
    words = ["search", str(folder), "a red square", "--model", str(towers), "--index", str(away / "index")]
    main([*words, "--top", "3", "--html", str(away / "page" / "found.html"), "--duplicates", "--least", "0.9999"])
    said = capsys.readouterr().out
    assert said.count(".png") >= 3
    assert "6 images in the index" in said
    assert "  not read: broken.jpg (not_an_image)" in said or "  not read: broken.jpg (broken_image)" in said
    assert "the same:" in said
    assert not (folder / search.INDEX).exists(), "the index lies where it was asked for"
    page = (away / "page" / "found.html").read_text("utf-8")
    assert page.count("data:image/jpeg") > 3
    link = re.search(r'<a href="([^"]+)"><img', page)[1]
    assert (away / "page" / unquote(link)).resolve().is_file(), "a thumbnail leads to its file"
    assert "Not read" in page
    assert "broken.jpg" in page
    assert "deep/er/green ünï 1.png" in page, "two files of one name in two folders are told apart"
    main([*words[:2], *words[3:], "--duplicates", "--least", "1.1", "--html", str(away / "none.html")])
    assert "no two images are the same: none have a cosine of 1.1 or more (--least)" in capsys.readouterr().out
    page = (away / "none.html").read_text("utf-8")
    assert "<h1>Images that are the same</h1>" in page
    assert "No two images are the same" in page
    with pytest.raises(SystemExit):
        main([*words[:2], *words[3:], "--image", str(folder / "broken.jpg")])
    assert f"error: {folder / 'broken.jpg'}: " in capsys.readouterr().err, "of several images the broken one is named"
    main([*words[:2], "--model", str(towers), "--image", str(folder / "red ünï 0.png"), "--without", "blue"])
    assert "1.000  " not in capsys.readouterr().out, "a query with something taken away is met by nothing wholly"
    with pytest.raises(SystemExit):
        main(["search", str(folder)])


def test_a_page_shows_names_that_are_no_utf8(tmp_path):
    index = search.Index(tmp_path, Towers().model, [], np.zeros((0, 0), np.float32))
    hit = search.Hit(tmp_path / os.fsdecode(b"caf\xe9 <b>.png"), 0.5)
    page = write_search_page(tmp_path / "page.html", index, [hit], "x").read_text("utf-8")
    assert "caf\\xe9 &lt;b&gt;.png (no_image)" in page
    assert 'href="caf%E9%20%3Cb%3E.png"' in page
