"""The study on photographs, on images that a test can make: what is held out, what an arm reads, what is counted."""

from __future__ import annotations

import csv
import dataclasses
import io

import numpy as np
import pytest
from doubles.fake_teachers import FakeTeachers
from PIL import Image

from mobileclip2_lite.models.zoo import create_model
from mobileclip2_lite.recipes import Augment, Reinforce
from mobileclip2_lite.reinforcement.stage import reinforce
from mobileclip2_lite.studies import intervals, photo_teachers, photographs, recorded
from mobileclip2_lite.work.folder import read_manifest

COUNT, HELD_OUT = 14, 4


def image(number: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (30, 40, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Captioned and named images, prepared."""
    root = tmp_path_factory.mktemp("photographs")
    for kind in ("captioned", "named"):
        (root / kind).mkdir()
    rows = []
    for n in range(COUNT):
        (root / "captioned" / f"{n}.jpg").write_bytes(image(n))
        rows += [(f"{n}.jpg", f"caption {k} of {n}") for k in range(3)]
        (root / "named" / f"n0{n}_thing_{n}.JPEG").write_bytes(image(100 + n))
    with open(root / "captioned" / "captions.csv", "w", newline="") as file:
        csv.writer(file).writerows([("image", "caption"), *rows])
    return photographs.prepare(str(root / "captioned"), [root / "named"], root / "work", HELD_OUT, 3)


def texts(folder) -> set[str]:
    return {text for sample in photographs.samples(folder) for text in sample.texts}


def test_nothing_that_is_held_out_is_read(folders):
    assert read_manifest(folders["test"])["samples"] == HELD_OUT
    assert read_manifest(folders["names"])["samples"] == 3
    read = texts(folders["train"])
    assert not read & (texts(folders["test"]) | texts(folders["names"]))
    assert len(read) == 3 * (COUNT - HELD_OUT) + COUNT - 3
    assert texts(folders["fit"]) < read
    images = [{sample.image for sample in photographs.samples(folders[part])} for part in ("train", "test", "names")]
    assert not images[0] & (images[1] | images[2])


def test_the_control_reads_one_caption_an_image_of_the_same_images(folders):
    one, all_of_them = (list(photographs.samples(folders[part])) for part in ("one", "train"))
    assert [sample.uid for sample in one] == [sample.uid for sample in all_of_them]
    assert all(sample.texts == [full.texts[0]] for sample, full in zip(one, all_of_them, strict=True))


def test_prepared_folders_are_found_again(folders, tmp_path):
    root = folders["test"].parent
    keys = {part: read_manifest(folder)["key"] for part, folder in folders.items()}
    again = photographs.prepare(str(root.parent / "captioned"), [root.parent / "named"], root, HELD_OUT, 3)
    assert {part: read_manifest(folder)["key"] for part, folder in again.items()} == keys


def test_hits_are_those_of_the_measures(folders):
    loaded = create_model("lite-mci-s")
    found = photographs.hits(loaded, folders)
    expected = photo_teachers.recalls(loaded, folders["test"], (1, 10))
    for measure in ("i2t_r1", "t2i_r1", "i2t_r10"):
        one = found[measure]
        assert intervals.unpack(one["hits"], one["items"]).mean() == pytest.approx(expected[measure])
    assert (found["t2i_r1"]["items"], found["t2i_r1"]["together"]) == (3 * HELD_OUT, 3)
    assert found["names_top1"]["items"] == 3


def test_all_arms_are_trained_recorded_once_and_tabled(folders, tmp_path, monkeypatch, capsys):
    root = folders["test"].parent
    tiny = {"samples": 16, "batch_size": 8, "image_size": 32}
    arms = {arm: (data, dataclasses.replace(train, **tiny)) for arm, (data, train) in photographs.ARMS.items()}
    monkeypatch.setattr(photographs, "ARMS", arms)

    def with_fakes(folders, work, teachers, views):
        settings = Reinforce(teachers=FakeTeachers.names, views=views, augment=Augment(operations=0))
        reinforce(settings, folders["train"], work / "reinforced", ensemble=FakeTeachers())
        return work / "reinforced"

    monkeypatch.setattr(photographs, "reinforced", with_fakes)
    asked = ["--captions", str(root.parent / "captioned"), "--named", str(root.parent / "named"), "--work", str(root)]
    asked += ["--output", str(tmp_path / "out.jsonl"), "--held-out", str(HELD_OUT), "--names", "3", "--views", "2"]
    asked += ["--arms", "control", "reinforced"]
    for _ in range(2):
        photographs.main([*asked, "--seeds", "0", "1"])
    lines = recorded.read_lines(tmp_path / "out.jsonl")
    assert [(line["arm"], line["seed"]) for line in lines] == [
        (arm, seed) for seed in (0, 1) for arm in ("control", "reinforced")
    ]
    assert "| reinforced, 2 seeds |" in photographs.table(lines)
    assert " to " in photographs.table(lines).splitlines()[-1]
    assert "| control, 1 seeds |" in capsys.readouterr().out


def test_a_folder_without_names_and_too_many_held_out_are_refused(folders, tmp_path):
    with pytest.raises(ValueError, match="n01440764_tench"):
        photographs.named_table([tmp_path], tmp_path / "t.csv")
    with pytest.raises(ValueError, match="cannot be held out"):
        photographs.split(folders["test"], HELD_OUT)
