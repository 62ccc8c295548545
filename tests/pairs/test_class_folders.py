"""Folders of classes as pairs: texts from folders' names, and folders as they come from a holiday."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobileclip2_lite.pairs.class_folders import class_of
from mobileclip2_lite.pairs.collect import make_pairs
from mobileclip2_lite.recipes import Pairs
from mobileclip2_lite.shards.samples import read_pairs


def picture(number: int, **options) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def folder_of(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def made(source: str, out: Path) -> tuple[dict[str, bytes], dict]:
    """Images by the file that they come from, with their texts, and the manifest."""
    manifest = make_pairs(Pairs(source=source, count=0), out)
    pairs = [pair for shard in manifest["shards"] for pair in read_pairs(out / shard["name"])]
    return {pair.meta["source"]: (pair.text, pair.image) for pair in pairs}, manifest


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("dog/a.jpg", "dog"),
        ("great_white_shark/deep/er/a.jpg", "great white shark"),
        ("train/cat/a.jpg", "cat"),
        ("images/test_set/cat/a.jpg", "images"),
        ("a.jpg", ""),
    ],
)
def test_the_class_is_the_first_folder_that_names_no_split(name, found):
    assert class_of(name) == found


def test_a_holiday_sorted_into_folders(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was held upright
    files = {
        "beach/IMG_1.JPG": picture(1, exif=turned),
        "beach/IMG_1 (copy).JPG": picture(1, exif=turned),
        "beach/late/IMG_2.jpeg": picture(2),
        "old_town/IMG_3.jpg": picture(3),
        "old_town/IMG_4.heic": b"\0\0\0\x18ftypheic" + bytes(40),
        "old_town/MVI_5.mp4": b"a video",
        "old_town/._IMG_3.jpg": b"what macOS adds",
        ".trash/IMG_6.jpg": picture(6),
        "IMG_7.jpg": picture(7),
        "old_town/IMG_8.jpg": picture(8)[:200],
        "notes.txt": b"to do",
    }
    source = folder_of(tmp_path / "holiday", files)
    found, manifest = made(f"{source}?text=folder", tmp_path / "out")
    assert {name: text for name, (text, _) in found.items()} in (
        {
            first: "a photo of a beach",
            "beach/late/IMG_2.jpeg": "a photo of a beach",
            "old_town/IMG_3.jpg": "a photo of a old town",
        }
        for first in ("beach/IMG_1.JPG", "beach/IMG_1 (copy).JPG")  # the same bytes are one sample
    )
    assert all(data == files[name] for name, (_, data) in found.items()), "stored as they are"
    assert manifest["turned"] == 1, "whoever looks sees it lie on its side, and is told so"
    dropped = dict(manifest["dropped"])
    assert dropped.pop("no_text") == 1
    assert dropped.pop("broken_image") == 1
    assert sum(dropped.values()) == 1, "the HEIC, by whether its decoder is there"
    again = make_pairs(Pairs(source=f"{source}?text=folder", count=0), tmp_path / "out")
    assert again["key"] == manifest["key"]
    assert {
        path.relative_to(source).as_posix(): path.read_bytes() for path in source.rglob("*") if path.is_file()
    } == files


def test_splits_and_classes_together(tmp_path):
    files = {f"{split}/{name}/{k}.jpg": picture(k) for k, (split, name) in enumerate(
        [("train", "cat"), ("train", "dog"), ("val", "cat")]
    )}  # fmt: skip
    source = folder_of(tmp_path / "set", files)
    found, manifest = made(f"{source}?text=folder", tmp_path / "train")
    assert {text for text, _ in found.values()} == {"a photo of a cat", "a photo of a dog"}
    assert manifest["split"] == "train"
    found, _ = made(f"{source}?split=val&text=folder", tmp_path / "val")
    assert list(found) == ["val/cat/2.jpg"]


def test_a_folder_without_texts_says_what_helps(tmp_path):
    source = folder_of(tmp_path / "photos", {"cat/1.jpg": picture(1), "dog/2.jpg": picture(2)})
    with pytest.raises(ValueError, match=r"no texts: .*If its folders are classes \(cat, dog\): .*photos\?text=folder"):
        made(str(source), tmp_path / "out")
    flat = folder_of(tmp_path / "flat", {"1.jpg": picture(1)})
    with pytest.raises(ValueError, match=r"no image in a folder: \?text=folder wants a folder of images for each"):
        made(f"{flat}?text=folder", tmp_path / "out")
    with pytest.raises(ValueError, match=r"\?text=folder is for a folder"):
        made(f"{source}?text=name", tmp_path / "out")
