"""Pairs from every kind of source, with the faults that real sources have."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import pytest
from doubles.source_files import tar_of, write
from PIL import Image

from mobileclip2_lite.pairs import collect as pairs_module
from mobileclip2_lite.pairs.collect import make_pairs, read_dropped
from mobileclip2_lite.recipes import Pairs, World
from mobileclip2_lite.shards.samples import read_pairs
from mobileclip2_lite.work.files import sha256_bytes, sha256_file
from mobileclip2_lite.work.folder import FolderLocked, StageMismatch, Work


def picture(number: int, form: str = "JPEG", side: int = 24, mode: str = "RGB") -> bytes:
    """An encoded image whose pixels tell its number."""
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, form)
    return buffer.getvalue()


def settings(source: Path | str = "unused", count: int = 0, shard: int = 4, **keys) -> Pairs:
    return Pairs(source=str(source), count=count, samples_per_shard=shard, **keys)


def all_pairs(out: Path) -> list:
    names = [shard["name"] for shard in json.loads((out / "manifest.json").read_text("utf-8"))["shards"]]
    return [pair for name in names for pair in read_pairs(out / name)]


def by_text(out: Path) -> dict:
    return {pair.text: pair for pair in all_pairs(out)}


def reasons(out: Path) -> dict[str, str]:
    return {line["key"]: line["reason"] for line in read_dropped(out)}


def content(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): sha256_file(path) for path in sorted(folder.rglob("*")) if path.is_file()
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten captioned images, nested, of several formats."""
    for k, form in enumerate(["JPEG", "PNG", "WEBP", "JPEG", "PNG", "GIF", "BMP", "TIFF", "JPEG", "JPEG"]):
        suffix = {"JPEG": "jpg", "TIFF": "tif"}.get(form, form.lower())
        write(tmp_path / "source" / f"part{k % 2}" / f"{k:02d}.{suffix}", picture(k, form))
        write(tmp_path / "source" / f"part{k % 2}" / f"{k:02d}.txt", f"picture {k}\n")
    return tmp_path / "source"


# --- every kind of source gives the same form -----------------------------------------------------------------------


def test_embedded_world_becomes_shards(tmp_path):
    world = World(names=12, image_size=32)
    manifest = make_pairs(settings("emoji_world", count=10), tmp_path / "out", world=world)
    assert [shard["samples"] for shard in manifest["shards"]] == [4, 4, 2]
    assert manifest["samples"] == 10
    assert manifest["dropped"] == {}
    from mobileclip2_lite.emoji_world import pairs_dataset

    for pair, row in zip(all_pairs(tmp_path / "out"), pairs_dataset(world, 10), strict=True):
        assert (pair.uid, pair.text) == (row["uid"], row["text"].strip())
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(pair.image))), np.asarray(row["image"]))
        assert (pair.meta["width"], pair.meta["height"]) == (32, 32)
        assert pair.meta["sha256"] == sha256_bytes(pair.image)
        assert pair.meta["scene"] == row["scene"]


def test_users_own_dataset_gives_what_the_embedded_world_gives(tmp_path):
    world = World(names=12, image_size=32)
    from mobileclip2_lite.emoji_world import pairs_dataset

    make_pairs(settings("emoji_world", count=6), tmp_path / "world", world=world)
    make_pairs(settings(), tmp_path / "own", dataset=pairs_dataset(world, 6))
    for name in ("shard-000000.tar", "shard-000001.tar"):
        assert sha256_file(tmp_path / "world" / name) == sha256_file(tmp_path / "own" / name)


def test_folder_with_texts_keeps_image_bytes(folder, tmp_path):
    before = content(folder)
    manifest = make_pairs(settings(folder), tmp_path / "out")
    assert manifest["samples"] == 10
    assert content(folder) == before
    found = by_text(tmp_path / "out")
    for k, (suffix, kept) in enumerate([("jpg", "jpg"), ("png", "png"), ("webp", "webp"), ("jpg", "jpg")]):
        pair = found[f"picture {k}"]
        assert pair.ext == kept
        assert pair.image == (folder / f"part{k % 2}" / f"{k:02d}.{suffix}").read_bytes()
    for k, form in [(5, "GIF"), (6, "BMP"), (7, "TIFF")]:
        pair = found[f"picture {k}"]
        assert (pair.ext, pair.meta["original_format"]) == ("png", form)
        original = Image.open(io.BytesIO(picture(k, form))).convert("RGB")
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(pair.image)).convert("RGB")), np.asarray(original))


@pytest.mark.parametrize("kind", ["csv", "semicolon.csv", "tsv", "jsonl", "parquet"])
def test_tables_find_their_columns_and_images(tmp_path, kind):
    source = tmp_path / "source"
    rows = [{"file_name": f"images/{k}.jpg", "caption": f'a "picture", {k}; über\ttab', "likes": k} for k in range(6)]
    for k in range(6):
        write(source / "images" / f"{k}.jpg", picture(k))
    path = source / f"captions.{kind}"
    if kind.endswith("csv") or kind == "tsv":
        import csv

        with open(path, "w", encoding="utf-8-sig", newline="") as file:
            delimiter = {"csv": ",", "semicolon.csv": ";", "tsv": "\t"}[kind]
            writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    elif kind == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", "utf-8")
    else:
        datasets.Dataset.from_list(rows).to_parquet(path)
    manifest = make_pairs(settings(path), tmp_path / "out")
    assert manifest["samples"] == 6
    assert manifest["dropped"] == {}
    found = by_text(tmp_path / "out")
    for k, row in enumerate(rows):
        assert found[row["caption"]].image == picture(k)
        assert str(found[row["caption"]].meta["likes"]) == str(k)


def test_imagefolder_with_nested_metadata(tmp_path):
    source = tmp_path / "source"
    for part in ("train", "more"):
        lines = []
        for k in range(3):
            write(source / part / f"{k}.png", picture(k + 10 * (part == "more"), "PNG"))
            lines.append(json.dumps({"file_name": f"{k}.png", "text": f"{part} {k}"}))
        write(source / part / "metadata.jsonl", "\n".join(lines))
    write(source / "more" / "forgotten.png", picture(99, "PNG"))
    make_pairs(settings(source), tmp_path / "out")
    found = by_text(tmp_path / "out")
    assert len(found) == 6
    assert found["more 2"].image == picture(12, "PNG")
    assert reasons(tmp_path / "out") == {"more/forgotten.png": "no_text"}


def test_one_image_may_have_several_captions(tmp_path):
    write(tmp_path / "a.jpg", picture(1))
    table = write(tmp_path / "t.csv", "image,text\na.jpg,first\na.jpg,second\na.jpg,first\n")
    manifest = make_pairs(dataclasses.replace(settings(table), group=False), tmp_path / "out")
    assert sorted(by_text(tmp_path / "out")) == ["first", "second"]
    assert manifest["dropped"] == {"duplicate_uid": 1}
    together = make_pairs(settings(table), tmp_path / "together")
    assert (together["samples"], together["dropped"]) == (1, {})
    assert all_pairs(tmp_path / "together")[0].texts == ["first", "second"]


def test_dataset_in_memory_saved_and_as_parquet_agree(tmp_path):
    rows = {"image": [{"bytes": picture(k), "path": None} for k in range(5)], "text": [f"t{k}" for k in range(5)]}
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    dataset = datasets.Dataset.from_dict(rows, features=features)
    dataset.to_parquet(tmp_path / "parquet" / "data-00000.parquet")
    dataset.save_to_disk(tmp_path / "saved")
    made = [
        make_pairs(settings(), tmp_path / "o1", dataset=dataset),
        make_pairs(settings(), tmp_path / "o2", dataset=dataset.with_format("numpy")),
        make_pairs(settings(tmp_path / "parquet"), tmp_path / "o3"),
        make_pairs(settings(tmp_path / "saved"), tmp_path / "o4"),
    ]
    assert len({tuple(shard["sha256"] for shard in manifest["shards"]) for manifest in made}) == 1
    assert [pair.image for pair in all_pairs(tmp_path / "o3")] == [picture(k) for k in range(5)]


def test_dataset_of_pil_images_and_caption_lists(tmp_path):
    image = Image.open(io.BytesIO(picture(3)))
    dataset = datasets.IterableDataset.from_generator(
        lambda: iter([{"picture": image, "captions": ["", "a dog", "a hound"]}])
    )
    make_pairs(settings(), tmp_path / "out", dataset=dataset)
    (pair,) = all_pairs(tmp_path / "out")
    assert pair.text == "a dog"
    assert pair.meta["texts"] == ["a dog", "a hound"]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(pair.image))), np.asarray(image))


def test_hub_name_goes_through_datasets(tmp_path, monkeypatch):
    dataset = datasets.Dataset.from_dict(
        {"image": [picture(k) for k in range(3)], "text": ["a", "b", "c"], "uid": ["x", "y", "z"]}
    )
    asked = []

    def load(name, config=None, **options):
        asked.append((name, config, options["revision"]))
        return datasets.DatasetDict({"train": dataset, "test": dataset.select([0])})

    monkeypatch.setattr(datasets, "load_dataset", load)
    make_pairs(settings("hf:owner/name?revision=abc"), tmp_path / "out")
    assert [pair.uid for pair in all_pairs(tmp_path / "out")] == ["x", "y", "z"]
    make_pairs(settings("hf:owner/name?revision=abc"), tmp_path / "out")
    assert asked == [("owner/name", None, "abc")], "finished work is found without loading"
    make_pairs(settings("hf:owner/name?split=test"), tmp_path / "test")
    assert len(all_pairs(tmp_path / "test")) == 1
    with pytest.raises(ValueError, match=r"no split 'dev'.*\['train', 'test'\]"):
        make_pairs(settings("hf:owner/name?split=dev"), tmp_path / "no")


def test_hub_out_of_reach_is_a_clear_error(tmp_path):
    with pytest.raises(OSError, match="hf:nobody/nothing could not be loaded"):
        make_pairs(settings("hf:nobody/nothing"), tmp_path / "out")


def test_webdataset_tars_by_braces_glob_and_folder(tmp_path):
    for t in range(3):
        members = {}
        for k in range(3):
            key = f"{t}{k:03d}"
            members |= {f"{key}.jpg": picture(10 * t + k), f"{key}.txt": f"tar {t} sample {k}".encode()}
            members |= {f"{key}.json": json.dumps({"url": "x", "width": 5, "key": key}).encode(), f"{key}.npy": b"no"}
        tar_of(tmp_path / "w" / f"{t:03d}.tar", members)
    patterns = ["{000..002}.tar", "*.tar", ""]
    made = [make_pairs(settings(f"{tmp_path}/w/{p}"), tmp_path / f"o{k}") for k, p in enumerate(patterns)]
    assert len({str(manifest["shards"]) for manifest in made}) == 1
    pair = by_text(tmp_path / "o0")["tar 2 sample 1"]
    assert pair.image == picture(21)
    assert (pair.meta["url"], pair.meta["user_width"], pair.meta["width"]) == ("x", 5, 24)
    assert pair.meta["source"] == "002.tar/2001"


def test_own_shards_are_a_source(folder, tmp_path):
    make_pairs(settings(folder), tmp_path / "first")
    make_pairs(settings(tmp_path / "first"), tmp_path / "second")
    first, second = (
        {pair.uid: (pair.text, pair.image) for pair in all_pairs(tmp_path / n)} for n in ("first", "second")
    )
    assert first == second


def test_texts_in_json_members_and_gzip(tmp_path):
    members = {"a.jpg": picture(1), "a.json": b'{"caption": "from json", "uid": "u1"}'}
    members |= {"b.jpg": picture(2), "b.json": b'{"caption": "second"}'}
    tar = tar_of(tmp_path / "w.tar.gz", members)
    make_pairs(settings(tar), tmp_path / "out")
    assert sorted(by_text(tmp_path / "out")) == ["from json", "second"]
    assert by_text(tmp_path / "out")["from json"].uid == "u1"


# --- faults ---------------------------------------------------------------------------------------------------------


def test_every_bad_file_is_named_with_its_reason(folder, tmp_path):
    half = picture(50)
    write(folder / "bad" / "half.jpg", half[: len(half) // 2])
    write(folder / "bad" / "half.txt", "half")
    write(folder / "bad" / "noise.png", b"no image at all")
    write(folder / "bad" / "noise.txt", "noise")
    write(folder / "bad" / "empty.jpg", b"")
    write(folder / "bad" / "empty.txt", "empty")
    write(folder / "bad" / "silent.jpg", picture(51))
    write(folder / "bad" / "blank.jpg", picture(52))
    write(folder / "bad" / "blank.txt", " \n")
    write(folder / "bad" / "latin.jpg", picture(53))
    write(folder / "bad" / "latin.txt", "café".encode("latin-1"))
    write(folder / "bad" / "lonely.txt", "no picture")
    write(folder / "bad" / "notes.md", "ignored")
    write(folder / ".hidden" / "x.jpg", picture(54))
    manifest = make_pairs(settings(folder), tmp_path / "out")
    assert reasons(tmp_path / "out") == {
        "bad/half.jpg": "broken_image",
        "bad/noise.png": "not_an_image",
        "bad/empty.jpg": "empty_image",
        "bad/silent.jpg": "no_text",
        "bad/blank.jpg": "empty_text",
        "bad/latin.jpg": "text_not_utf8",
        "bad/lonely.txt": "no_image",
    }
    assert manifest["dropped"] == dict(Counter(reasons(tmp_path / "out").values()))
    assert sum((Counter(shard["dropped"]) for shard in manifest["shards"]), Counter()) == Counter(manifest["dropped"])
    assert manifest["ignored_files"] == {".md": 1}
    found = by_text(tmp_path / "out")
    assert len(found) == 10
    assert found["picture 1"].image == picture(1, "PNG")


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_links_to_folders_loops_and_nowhere(folder, tmp_path):
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "lost.jpg").symlink_to(tmp_path / "nowhere.jpg")
    write(folder / "lost.txt", "lost")
    write(tmp_path / "elsewhere" / "e.jpg", picture(60))
    write(tmp_path / "elsewhere" / "e.txt", "elsewhere")
    (folder / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    manifest = make_pairs(settings(folder), tmp_path / "out")
    assert manifest["samples"] == 11
    assert reasons(tmp_path / "out") == {"lost.jpg": "no_image"}


def test_bad_rows_of_tables(tmp_path):
    for k in range(3):
        write(tmp_path / f"{k}.jpg", picture(k))
    csv_rows = b"image,text\n0.jpg,good\n1.jpg,a cat, on a mat\n1.jpg\n,no image\n9.jpg,lost\nhttp://x/y.jpg,url\n"
    csv_rows += b"2.jpg,caf\xe9\n2.jpg,\n1.jpg,also good\n"
    make_pairs(settings(write(tmp_path / "t.csv", csv_rows)), tmp_path / "o1")
    assert sorted(by_text(tmp_path / "o1")) == ["also good", "good"]
    assert reasons(tmp_path / "o1") == {
        "t.csv:3": "bad_row",
        "t.csv:4": "no_text",
        "t.csv:5": "no_image",
        "t.csv:6": "no_image",
        "t.csv:7": "image_is_url",
        "t.csv:8": "text_not_utf8",
        "t.csv:9": "empty_text",
    }
    lines = ['{"image": "0.jpg"}', '{"image": "0.jpg", "text": "good"}', "{broken", "[1]", '{"image": 5, "text": "x"}']
    lines += [
        '{"image": "1.jpg", "text": 7}',
        '{"image": "1.jpg", "text": "\\ud800"}',
        '{"image": "\\u0000", "text": "n"}',
    ]
    make_pairs(settings(write(tmp_path / "t.jsonl", "\n".join(lines))), tmp_path / "o2")
    assert list(by_text(tmp_path / "o2")) == ["good"]
    assert reasons(tmp_path / "o2") == {
        "t.jsonl:1": "no_text",
        "t.jsonl:3": "bad_row",
        "t.jsonl:4": "bad_row",
        "t.jsonl:5": "no_image",
        "t.jsonl:6": "text_not_string",
        "t.jsonl:7": "text_not_utf8",
        "t.jsonl:8": "unreadable_file",
    }


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        (
            "t.csv",
            "bild,wort\na.jpg,x\n",
            r"t.csv has no column that looks like the image.*\['bild', 'wort'\].*image_key",
        ),
        ("t.csv", "image,wort\na.jpg,x\n", r"t.csv has no column that looks like the text.*text_key"),
        ("t.jsonl", '{"image": "a.jpg", "wort": 1}', "t.jsonl has no column that looks like the text"),
        ("t.csv", "image,text\n", "t.csv has no rows"),
        ("t.csv", "", "t.csv has no rows"),
        ("t.parquet", "PAR1 but not really", "t.parquet is no.* readable parquet"),
        ("t.zip", "x", "no known kind"),
    ],
)
def test_unusable_files_are_clear_errors(tmp_path, name, text, match):
    with pytest.raises(ValueError, match=match):
        make_pairs(settings(write(tmp_path / name, text)), tmp_path / "out")


def test_wrong_key_names_the_columns_and_leaves_nothing_in_the_way(tmp_path):
    dataset = datasets.Dataset.from_dict({"image": [picture(1)], "text": ["one"], "title": ["another"]})
    words = r"no column 'headline' for the text; it has \['image', 'text', 'title'\]: name .* text_key \(--text-key\)"
    with pytest.raises(ValueError, match=words):
        make_pairs(settings(text_key="headline"), tmp_path / "out", dataset=dataset)
    make_pairs(settings(text_key="title"), tmp_path / "out", dataset=dataset)
    assert list(by_text(tmp_path / "out")) == ["another"]


def test_sources_that_are_not_there_or_unclear(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.*does not exist; a source is"):
        make_pairs(settings(tmp_path / "nowhere"), tmp_path / "out")
    tar_of(tmp_path / "w" / "000.tar", {"a.jpg": picture(1), "a.txt": b"x"})
    with pytest.raises(FileNotFoundError, match=r"2 of 3 files do not exist, the first is .*001.tar"):
        make_pairs(settings(f"{tmp_path}/w/{{000..002}}.tar"), tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds nothing to read"):
        make_pairs(settings(tmp_path / "empty"), tmp_path / "out")
    write(tmp_path / "mute" / "a.jpg", picture(1))
    with pytest.raises(ValueError, match="1 images and no texts"):
        make_pairs(settings(tmp_path / "mute"), tmp_path / "out")
    write(tmp_path / "mute" / "a.csv", "image,text\n")
    write(tmp_path / "mute" / "b.csv", "image,text\n")
    with pytest.raises(ValueError, match=r"several tables, \['a.csv', 'b.csv'\]"):
        make_pairs(settings(tmp_path / "mute"), tmp_path / "out")
    with pytest.raises(ValueError, match="lies in the source"):
        make_pairs(settings(folder), folder / "shards")
    with pytest.raises(ValueError, match="endless"):
        make_pairs(settings("emoji_world", count=0), tmp_path / "out")
    with pytest.raises(TypeError, match=r"dict of splits was given: choose one, dataset\['train'\]"):
        make_pairs(settings(), tmp_path / "out", dataset=datasets.DatasetDict({"train": None}))
    with pytest.raises(TypeError, match=r"a datasets.Dataset is expected, not list"):
        make_pairs(settings(), tmp_path / "out", dataset=[])
    with pytest.raises(ValueError, match="samples_per_shard must be 1 or more"):
        make_pairs(settings(folder, shard=0), tmp_path / "out")


def test_not_one_pair_says_why_and_can_be_mended(tmp_path):
    write(tmp_path / "s" / "a.jpg", b"broken")
    write(tmp_path / "s" / "a.txt", "text")
    with pytest.raises(ValueError, match=r"gives no pair \(1 not_an_image\); the first is a.jpg"):
        make_pairs(settings(tmp_path / "s"), tmp_path / "out")
    assert reasons(tmp_path / "out") == {"a.jpg": "not_an_image"}
    write(tmp_path / "s" / "a.jpg", picture(1))
    assert make_pairs(settings(tmp_path / "s"), tmp_path / "out")["samples"] == 1


def cut(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])


@pytest.mark.parametrize("damage", ["in data", "in header", "between samples", "corrupt header", "gzip", "empty"])
def test_damaged_tar_is_counted_and_the_next_tar_is_read(tmp_path, damage):
    suffix = ".tar.gz" if damage == "gzip" else ".tar"
    members = {}
    for k in range(4):
        members |= {f"{k}.jpg": picture(k), f"{k}.txt": f"text {k}".encode()}
    bad = tar_of(tmp_path / "w" / f"0{suffix}", members)
    with tarfile.open(bad) as tar:
        third = tar.getmember("2.jpg").offset
    if damage == "corrupt header":
        data = bytearray(bad.read_bytes())
        data[third : third + 512] = b"\xff" * 512
        bad.write_bytes(data)
    else:
        keep = {"in data": third + 700, "in header": third + 100, "between samples": third, "empty": 0}
        cut(bad, keep.get(damage, bad.stat().st_size // 2))
    tar_of(tmp_path / "w" / "1.tar", {"z.jpg": picture(9), "z.txt": b"the next tar"})
    manifest = make_pairs(settings(tmp_path / "w", shard=2), tmp_path / "out")
    found = by_text(tmp_path / "out")
    assert found["the next tar"].image == picture(9)
    assert manifest["dropped"]["damaged_tar"] == 1
    (line,) = [line for line in read_dropped(tmp_path / "out") if line["reason"] == "damaged_tar"]
    assert line["key"].startswith(bad.name)
    if damage not in ("gzip", "empty"):
        assert set(found) == {"text 0", "text 1", "the next tar"}
    assert all(pair.image == picture(int(text[-1])) for text, pair in found.items() if text != "the next tar")


def test_bad_samples_in_tars(tmp_path):
    members = {"a.jpg": picture(1), "a.txt": b"good", "b.jpg": picture(2), "c.txt": b"no image", "d.jpg": b"x"}
    members |= {"d.txt": b"d", "e.jpg": picture(3), "e.txt": b"e", "e.json": b"{", "f.jpg": picture(4), "f.txt": b"f"}
    tar = tar_of(tmp_path / "w" / "0.tar", members)
    with tarfile.open(tar, "a") as more:
        for name, data in (("f.jpg", picture(5)), ("f.txt", b"same key again")):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            more.addfile(entry, io.BytesIO(data))
    make_pairs(settings(tar), tmp_path / "out")
    assert sorted(by_text(tmp_path / "out")) == ["f", "good"]
    assert [(line["key"], line["reason"]) for line in read_dropped(tmp_path / "out")] == [
        ("0.tar/b", "no_text"),
        ("0.tar/c", "no_image"),
        ("0.tar/d", "not_an_image"),
        ("0.tar/e", "bad_json"),
        ("0.tar/f", "duplicate_uid"),
    ]


def test_tar_members_never_leave_the_tar_nor_are_unpickled(tmp_path):
    members = {"../../escape.jpg": picture(1), "../../escape.txt": b"dots", "../../escape.pkl": b"cos\nsystem\n"}
    make_pairs(settings(tar_of(tmp_path / "w" / "0.tar", members)), tmp_path / "out")
    assert list(by_text(tmp_path / "out")) == ["dots"]
    assert not list(tmp_path.rglob("escape*"))


def test_bad_rows_of_a_dataset_do_not_shift_their_neighbours(tmp_path):
    images = [picture(0), b"junk", None, picture(3), picture(4), picture(5)]
    dataset = datasets.Dataset.from_dict(
        {
            "image": [image and {"bytes": image, "path": None} for image in images],
            "text": ["t0", "t1", "t2", None, "t4", "t5"],
            "uid": ["u0", "u1", "u2", "u3", "u0", "u5"],
        },
        features=datasets.Features(
            {"image": datasets.Image(), "text": datasets.Value("string"), "uid": datasets.Value("string")}
        ),
    )
    manifest = make_pairs(settings(shard=1), tmp_path / "out", dataset=dataset)
    assert [(p.uid, p.text, p.image) for p in all_pairs(tmp_path / "out")] == [
        ("u0", "t0", images[0]),
        ("u5", "t5", images[5]),
    ]
    assert manifest["dropped"] == {"duplicate_uid": 1, "no_image": 1, "no_text": 1, "not_an_image": 1}
    assert reasons(tmp_path / "out")["row 4"] == "duplicate_uid"


# --- determinism, resumption, locks ---------------------------------------------------------------------------------


def test_count_takes_a_drawn_part_and_fills_up_after_bad_ones(folder, tmp_path):
    write(folder / "part0" / "00.jpg", b"broken")
    one, two = (make_pairs(settings(folder, count=9), tmp_path / f"o{s}", seed=s) for s in (0, 1))
    assert one["samples"] == two["samples"] == 9
    three, four = (make_pairs(settings(folder, count=3), tmp_path / f"p{s}", seed=s) for s in (0, 1))
    assert three["shards"][0]["sha256"] != four["shards"][0]["sha256"]
    assert make_pairs(settings(folder, count=3), tmp_path / "again", seed=1)["shards"] == four["shards"]


def test_second_run_finds_its_work_and_a_changed_source_is_told(folder, tmp_path, monkeypatch):
    first = make_pairs(settings(folder), tmp_path / "out")
    before = content(tmp_path / "out")
    assert sorted(before) == ["dropped.jsonl", "manifest.json", *(f"shard-00000{k}.tar" for k in range(3))]
    monkeypatch.setattr(pairs_module, "write_shard", lambda *_: pytest.fail("worked twice"))
    assert make_pairs(settings(folder), tmp_path / "out") == first
    assert content(tmp_path / "out") == before
    with pytest.raises(StageMismatch, match="samples_per_shard"):
        make_pairs(settings(folder, shard=5), tmp_path / "out")
    (folder / "part0" / "00.txt").write_text("another text")
    with pytest.raises(StageMismatch, match="digest"):
        make_pairs(settings(folder), tmp_path / "out")


def test_moved_folder_is_the_same_source(folder, tmp_path):
    first = make_pairs(settings(folder), tmp_path / "out")
    folder.rename(tmp_path / "moved")
    assert make_pairs(settings(tmp_path / "moved"), tmp_path / "out")["key"] == first["key"]


def test_locked_folder_is_left_alone(folder, tmp_path):
    with Work(tmp_path / "out", "pairs", 1, {}).lock(), pytest.raises(FolderLocked):
        make_pairs(settings(folder), tmp_path / "out")


KILLED = """
import os, sys
from mobileclip2_lite.pairs import collect
from mobileclip2_lite.work import folder, records
from mobileclip2_lite.recipes import Pairs, World
original, left = {name}, [int(sys.argv[3])]
def dying(*arguments, **named):
    if left[0] == 0:
        if {after}: original(*arguments, **named)
        os._exit(9)
    left[0] -= 1
    return original(*arguments, **named)
{name} = dying
collect.make_pairs(Pairs(source=sys.argv[1], count=0 if sys.argv[1] != "emoji_world" else 10, samples_per_shard=3),
                 sys.argv[2], world=World(names=8, image_size=24))
"""


@pytest.mark.parametrize(
    ("kind", "name", "calls", "after"),
    [
        ("folder", "collect.write_shard", 2, True),
        ("tars", "records.write_atomic", 1, True),
        ("emoji_world", "collect.write_shard", 2, False),
        ("folder", "folder.write_atomic", 1, True),  # the manifest stands, what led to it is not yet removed
    ],
)
def test_killed_run_goes_on_to_the_same_bytes(folder, tmp_path, kind, name, calls, after):
    write(folder / "part0" / "00.jpg", b"broken")
    source = str(folder) if kind == "folder" else kind
    if kind == "tars":
        make_pairs(settings(folder, shard=4), tmp_path / "tars")
        cut(tmp_path / "tars" / "shard-000001.tar", 3000)
        source = str(tmp_path / "tars")
    chosen = settings(source, count=10 if kind == "emoji_world" else 0, shard=3)
    world = World(names=8, image_size=24)
    whole = make_pairs(chosen, tmp_path / "whole", world=world)
    script = KILLED.format(name=name, after=after)
    killed = subprocess.run([sys.executable, "-c", script, source, str(tmp_path / "out"), str(calls)], check=False)
    assert killed.returncode == 9
    assert (tmp_path / "out" / "manifest.json").is_file() == name.startswith("folder")
    assert sorted((tmp_path / "out").glob("shard-*.json")), "killed before it had begun"
    resumed = make_pairs(chosen, tmp_path / "out", world=world)
    assert resumed == whole
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_damaged_progress_is_made_again(folder, tmp_path, monkeypatch):
    whole = make_pairs(settings(folder, shard=3), tmp_path / "whole")
    writes = []

    def failing(path, pairs):
        writes.append(path)
        if len(writes) == 3:
            raise OSError(28, "No space left on device")
        return original(path, pairs)

    original = pairs_module.write_shard
    monkeypatch.setattr(pairs_module, "write_shard", failing)
    with pytest.raises(OSError, match="No space left"):
        make_pairs(settings(folder, shard=3), tmp_path / "out")
    (tmp_path / "out" / "shard-000001.tar").unlink()
    assert make_pairs(settings(folder, shard=3), tmp_path / "out") == whole
    assert content(tmp_path / "out") == content(tmp_path / "whole")
