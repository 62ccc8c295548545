"""Pairs of images that their EXIF turns: as the pixels lie, or, when asked for, as viewers show them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from mobileclip2_lite.cli import main
from mobileclip2_lite.pairs.collect import make_pairs
from mobileclip2_lite.recipes import Pairs
from mobileclip2_lite.shards.samples import read_pairs
from mobileclip2_lite.views.decoding import decode
from mobileclip2_lite.work.folder import StageMismatch


def photo(orientation: int, form: str) -> bytes:
    """No two orientations look alike, nor do two files."""
    pixels = np.random.default_rng(orientation).integers(0, 256, (3, 5, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, exif=exif)
    return buffer.getvalue()


def album(root: Path, form: str) -> dict[str, bytes]:
    """A table and its images: each of the eight orientations, no EXIF at all, and a number that means nothing."""
    root.mkdir()
    files = {f"text {n}": photo(n, form) for n in range(10)}
    rows = []
    for text, data in files.items():
        (root / f"{text[-1]}.img").write_bytes(data)
        rows.append((f"{text[-1]}.img", text, "yes"))
    with open(root / "rows.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "caption", "turned"), *rows])
    return files


def made(source: Path, out: Path, **options) -> tuple[dict, dict]:
    manifest = make_pairs(Pairs(source=str(source / "rows.csv"), count=0, samples_per_shard=4, **options), out)
    pairs = [pair for shard in manifest["shards"] for pair in read_pairs(out / shard["name"])]
    return {pair.text: pair for pair in pairs}, manifest


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_orientation_is_stored_as_viewers_show_it(tmp_path, form):
    files = album(tmp_path / "album", form)
    pairs, manifest = made(tmp_path / "album", tmp_path / "out", upright=True)
    assert set(pairs) == set(files)
    assert manifest["turned"] == 7
    for text, data in files.items():
        shown = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
        pair = pairs[text]
        stored = decode(pair.image)
        assert np.array_equal(np.asarray(stored), np.asarray(shown)), text
        assert (pair.meta["width"], pair.meta["height"]) == stored.size == shown.size
        assert pair.meta["user_turned"] == "yes", "a column of that name is the user's"
        if 2 <= int(text[-1]) <= 8:
            assert (pair.ext, pair.meta["turned"], pair.meta["original_format"]) == ("png", int(text[-1]), form)
        elif form != "TIFF":
            assert pair.image == data, "what need not be turned stays untouched"


def test_they_are_taken_as_they_lie_unless_asked(tmp_path):
    files = album(tmp_path / "album", "JPEG")
    pairs, manifest = made(tmp_path / "album", tmp_path / "out")
    assert {text: pair.image for text, pair in pairs.items()} == files
    assert manifest["turned"] == 7
    assert "upright" not in manifest["settings"], "folders made before there was a choice stay found"


def test_a_folder_of_the_one_kind_is_not_found_for_the_other(tmp_path):
    album(tmp_path / "album", "JPEG")
    first = made(tmp_path / "album", tmp_path / "out", upright=True)[1]
    assert made(tmp_path / "album", tmp_path / "out", upright=True)[1] == first
    with pytest.raises(StageMismatch, match="upright"):
        made(tmp_path / "album", tmp_path / "out")


def test_the_command_names_the_option_and_has_it(tmp_path, capsys):
    album(tmp_path / "album", "JPEG")
    command = ["--source", str(tmp_path / "album" / "rows.csv"), "--count", "0"]
    main(["pairs", str(tmp_path / "lying"), *command])
    assert "turned by EXIF: 7 images" in (said := capsys.readouterr().out)
    assert "--upright" in said
    main(["pairs", str(tmp_path / "upright"), *command, "--upright"])
    assert "turned upright, as EXIF says: 7 images" in capsys.readouterr().out
    assert json.loads((tmp_path / "upright" / "manifest.json").read_text("utf-8"))["settings"]["upright"] is True
