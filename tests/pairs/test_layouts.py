"""Layouts of other programs, tables with trouble, sources with splits: read, counted, or named with a remedy."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import tarfile
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from doubles.source_files import picture, tar_of, write
from hypothesis import given, settings
from hypothesis import strategies as st

from mobileclip2_lite.pairs import splits
from mobileclip2_lite.pairs.collect import make_pairs, read_dropped
from mobileclip2_lite.pairs.tables import read_rows
from mobileclip2_lite.recipes import Pairs
from mobileclip2_lite.shards.samples import read_pairs


def made(source: Path | str, out: Path, **keys) -> tuple[dict[str, bytes], dict[str, int], dict]:
    """Images by text, what was dropped by reason, and the manifest."""
    manifest = make_pairs(Pairs(source=str(source), count=0, samples_per_shard=100, **keys), out)
    found = {pair.text: pair.image for shard in manifest["shards"] for pair in read_pairs(out / shard["name"])}
    return found, manifest["dropped"], manifest


def numbered(count: int, first: int = 0) -> dict[str, bytes]:
    return {f"text {k}": picture(k) for k in range(first, first + count)}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Twelve images, 0.jpg to 11.jpg."""
    for k in range(12):
        write(tmp_path / "s" / f"{k}.jpg", picture(k))
    return tmp_path / "s"


# --- tables ----------------------------------------------------------------------------------------------------------


def texts_with(changes: dict[int, str]) -> list[str]:
    return [changes.get(k, f"text {k}") for k in range(12)]


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
@pytest.mark.parametrize(
    ("changes", "bad"),
    [
        ({3: '"Best pizza in town'}, [3]),
        ({3: '"Best pizza', 9: 'screen 12" wide'}, [3]),
        ({3: '"Best pizza', 9: '"another one'}, [3, 9]),
        ({3: '"Best pizza', 7: 'a monitor of 24"'}, [3]),
        ({0: '"first', 11: '"last'}, [0, 11]),
        ({5: '"said "hello" to all"'}, [5]),
        ({4: '"closed"', 6: '"an open one'}, [6]),
    ],
)
def test_an_open_quote_costs_its_own_row(images, tmp_path, delimiter, changes, bad):
    rows = [f"{k}.jpg{delimiter}{text}\n" for k, text in enumerate(texts_with(changes))]
    table = write(
        images / f"t.{'tsv' if delimiter == chr(9) else 'csv'}", f"file_name{delimiter}text\n" + "".join(rows)
    )
    found, dropped, _ = made(table, tmp_path / "out")
    assert dropped == {"bad_row": len(bad)}
    assert [line["key"] for line in read_dropped(tmp_path / "out")] == [f"{table.name}:{k + 2}" for k in bad]
    good = {
        text.strip('"') if text == '"closed"' else text: k for k, text in enumerate(texts_with(changes)) if k not in bad
    }
    assert found == {text: picture(k) for text, k in good.items()}


def test_texts_of_several_lines_stay_whole(images, tmp_path):
    texts = ["line one\nline two", 'a "quoted"\r\nword, and a comma', "1, 2, 3\n4, 5", "\nfirst line empty"]
    rows = "".join('{}.jpg,"{}"\n'.format(k, text.replace('"', '""')) for k, text in enumerate(texts))
    found, dropped, _ = made(write(images / "t.csv", f"file_name,text\n{rows}"), tmp_path / "out")
    assert dropped == {}
    assert found == {text.strip(): picture(k) for k, text in enumerate(texts)}


def test_a_large_table_loses_the_row_of_the_open_quote_and_no_other(tmp_path):
    rows = [f"{k}.jpg,text {k} of a table\n" for k in range(8_000)]
    rows[1_000] = '1000.jpg,"open\n'
    found = list(read_rows(write(tmp_path / "t.csv", "file_name,text\n" + "".join(rows))))
    assert len(found) == 8_000
    assert [line for line, row in found if isinstance(row, str)] == [1_002]
    with pytest.raises(ValueError, match="quote in the header is not closed"):
        list(read_rows(write(tmp_path / "h.csv", 'file_name,"text\n' + "".join(rows))))


safe = st.text(st.characters(codec="utf-8", exclude_characters="\0\ud800", exclude_categories=("Cs",)), max_size=30)


@settings(max_examples=60, deadline=None)
@given(st.lists(safe, min_size=1, max_size=6), st.sampled_from(",;|"))
def test_what_the_csv_module_writes_is_read_back(tmp_path_factory, texts, delimiter):
    import csv

    path = tmp_path_factory.mktemp("csv") / "t.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL)
        writer.writerow(["file_name", "text"])
        writer.writerows([f"{k}.jpg", text] for k, text in enumerate(texts))
    found = [row for _, row in read_rows(path)]
    assert [row["text"] for row in found if isinstance(row, dict)] == texts


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text('"a,;b \n', max_size=12), min_size=1, max_size=8))
def test_no_line_of_a_damaged_table_takes_another(tmp_path_factory, texts):
    """Whatever quotes stand in the texts of some rows, rows without any come whole."""
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    rows = "".join(f"{k}a.jpg,{text}\n{k}b.jpg,whole {k}\n" for k, text in enumerate(texts))
    write(path, f"file_name,text\n0.jpg,first\n{rows}")
    found = {row["text"] for _, row in read_rows(path) if isinstance(row, dict)}
    assert {f"whole {k}" for k in range(len(texts))} <= found


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig", "utf-32"])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_encodings_are_found(images, tmp_path, encoding, kind):
    rows = [{"file_name": f"{k}.jpg", "text": f"Größe {k}"} for k in range(4)]
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    if kind == "csv":
        text = "file_name,text\n" + "".join(f"{row['file_name']},{row['text']}\n" for row in rows)
    found, dropped, _ = made(write(images / f"t.{kind}", text.encode(encoding)), tmp_path / "out")
    assert (found, dropped) == ({f"Größe {k}": picture(k) for k in range(4)}, {})


def test_texts_beside_images_may_be_utf16(images, tmp_path):
    for k in range(12):
        write(images / f"{k}.txt", f"Größe {k}".encode("utf-16" if k % 2 else "utf-8"))
    assert made(images, tmp_path / "out")[0] == {f"Größe {k}": picture(k) for k in range(12)}


@pytest.mark.parametrize(
    "table",
    [
        "filepath\ttitle\n{}\ta title, with a comma\n",
        "image_name| comment_number| comment\n{}| 0| a title, with a comma\n",
        "file_name;text;notes (a, b)\n{};a title, with a comma;x\n",
        "Image\tCaption\n{}\ta title, with a comma\n",
        "sep=;\nfile_name;text\n{};a title, with a comma\n",
        'title,filepath\n"a title, with a comma",{}\n',
    ],
)
def test_delimiters_and_columns_of_known_tables(images, tmp_path, table):
    found, dropped, _ = made(write(images / "t.csv", table.format("3.jpg")), tmp_path / "out")
    assert (found, dropped) == ({"a title, with a comma": picture(3)}, {})


def test_ways_to_name_an_image_in_a_table(images, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(images))
    monkeypatch.setenv("USERPROFILE", str(images))
    write(images / "sub" / "a b.jpg", picture(20))
    coded = base64.b64encode(picture(21) + bytes(200_000)).decode()
    names = ["0.jpg", (images / "1.jpg").as_uri(), str(images / "2.jpg"), "~/3.jpg", "sub\\a b.jpg", "./5.jpg"]
    names += [
        base64.b64encode(picture(6)).decode(),
        "data:image/jpeg;base64," + base64.b64encode(picture(7)).decode(),
        coded,
    ]
    rows = "".join(f'"{name}",text {k}\n' for k, name in enumerate(names))
    found, dropped, _ = made(write(images / "t.csv", f"image,text\n{rows}"), tmp_path / "out")
    assert dropped == {}
    wanted = {f"text {k}": picture(k) for k in (0, 1, 2, 3, 5, 6, 7)}
    assert found == {**wanted, "text 4": picture(20), "text 8": picture(21) + bytes(200_000)}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", "\n\r\nfile_name,text\n0.jpg,text 0\n1.jpg,text 1\n"),
        ("t.csv", "sep=;\n\nfile_name;text\n0.jpg;text 0\n1.jpg;text 1\n"),
        ("t.csv", "file_name,text\n0.jpg,text 0,\n1.jpg,text 1,,\n"),
        ("t.csv", "file_name,text,\n0.jpg,text 0,\n1.jpg,text 1,\n"),
        ("t.csv", "\ufefffile_name,text\r\n0.jpg,text 0\r\n1.jpg,text 1\r\n"),
        ("t.csv", "file_name,text\r0.jpg,text 0\r1.jpg,text 1\r"),
        ("t.csv", ",file_name,text\n0,0.jpg,text 0\n1,1.jpg,text 1\n"),
        ("t.csv", "file_name,text,note,note\n0.jpg,text 0,a,b\n1.jpg,text 1,a,b\n"),
        ("t.csv", "file_name,text,Text\n0.jpg,text 0,b\n1.jpg,text 1,b\n"),
        ("t.txt", "image\tcaption\n0.jpg\ttext 0\n1.jpg\ttext 1\n"),
        ("T.CSV", '"File_Name","Caption"\n"0.jpg","text 0"\n"1.jpg","text 1"\n'),
        ("t.jsonl", '{"file_name": "0.jpg", "text": "text 0"},\n{"file_name": "1.jpg", "text": "text 1"},\n'),
        ("t.jsonl", '[\n{"file_name": "0.jpg", "text": "text 0"},\n{"file_name": "1.jpg", "text": "text 1"},\n]\n'),
        ("t.json", '[\n{"file_name": "0.jpg", "text": "text 0"},\n{"file_name": "1.jpg", "text": "text 1"},\n]\n'),
        ("t.jsonl", '\ufeff{"file_name": "0.jpg", "text": "text 0"}\r\n\r\n{"file_name": "1.jpg", "text": "text 1"}'),
    ],
)
def test_tables_as_programs_and_people_leave_them(images, tmp_path, name, content):
    assert made(write(images / name, content), tmp_path / "out")[:2] == (numbered(2), {})


def test_uids_of_json_lines_are_used(images, tmp_path):
    rows = [
        {"file_name": f"{k}.jpg", "text": f"text {k}", "uid": uid}
        for k, uid in enumerate((100, "u1", "", None, True, 1.5))
    ]
    make_pairs(
        Pairs(source=str(write(images / "t.jsonl", "\n".join(map(json.dumps, rows)))), count=0), tmp_path / "out"
    )
    found = {pair.text: pair for pair in read_pairs(tmp_path / "out" / "shard-000000.tar")}
    assert [found[f"text {k}"].uid for k in (0, 1)] == ["100", "u1"]
    assert len({pair.uid for pair in found.values()}) == 6
    assert found["text 5"].meta["user_uid"] == 1.5, "what is no uid is kept"


@pytest.mark.parametrize("name", ["t.jsonl", "t.json"])
def test_a_json_array_is_a_table(images, tmp_path, name):
    rows = [{"file_name": f"{k}.jpg", "text": f"text {k}"} for k in range(12)]
    found, dropped, _ = made(write(images / name, json.dumps(rows, indent=1)), tmp_path / "out")
    assert (found, dropped) == (numbered(12), {})


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("t.jsonl", "{broken\n{also\n", r"no row that can be read; the first is line 1: not JSON"),
        ("t.jsonl", "[1]\n[2]\n", r"the first is line 1: a list, not an object"),
        ("t.json", '{"rows": [], "other": []}', r"one object with \['rows', 'other'\], neither Karpathy's nor COCO's"),
        ("t.json", '{"images": [], "annotations": []}', "has no rows"),
        ("t.jsonl", "[" * 100_000, "line 1: not JSON"),
        ("t.csv", "url,caption\nhttp://e.org/a.jpg,x\n", "names its images by URL.*img2dataset"),
        ("t.csv", "0.jpg,a dog\n1.jpg,a cat\n", r"no header, its first line is \['0.jpg', 'a dog'\]: add one"),
        ("t.csv", "file_name,text,text\n0.jpg,one,other\n", "several columns called 'text'"),
        ("t.tsv", "text\tfile_name\tfile_name\nx\t0.jpg\t1.jpg\n", "several columns called 'file_name'"),
        ("t.csv", "<!DOCTYPE html><html>404</html>", "no table but a web page"),
        ("t.csv", gzip.compress(b"file_name,text\n", mtime=0), "no table but compressed with gzip: unpack it"),
        ("t.csv", b"PK\x03\x04" + bytes(99), "no table but a zip file.*save it as CSV"),
        ("t.csv.gz", gzip.compress(b"file_name,text\n", mtime=0), "compressed with gzip: unpack it"),
        ("t.xlsx", b"PK\x03\x04", "a spreadsheet: save it as CSV"),
        ("t.tfrecord", "x", "output_format=webdataset"),
        ("t.zip", "PK", "unpack it"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, name, content, match):
    with pytest.raises(ValueError, match=match):
        make_pairs(Pairs(source=str(write(tmp_path / name, content)), count=0), tmp_path / "out")
    write(tmp_path / "folder" / name, content)
    if not name.startswith("t.json"):
        with pytest.raises(ValueError, match=match):
            make_pairs(Pairs(source=str(tmp_path / "folder"), count=0), tmp_path / "out")


# --- layouts of other programs ---------------------------------------------------------------------------------------


def img2dataset_json(number: int, caption: object) -> str:
    row = {"caption": caption, "url": "http://e.org/x.jpg", "key": f"{number:09d}", "status": "success"}
    return json.dumps({**row, "error_message": None, "width": 16, "height": 12, "exif": "{}", "sha256": "0" * 64})


@pytest.mark.parametrize("texts", ["json", "txt and json"])
def test_img2dataset_files(tmp_path, texts):
    for k in range(4):
        write(tmp_path / "s" / "00000" / f"{k:09d}.jpg", picture(k))
        write(tmp_path / "s" / "00000" / f"{k:09d}.json", img2dataset_json(k, f"text {k}"))
        if texts == "txt and json":
            write(tmp_path / "s" / "00000" / f"{k:09d}.txt", f"text {k}")
    write(tmp_path / "s" / "00000" / "000000004.jpg", picture(4))
    write(tmp_path / "s" / "00000" / "000000004.json", img2dataset_json(4, None))
    write(tmp_path / "s" / "00000" / "000000005.jpg", picture(5))
    write(tmp_path / "s" / "00000" / "000000005.json", "{broken")
    write(tmp_path / "s" / "00000_stats.json", json.dumps({"count": 5}))
    pyarrow.parquet.write_table(pyarrow.table({"url": ["x"], "caption": ["y"]}), tmp_path / "s" / "00000.parquet")
    found, dropped, _ = made(tmp_path / "s", tmp_path / "out")
    assert found == numbered(4)
    assert dropped == {"bad_json": 1, "no_text": 1}


def test_img2dataset_tars(tmp_path):
    members = {}
    for k in range(4):
        members |= {f"{k:09d}.jpg": picture(k), f"{k:09d}.json": img2dataset_json(k, f"text {k}").encode()}
        if k % 2:
            members |= {f"{k:09d}.txt": f"text {k}".encode()}
    members |= {"000000004.jpg": picture(4), "000000004.json": img2dataset_json(4, None).encode()}
    tar_of(tmp_path / "s" / "00000.tar", members)
    pyarrow.parquet.write_table(pyarrow.table({"url": ["x"], "caption": ["y"]}), tmp_path / "s" / "00000.parquet")
    write(tmp_path / "s" / "00000_stats.json", "{}")
    found, dropped, _ = made(tmp_path / "s", tmp_path / "out")
    assert (found, dropped) == (numbered(4), {"no_text": 1})


def test_img2dataset_parquet_whose_columns_are_empty_in_one_file(tmp_path):
    """A file without a failure has `error_message` of no type; one without captions has texts of none."""
    (tmp_path / "s").mkdir()
    errors = [[None, None], ["timeout", None], [None, None]]
    captions = [["text 0", "text 1"], [None, "text 3"], [None, None]]
    for file in range(3):
        columns = {"jpg": [picture(2 * file), None if errors[file][0] else picture(2 * file + 1)]}
        if file == 1:
            columns["jpg"] = [None, picture(3)]
        columns |= {"caption": captions[file], "error_message": errors[file], "width": [16, 16]}
        if file == 2:
            columns["extra"] = ["only", "here"]
        pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "s" / f"{file:05d}.parquet")
    found, dropped, _ = made(tmp_path / "s", tmp_path / "out")
    assert found == {f"text {k}": picture(k) for k in (0, 1, 3)}
    assert dropped == {"no_text": 3}


def test_captions_beside_images_in_caption_files(images, tmp_path):
    for k in range(12):
        write(images / f"{k}.caption", f"text {k}")
    write(images / "0.txt", "the .txt goes first")
    write(images / "lonely.caption", "no image")
    found, dropped, _ = made(images, tmp_path / "out")
    assert found == {"the .txt goes first": picture(0), **numbered(11, 1)}
    assert dropped == {"no_image": 1}


def test_texts_named_after_the_whole_name_of_an_image(images, tmp_path):
    for k in range(12):
        write(images / f"{k}.jpg.txt", f"text {k}")
    write(images / "0.txt", "the shorter name goes first")
    assert made(images, tmp_path / "out")[0] == {"the shorter name goes first": picture(0), **numbered(11, 1)}


def test_numbered_parts_of_a_table_are_one(images, tmp_path):
    for part in range(2):
        rows = [{"file_name": f"../{k}.jpg", "text": f"text {k}"} for k in range(6 * part, 6 * part + 6)]
        write(images / "train" / f"train-{part:05d}-of-00002.jsonl", "\n".join(map(json.dumps, rows)))
    write(images / "test" / "test-00000-of-00001.jsonl", '{"file_name": "../0.jpg", "text": "a test"}')
    assert made(images, tmp_path / "out")[0] == numbered(12)


def test_images_in_parquet_in_every_form(images, tmp_path):
    forms = {
        "bytes": [picture(k) for k in range(3)],
        "names": [f"{k}.jpg" for k in range(3)],
        "rows": [{"bytes": None, "path": f"{k}.jpg"} for k in range(3)],
        "base64": [base64.b64encode(picture(k)).decode() for k in range(3)],
        "lists": [[{"bytes": picture(k), "path": None}] for k in range(3)],
        "numbers": [list(picture(k)) for k in range(3)],
    }
    for name, column in forms.items():
        table = pyarrow.table({"image": column, "text": [f"text {k}" for k in range(3)]})
        pyarrow.parquet.write_table(table, images / f"{name}.parquet")
        assert made(images / f"{name}.parquet", tmp_path / name)[:2] == (numbered(3), {}), name


def test_images_in_json_lines_in_every_form(images, tmp_path):
    forms = ["0.jpg", ["1.jpg"], {"path": "2.jpg", "bytes": None}, base64.b64encode(picture(3)).decode()]
    forms += [{"bytes": base64.b64encode(picture(4)).decode(), "path": None}, ["5.jpg", "6.jpg"], [], "~7.jpg"]
    (images / "7.jpg").rename(images / "~7.jpg")
    rows = [json.dumps({"image": form, "text": f"text {k}"}) for k, form in enumerate(forms)]
    found, dropped, _ = made(write(images / "t.jsonl", "\n".join(rows)), tmp_path / "out")
    assert found == {f"text {k}": picture(k) for k in (0, 1, 2, 3, 4, 7)}
    assert dropped == {"no_image": 1, "several_images": 1}


@pytest.mark.parametrize("name", ["captions.txt", "results.csv"])
def test_flickrs_tables_beside_a_folder_of_images(tmp_path, name):
    header, mark = {
        "captions.txt": ("image,caption", ","),
        "results.csv": ("image_name| comment_number| comment", "| 0| "),
    }[name]
    for k in range(3):
        write(tmp_path / "s" / "Images" / f"{k}.jpg", picture(k))
    rows = "".join(f"{k}.jpg{mark}text {k}\n{k}.jpg{mark}also {k}\n" for k in range(3))
    write(tmp_path / "s" / name, f"{header}\n{rows}")
    write(tmp_path / "s" / "LICENSE.txt", "image of a licence, with text")
    found, dropped, manifest = made(tmp_path / "s", tmp_path / "out")
    assert (found, dropped, manifest["texts"]) == (numbered(3), {}, 6)


@pytest.mark.parametrize("name", ["annotations/captions_train2017.json", "dataset_flickr30k.json"])
def test_captions_in_one_object_are_named_where_the_folder_is_given(images, tmp_path, name):
    write(images / name, '{"images": [], "annotations": []}')
    with pytest.raises(ValueError, match=rf"{Path(name).name} looks like captions: name .*{name} as the source"):
        made(images, tmp_path / "out")


def test_metadata_parquet(images, tmp_path):
    rows = {"file_name": [f"{k}.jpg" for k in range(11)], "text": [f"text {k}" for k in range(11)]}
    pyarrow.parquet.write_table(pyarrow.table(rows), images / "metadata.parquet")
    found, dropped, _ = made(images, tmp_path / "out")
    assert (found, dropped) == (numbered(11), {"no_text": 1})


def test_lists_of_images_and_rows_of_texts(tmp_path):
    def encoded(*numbers):
        return [{"bytes": picture(k), "path": None} for k in numbers]

    rows = {
        "images": [encoded(0), encoded(1, 2), [], encoded(3), encoded(4), encoded(5)],
        "text": ["text 0", "x", "x", "['text 3', 'also 3']", '["text 4"]', "[text 5]"],
    }
    features = datasets.Features({"images": datasets.List(datasets.Image()), "text": datasets.Value("string")})
    dataset = datasets.Dataset.from_dict(rows, features=features)
    manifest = make_pairs(Pairs(count=0), tmp_path / "out", dataset=dataset)
    pairs = {pair.text: pair for pair in read_pairs(tmp_path / "out" / "shard-000000.tar")}
    assert {text: pair.image for text, pair in pairs.items()} == {
        "text 0": picture(0), "text 3": picture(3), "text 4": picture(4), "[text 5]": picture(5)
    }  # fmt: skip
    assert pairs["text 3"].texts == ["text 3", "also 3"]
    assert manifest["dropped"] == {"no_image": 1, "several_images": 1}


def test_captions_that_are_rows_of_their_own(images, tmp_path):
    captions = [
        {"raw": "text 0", "tokens": ["x"]},
        [{"raw": "text 1"}, {"raw": "also 1"}],
        {"en": "two"},
        {"caption": "text 3"},
    ]
    rows = [{"file_name": f"{k}.jpg", "sentences": caption} for k, caption in enumerate(captions)]
    found, dropped, _ = made(write(images / "t.jsonl", "\n".join(map(json.dumps, rows))), tmp_path / "out")
    assert found == {f"text {k}": picture(k) for k in (0, 1, 3)}
    assert dropped == {"text_not_string": 1}


def test_parquet_without_rows_and_with_columns_of_unknown_types(tmp_path):
    """`datasets` reads neither files without rows nor maps."""
    (tmp_path / "s").mkdir()
    columns = {"image": pyarrow.array([picture(0)]), "text": pyarrow.array(["text 0"])}
    columns["tags"] = pyarrow.array([[("a", 1)]], pyarrow.map_(pyarrow.string(), pyarrow.int32()))
    table = pyarrow.table(columns)
    pyarrow.parquet.write_table(table, tmp_path / "s" / "1.parquet")
    pyarrow.parquet.write_table(table.slice(0, 0), tmp_path / "s" / "0.parquet")
    assert made(tmp_path / "s", tmp_path / "out")[:2] == (numbered(1), {})
    with pytest.raises(ValueError, match=r"\['0.parquet'\] have no rows"):
        made(tmp_path / "s" / "0.parquet", tmp_path / "none")


def test_a_text_that_shows_nothing_is_empty(images, tmp_path):
    rows = "".join(f"{k}.jpg,{text}\n" for k, text in enumerate(("\u200b", "\ufeff\u200d", "\u3000", "!", "text 4")))
    found, dropped, _ = made(write(images / "t.csv", f"file_name,text\n{rows}"), tmp_path / "out")
    assert (found, dropped) == ({"!": picture(3), "text 4": picture(4)}, {"empty_text": 3})


# --- splits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("data/train-00000-of-00002.parquet", "train"),
        ("cc3m-validation-0007.tar", "validation"),
        ("val2017/0001.jpg", "validation"),
        ("images/train2014/cat/1.jpg", "train"),
        ("test_images/1.jpg", "test"),
        ("en/dev/0.tar", "validation"),
        ("testing.csv", "test"),
        ("trainval2012/1.jpg", "trainval"),
        ("trainval.tar", "trainval"),
        ("TrainImages/1.jpg", "train"),
        ("trainA/1.jpg", "train"),
        ("test_clean/1.jpg", "test"),
        ("minival2014/1.jpg", "validation"),
        ("testdev/1.jpg", "test"),
        ("HOLDOUT/1.jpg", "test"),
        ("validation_matched.parquet", "validation"),
        ("cc3m-train-val-0001.tar", None),
        ("val/train/1.jpg", "train"),
        ("TestTube/1.jpg", None),
        ("steam train/1.jpg", None),
        ("train_val/1.jpg", None),
        ("test_tube/1.jpg", None),
        ("training shoes/1.jpg", None),
        ("my train.jpg", None),
        ("test.txt", None),
        ("trains.tar", None),
        ("contest.tar", None),
    ],
)
def test_what_names_a_split(name, split):
    assert splits.split_of(name) == split


def parquet_of(folder: Path, name: str, number: int) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    rows = [{"image": {"bytes": picture(number), "path": None}, "text": f"text {number}"}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / name)


def files_of(folder: Path, name: str, number: int) -> None:
    write(folder / name / "a.jpg", picture(number))
    write(folder / name / "a.txt", f"text {number}")


def metadata_of(folder: Path, name: str, number: int) -> None:
    write(folder / name / "a.jpg", picture(number))
    write(folder / name / "metadata.csv", f"file_name,text\na.jpg,text {number}\n")


def tars_of(folder: Path, name: str, number: int) -> None:
    tar_of(folder / f"{name}.tar", {"a.jpg": picture(number), "a.txt": f"text {number}".encode()})


def tables_of(folder: Path, name: str, number: int) -> None:
    write(folder / "images" / f"{number}.jpg", picture(number))
    write(folder / f"{name}.csv", f"file_name,text\nimages/{number}.jpg,text {number}\n")


KINDS = {
    "parquet": (parquet_of, ("data/train-0.parquet", "data/validation-0.parquet", "data/test-0.parquet")),
    "files": (files_of, ("train2014", "val2014", "test2014")),
    "metadata": (metadata_of, ("train", "valid", "test")),
    "tars by folder": (tars_of, ("train/0", "val/0", "test/0")),
    "tars by name": (tars_of, ("x-train-0", "x-dev-0", "x-test-0")),
    "tables": (tables_of, ("train", "val", "test")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_train_is_taken_or_the_choice_asked_for(tmp_path, kind):
    make, names = KINDS[kind]
    for number, name in enumerate(names):
        make(tmp_path / "s", name, number)
    write(tmp_path / "s" / "README.md", "hello")
    found, dropped, manifest = made(tmp_path / "s", tmp_path / "o1")
    assert (found, dropped, manifest["split"]) == ({"text 0": picture(0)}, {}, "train")
    assert set(manifest["left_out"]) <= {"test", "validation", "none"}
    assert {"test", "validation"} <= set(manifest["left_out"])
    for number, asked in ((1, "validation"), (1, "val"), (2, "test")):
        found, dropped, manifest = made(f"{tmp_path / 's'}?split={asked}", tmp_path / f"o{asked}")
        assert (found, dropped) == ({f"text {number}": picture(number)}, {})
    if kind != "tables":  # several tables in one folder are for the user to name
        assert len(made(f"{tmp_path / 's'}?split=all", tmp_path / "all")[0]) == 3
    with pytest.raises(ValueError, match=r"no split 'dreams': choose one of \['test', 'train', 'validation'\]"):
        made(f"{tmp_path / 's'}?split=dreams", tmp_path / "no")


@pytest.mark.parametrize("kind", KINDS)
def test_splits_without_train_are_asked_for_and_a_lone_one_is_taken(tmp_path, kind):
    make, names = KINDS[kind]
    make(tmp_path / "s", names[1], 1)
    found, dropped, manifest = made(tmp_path / "s", tmp_path / "lone")
    assert (found, dropped) == ({"text 1": picture(1)}, {})
    assert "split" not in manifest
    make(tmp_path / "s", names[2], 2)
    with pytest.raises(ValueError, match=r"several splits and none is `train`: choose one of \['test', 'validation'\]"):
        made(tmp_path / "s", tmp_path / "two")


@pytest.mark.parametrize(
    ("of", "kinds", "asked", "taken"),
    [
        ([None, "validation"], "tt", "none", [0]),
        ([None, "validation"], "tt", "validation", [1]),
        ([None, "validation"], "tt", "all", [0, 1]),
        ([None, "validation"], "ti", None, [0, 1]),
        ([None, "train"], "tt", None, [0, 1]),
        ([None, "train", "test"], "ttt", None, [1]),
        (["train", "trainval", "test"], "ttt", None, [0]),
        (["trainval"], "t", None, [0]),
        (["validation", "validation"], "tt", None, [0, 1]),
    ],
)
def test_what_is_taken_of_splits(of, kinds, asked, taken):
    assert splits.choose(of, asked, "the source", list(kinds))[0] == taken


@pytest.mark.parametrize(
    ("of", "offered"),
    [
        ([None, "validation"], r"\['validation', 'none'\]"),
        (["trainval", "test"], r"\['test', 'trainval'\]"),
        (["validation", "test"], r"\['test', 'validation'\]"),
    ],
)
def test_test_samples_are_never_taken_unasked(of, offered):
    with pytest.raises(ValueError, match=f"none is `train`: choose one of {offered} with the source.split=NAME"):
        splits.choose(of, None, "the source", ["tar", "tar"])


@pytest.mark.parametrize("kind", ["tars", "wildcard", "files"])
def test_things_of_no_split_beside_a_test_split_are_asked_for(tmp_path, kind):
    folder = tmp_path / "s"
    if kind == "files":
        for number, name in enumerate(("", "val/")):
            write(folder / f"{name}{number}.jpg", picture(number))
            write(folder / f"{name}{number}.txt", f"text {number}")
    else:
        tars_of(folder, "0000", 0)
        tars_of(folder, "val", 1)
    source = folder / "*.tar" if kind == "wildcard" else folder
    with pytest.raises(ValueError, match=r"choose one of \['validation', 'none'\]"):
        made(source, tmp_path / "o1")
    found, _, manifest = made(f"{source}?split=none", tmp_path / "o2")
    assert (found, manifest["left_out"]["validation"] > 0) == ({"text 0": picture(0)}, True)


def test_a_lone_test_split_with_a_readme_and_a_banner_is_taken(tmp_path):
    write(tmp_path / "s" / "val" / "0.jpg", picture(0))
    write(tmp_path / "s" / "val" / "0.txt", "text 0")
    write(tmp_path / "s" / "README.txt", "about")
    write(tmp_path / "s" / "banner.png", picture(9, "PNG"))
    found, _, manifest = made(tmp_path / "s", tmp_path / "out")
    assert found == {"text 0": picture(0)}
    assert "split" not in manifest


def test_rows_of_one_table_in_several_splits(tmp_path):
    for number, folder in enumerate(("train", "val", "test")):
        write(tmp_path / "s" / folder / "a.jpg", picture(number))
    rows = "".join(f"{folder}/a.jpg,text {k}\n" for k, folder in enumerate(("train", "val", "test")))
    write(tmp_path / "s" / "metadata.csv", f"file_name,text\n{rows}")
    assert made(tmp_path / "s", tmp_path / "o1")[0] == {"text 0": picture(0)}
    assert made(f"{tmp_path / 's'}?split=test", tmp_path / "o2")[0] == {"text 2": picture(2)}
    rows = "".join(
        f"{folder}/a.jpg,text {k},{part}\n" for k, (folder, part) in enumerate((("train", "test"), ("val", "train")))
    )
    table = write(tmp_path / "s" / "own.csv", f"file_name,text,split\n{rows}")
    found, _, manifest = made(table, tmp_path / "o3")
    assert found == {"text 1": picture(1)}, "a column goes before a folder's name"
    assert (manifest["split"], manifest["left_out"]) == ("train", {"test": 1})


def test_saved_and_hub_data_sets_follow_the_same_rule(tmp_path, monkeypatch):
    def part(number):
        return datasets.Dataset.from_dict({"image": [picture(number)], "text": [f"text {number}"]})

    both = datasets.DatasetDict({"training": part(0), "test": part(1)})
    both.save_to_disk(tmp_path / "saved")
    found, _, manifest = made(tmp_path / "saved", tmp_path / "o1")
    assert found == {"text 0": picture(0)}
    assert (manifest["split"], manifest["left_out"]) == ("training", ["test"])
    assert made(f"{tmp_path / 'saved'}?split=test", tmp_path / "o2")[0] == {"text 1": picture(1)}
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: both)
    assert made("hf:a/b", tmp_path / "o3")[0] == {"text 0": picture(0)}
    assert made("hf:a/b?split=test", tmp_path / "o4")[0] == {"text 1": picture(1)}
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.DatasetDict({"a": part(0), "b": part(1)}))
    with pytest.raises(ValueError, match=r"none is `train`: choose one of \['a', 'b'\]"):
        made("hf:a/b", tmp_path / "o5")


def test_the_command_says_what_was_taken_and_what_was_not_read(tmp_path, capsys):
    from mobileclip2_lite.cli import main

    for number, name in enumerate(("train", "test")):
        tars_of(tmp_path / "s", name, number)
    write(tmp_path / "s" / "banner.png", picture(9, "PNG"))
    main(["pairs", str(tmp_path / "out"), "--source", str(tmp_path / "s"), "--count", "0"])
    said = capsys.readouterr().out
    assert "taken: split train; left out: 1 of no split, 1 of test (SOURCE?split=NAME chooses)" in said


def test_what_was_not_taken_is_said_in_words(capsys):
    from mobileclip2_lite.cli.summary import print_not_taken

    print_not_taken({"split": "training", "left_out": ["test", "b"]})
    print_not_taken({"ignored_files": {".json": 1, "(none)": 2}, "ignored_images": 1_234})
    print_not_taken({"split": "train", "left_out": {}})
    print_not_taken({"turned": 1})
    print_not_taken({"turned": 1_234, "settings": {"upright": True}})
    print_not_taken({})
    assert capsys.readouterr().out.splitlines() == [
        "  taken: split training; left out: test, b (SOURCE?split=NAME chooses)",
        "  not read: 1 .json, 2 without an ending, 1,234 images",
        "  taken: split train; left out: nothing (SOURCE?split=NAME chooses)",
        "  turned by EXIF: 1 image, taken as the pixels lie, as the official trainer does; --upright, with another "
        "folder, has them stored and learned upright",
        "  turned upright, as EXIF says: 1,234 images",
    ]


def test_a_wildcard_over_tars_follows_the_rule_and_braces_are_a_choice(tmp_path):
    for number, name in enumerate(("train", "test")):
        tars_of(tmp_path, name, number)
    assert made(f"{tmp_path}/*.tar", tmp_path / "o1")[0] == {"text 0": picture(0)}
    assert len(made(f"{tmp_path}/{{train,test}}.tar", tmp_path / "o2")[0]) == 2


# --- pictures that are not data, names that are not UTF-8, links -----------------------------------------------------


@pytest.mark.parametrize("kind", ["tars", "parquet", "tars and a table", "parquet and a table"])
def test_a_readme_picture_beside_data_is_not_data(tmp_path, kind):
    write(tmp_path / "s" / "assets" / "banner.png", picture(99, "PNG"))
    write(tmp_path / "s" / "README.md", "![](assets/banner.png)")
    if kind.startswith("parquet"):
        parquet_of(tmp_path / "s", "0.parquet", 0)
    else:
        tars_of(tmp_path / "s", "0", 0)
    if "table" in kind:
        write(tmp_path / "s" / "made_from.csv", "url,caption\nhttp://e.org/a.jpg,x\n")
        write(tmp_path / "s" / "empty.csv", "")
    found, dropped, manifest = made(tmp_path / "s", tmp_path / "out")
    assert (found, dropped, manifest["ignored_images"]) == ({"text 0": picture(0)}, {}, 1)
    assert manifest["ignored_files"] == {**({".csv": 2} if "table" in kind else {}), ".md": 1}


def test_a_table_about_images_goes_before_tars(images, tmp_path):
    tars_of(images, "backup", 50)
    write(images / "t.csv", "file_name,text\n" + "".join(f"{k}.jpg,text {k}\n" for k in range(12)))
    assert made(images, tmp_path / "out")[0] == numbered(12)


@pytest.mark.skipif(os.name == "nt" or os.uname().sysname == "Darwin", reason="file names are Unicode there")
def test_names_that_are_no_utf8_are_names(images, tmp_path):
    odd = os.fsencode(images) + b"/caf\xe9"
    for name in (b"", b" broken"):
        with open(odd + name + b".jpg", "wb") as file:
            file.write(picture(20) if not name else b"x")
        with open(odd + name + b".txt", "wb") as file:
            file.write(b"an odd name")
    for k in range(12):
        write(images / f"{k}.txt", f"text {k}")
    found, dropped, _ = made(images, tmp_path / "out")
    assert (found, dropped) == ({**numbered(12), "an odd name": picture(20)}, {"not_an_image": 1})
    assert [line["key"] for line in read_dropped(tmp_path / "out")] == ["caf\udce9 broken.jpg"]
    again = make_pairs(Pairs(source=str(tmp_path / "out"), count=0), tmp_path / "again")
    assert again["samples"] == 13


def test_names_in_tars_that_are_no_utf8(tmp_path):
    path = tmp_path / "0.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, errors="surrogateescape") as tar:
        for k, name in enumerate(("caf\udce9", "plain", "\udcf1o")):
            for end, data in (("jpg", picture(k) if k < 2 else b"x"), ("txt", f"text {k}".encode())):
                entry = tarfile.TarInfo(f"{name}.{end}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    found, dropped, _ = made(path, tmp_path / "out")
    assert (found, dropped) == (numbered(2), {"not_an_image": 1})


@pytest.mark.parametrize("packed", ["gz", "bz2", "xz"])
def test_compressed_tars_with_oddities(tmp_path, packed):
    with tarfile.open(tmp_path / f"0.tar.{packed}", f"w:{packed}") as tar:
        for place in ("jpg", "txt"):  # all images, then all texts
            for k in range(5):
                data = picture(k) if place == "jpg" else f"text {k}".encode()
                for name, content in ((f"._{k}.{place}", b"mac"), (f"{k}.{place}", data)):
                    entry = tarfile.TarInfo(name)
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
    assert made(tmp_path / f"0.tar.{packed}", tmp_path / "out")[:2] == (numbered(5), {})


def test_a_gzip_that_is_cut_gives_what_stands_before(tmp_path):
    path = tar_of(
        tmp_path / "0.tar", {f"{k}.{e}": d for k in range(200) for e, d in (("jpg", picture(k)), ("txt", b"t%d" % k))}
    )
    packed = gzip.compress(path.read_bytes())
    found, dropped, _ = made(write(tmp_path / "1.tar.gz", packed[: len(packed) // 2]), tmp_path / "out")
    assert 0 < len(found) < 200
    assert all(found[text] == picture(int(text[1:])) for text in found)
    assert dropped == {"damaged_tar": 1}
