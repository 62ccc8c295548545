"""Karpathy's splits and COCO's annotations as sources of pairs: images with all their captions, of a split."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from doubles.source_files import picture, write

from mobileclip2_lite.pairs.caption_objects import rows_of
from mobileclip2_lite.pairs.collect import make_pairs, read_dropped
from mobileclip2_lite.recipes import Pairs
from mobileclip2_lite.shards.samples import read_pairs

SPLITS = ("train", "restval", "val", "test", "train")


def texts_of(source: Path | str, out: Path) -> tuple[dict[str, tuple[bytes, list[str]]], dict]:
    """First text -> (image, all texts), and the manifest."""
    manifest = make_pairs(Pairs(source=str(source), count=0), out)
    pairs = [pair for shard in manifest["shards"] for pair in read_pairs(out / shard["name"])]
    return {pair.text: (pair.image, pair.texts) for pair in pairs}, manifest


def karpathy(folder: str = "") -> dict:
    """Five images of four splits with three sentences each, as the file has them."""
    images = []
    for number, split in enumerate(SPLITS):
        said = [{"raw": f"text {number}-{k} .", "tokens": ["text"], "sentid": 3 * number + k} for k in range(3)]
        images.append({"filename": f"{number}.jpg", "imgid": number, "split": split, "sentences": said})
        images[-1] |= {"filepath": folder} if folder else {}
    return {"images": images, "dataset": "made"}


@pytest.mark.parametrize(("told", "lies"), [("val2014", "val2014"), ("", "flickr30k-images"), ("", "")])
def test_karpathys_images_have_all_their_sentences(tmp_path, told, lies):
    for number in range(5):
        write(tmp_path / "s" / lies / f"{number}.jpg", picture(number))
    source = write(tmp_path / "s" / "dataset_made.json", json.dumps(karpathy(told)))
    found, manifest = texts_of(source, tmp_path / "out")
    assert found == {f"text {n}-0 .": (picture(n), [f"text {n}-{k} ." for k in range(3)]) for n in (0, 1, 4)}
    assert (manifest["samples"], manifest["texts"], manifest["dropped"]) == (3, 9, {})
    assert manifest["left_out"] == {"test": 1, "validation": 1}
    of_test, _ = texts_of(f"{source}?split=test", tmp_path / "test")
    assert list(of_test) == ["text 3-0 ."]


@pytest.mark.parametrize("home", ["annotations/", ""])
def test_cocos_annotations_find_their_images_and_name_what_is_wrong(tmp_path, home):
    for number in range(3):
        write(tmp_path / "s" / "train2017" / f"{number:012d}.jpg", picture(number))
    said = [{"image_id": 7 + n % 3, "id": n, "caption": f"text {n % 3}-{n // 3}"} for n in range(15)]
    value = {
        "info": {},
        "images": [{"id": 7 + n, "file_name": f"{n:012d}.jpg"} for n in range(4)],
        "annotations": [*said, {"image_id": 99, "caption": "of nothing"}, {"image_id": 7, "bbox": [0, 0, 1, 1]}],
    }
    source = write(tmp_path / "s" / home / "captions_train2017.json", json.dumps(value))
    found, manifest = texts_of(f"{source}?split=all", tmp_path / "out")
    assert found == {f"text {n}-0": (picture(n), [f"text {n}-{k}" for k in range(5)]) for n in range(3)}
    assert manifest["dropped"] == {"bad_row": 1, "no_text": 1}
    details = {one["reason"]: one["detail"] for one in read_dropped(tmp_path / "out")}
    assert "an annotation of no image" in details["bad_row"]


def test_a_table_that_is_named_finds_images_in_a_folder_beside_it(tmp_path):
    for number in range(3):
        write(tmp_path / "s" / "Images" / f"{number}.jpg", picture(number))
    write(tmp_path / "s" / ".trash" / "0.jpg", picture(9))
    rows = "".join(f"{number}.jpg,text {number}\n" for number in range(3))
    source = write(tmp_path / "s" / "captions.csv", "image,caption\n" + rows)
    found, manifest = texts_of(source, tmp_path / "out")
    assert found == {f"text {n}": (picture(n), [f"text {n}"]) for n in range(3)}
    assert manifest["dropped"] == {}


def test_what_is_of_another_form_is_no_captions():
    assert rows_of({"images": [{"filename": "a.jpg"}]}) is None
    assert rows_of({"data": []}) is None
    rows = rows_of({"images": ["a.jpg", *karpathy()["images"][:1], {"id": 1}]})
    assert [isinstance(row, dict) for row in rows] == [False, True, False]
