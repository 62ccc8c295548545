"""The study on photographs, on images that a test can make: what is held out, what an arm reads, what is counted."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re

import numpy as np
import pytest
from doubles.colour_clip import colour_clip, plain
from doubles.fake_teachers import FakeTeachers
from PIL import Image

from mobileclip2_lite.models.zoo import create_model
from mobileclip2_lite.pairs.collect import make_pairs
from mobileclip2_lite.recipes import Augment, Pairs, Reinforce
from mobileclip2_lite.reinforcement.stage import reinforce
from mobileclip2_lite.studies import (
    arms,
    forgetting,
    intervals,
    photo_teachers,
    photograph_page,
    photographs,
    recorded,
)
from mobileclip2_lite.studies.ledger import shown_effect
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


def test_guessing_scores_what_random_orders_score(folders):
    guessed = photographs.chance(folders)
    assert guessed["t2i_r1"] == 1 / HELD_OUT
    assert guessed["i2t_r1"] == pytest.approx(3 / (3 * HELD_OUT))
    assert guessed["i2t_r10"] == pytest.approx(1 - 0)  # ten of twelve captions always hold one of three
    assert (guessed["names_top1"], guessed["names_top5"]) == (pytest.approx(1 / 3), 1.0)
    assert set(guessed) == set(photographs.hits(create_model("lite-mci-s"), folders))


@pytest.fixture(scope="module")
def lines(folders, tmp_path_factory):
    """Lines of two tiny seeds, asked for twice, as `main` writes them."""
    root, out = folders["test"].parent, tmp_path_factory.mktemp("lines") / "out.jsonl"
    tiny = {"samples": 16, "batch_size": 8, "image_size": 32}
    arms = {arm: (data, dataclasses.replace(train, **tiny)) for arm, (data, train) in photographs.ARMS.items()}

    def with_fakes(folders, work, teachers, views):
        settings = Reinforce(teachers=FakeTeachers.names, views=views, augment=Augment(operations=0))
        reinforce(settings, folders["train"], work / "reinforced", ensemble=FakeTeachers())
        return work / "reinforced"

    asked = ["--captions", str(root.parent / "captioned"), "--named", str(root.parent / "named"), "--work", str(root)]
    asked += ["--output", str(out), "--held-out", str(HELD_OUT), "--names", "3", "--views", "2"]
    asked += ["--arms", "control", "reinforced", "teachers", "--teachers", "lite-mci-s"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(photographs, "ARMS", arms)
        patch.setattr(photographs, "reinforced", with_fakes)
        for _ in range(2):
            photographs.main([*asked, "--seeds", "0", "1"])
    return recorded.read_lines(out)


def test_all_arms_are_trained_and_recorded_once(lines):
    arms = ["control", "reinforced, 2 views"]
    assert [(line["arm"], line["seed"]) for line in lines] == [
        ("teacher lite-mci-s", None), *((arm, seed) for seed in (0, 1) for arm in arms)
    ]  # fmt: skip
    assert all(line["images"] == {"train": 21, "test": 4, "names": 3} for line in lines)
    assert {line["command"].rpartition(" --held-out ")[2] for line in lines} == {
        "4 --names 3 --teachers lite-mci-s --views 2"
    }
    assert lines[1]["settings"]["distill"] == 0.0


def test_lines_hold_no_image_no_caption_and_no_path(lines):
    for line in lines:
        text = json.dumps({key: value for key, value in line.items() if key != "command"})
        assert len(text) < 4_000
        assert "caption 0 of" not in text
        assert "/" not in re.sub(r'"hits": "[^"]*"', "", text)  # base64 has slashes


def test_the_page_shows_arms_guessing_and_paired_differences(lines):
    text = photograph_page.page(lines, [])
    rows = {row.split(" | ")[0].strip("| "): row for row in text.splitlines() if row.startswith("| ")}
    assert rows["control"].endswith("| 2 |")
    assert rows["teacher lite-mci-s"].endswith("| not trained here |")
    assert "| 25.0 |" in rows["guessing"]
    found = arms.by_arm(lines)
    effect = arms.effect(found["reinforced, 2 views"], found["control"], "t2i_r1")
    assert shown_effect(effect) in rows["reinforced, 2 views − control"]
    assert effect.low <= effect.mean <= effect.high
    assert photograph_page.page(lines[::-1], []) == text, "in whatever order they were recorded"
    more = [{**line, "arm": "reinforced, 10 views"} for line in lines if line["arm"].startswith("reinforced")]
    text = photograph_page.page([*more, *lines], [])
    assert photograph_page.page([*lines, *more], []) == text
    order = [text.index(f"| reinforced, {name} ") for name in ("2 views", "10 views", "10 views − reinforced, 2 views")]
    assert order == sorted(order), "by views, and the more beside the fewer"
    against = arms.effect(found["control"], found["teacher lite-mci-s"], "i2t_r1")
    assert against.seeds == 2  # a model without seeds stands beside both


def test_the_page_is_what_the_recorded_lines_say(repository):
    results = recorded.results_folder()
    found = [recorded.read_lines(results / study.FILE) for study in (photographs, forgetting)]
    text = (repository / "docs" / "photographs.md").read_text("utf-8")
    assert text == photograph_page.page(*found), "run: mobileclip2-lite claims"


def test_images_without_texts_are_named_by_a_model(tmp_path):
    album = tmp_path / "album"
    (album / "below").mkdir(parents=True)
    Image.fromarray(plain("red", 16)).save(album / "a, b.png")
    Image.fromarray(plain("blue", 16)).save(album / "below" / "c.png")
    (album / "broken.jpg").write_bytes(b"not an image")
    table = tmp_path / "named.csv"
    assert photo_teachers.write_names(album, table, colour_clip(), ["green", "red", "blue"]) == {"not_an_image": 1}
    make_pairs(Pairs(source=str(table), count=0), tmp_path / "pairs")
    found = {sample.meta["source"]: sample.text for sample in photographs.samples(tmp_path / "pairs")}
    assert list(found.values()) == ["a photo of a red", "a photo of a blue"]
    assert sorted(path.name for path in album.rglob("*")) == ["a, b.png", "below", "broken.jpg", "c.png"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no image that can be read"):
        photo_teachers.write_names(tmp_path / "empty", table, colour_clip(), ["red"])


def test_a_folder_without_names_and_too_many_held_out_are_refused(folders, tmp_path):
    with pytest.raises(ValueError, match="n01440764_tench"):
        photographs.named_table([tmp_path], tmp_path / "t.csv")
    with pytest.raises(ValueError, match="cannot be held out"):
        photographs.split(folders["test"], HELD_OUT)


def test_what_the_readme_says_of_photographs_is_recorded(repository):
    text = " ".join((repository / "README.md").read_text("utf-8").split())
    folder = recorded.results_folder()
    found = arms.by_arm(recorded.read_lines(folder / "photographs.jsonl"))
    names = ("reinforced, 30 views", "captions", "control", "reinforced, 8 views")
    student, captions, control, eight = (found[name] for name in names)
    levels = [100 * np.mean([*arms.hits(arm, "t2i_r10").values()]) for arm in (student, captions, control, eight)]
    said = "(R@10 {:.1f} % against {:.1f} and {:.1f}; with eight views {:.1f}, which cannot be told from thirty)"
    assert said.format(*levels) in text
    assert arms.effect(student, eight, "t2i_r10").low < 0 < arms.effect(student, eight, "t2i_r10").high
    assert all(arms.effect(student, other, "t2i_r10").low > 0 for other in (captions, control))
    found = arms.by_arm(recorded.read_lines(folder / "forgetting.jsonl"))
    plain, taught = (arms.effect(found["before"], found[name], "old_zero_shot") for name in ("plain", "reinforced"))
    began = 100 * np.mean([*arms.hits(found["before"], "old_zero_shot").values()])
    said = f"of a trained model's {began:.1f} % in naming reinforced fine-tuning on 400 pairs of a small world forgets "
    said += f"{100 * taught.mean:.1f} points where plain fine-tuning forgets {100 * plain.mean:.1f}"
    assert said in text
    assert arms.effect(found["reinforced"], found["plain"], "old_zero_shot").low > 0
