"""Rows of one image: one sample with several texts, stored once, and never each other's negatives."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobileclip2_lite.pairs import collect
from mobileclip2_lite.recipes import Pairs
from mobileclip2_lite.shards.samples import read_samples
from mobileclip2_lite.work.folder import read_manifest


def image(number: int) -> bytes:
    """A PNG that no other number gives."""
    pixels = np.random.default_rng(number).integers(0, 256, (12, 16, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def table(folder: Path, rows: list[tuple], header: tuple[str, ...] = ("image", "caption")) -> Path:
    """A table `t.csv` in `folder`, with the images that it names by number."""
    folder.mkdir(exist_ok=True)
    for name in {row[0] for row in rows}:
        (folder / name).write_bytes(image(int(Path(name).stem)))
    with open(folder / "t.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return folder / "t.csv"


def samples(folder: Path) -> list:
    return [sample for shard in sorted(folder.glob("*.tar")) for sample in read_samples(shard)]


ROWS = [(f"{n}.png", f"caption {k} of {n}") for k in range(3) for n in range(5)]
"""The rows of one image stand five rows apart."""


def test_rows_of_one_file_become_one_sample_with_all_texts_stored_once(tmp_path):
    source = table(tmp_path / "in", ROWS)
    manifest = collect.make_pairs(Pairs(source=str(source), samples_per_shard=2), tmp_path / "out")
    assert (manifest["samples"], manifest["texts"], manifest["dropped"]) == (5, 15, {})
    found = samples(tmp_path / "out")
    assert [sample.texts for sample in found] == [[f"caption {k} of {n}" for k in range(3)] for n in range(5)]
    assert [sample.text for sample in found] == [f"caption 0 of {n}" for n in range(5)]
    assert [sample.image for sample in found] == [image(n) for n in range(5)]


def test_a_sample_a_row_when_asked_for_and_its_work_is_another(tmp_path):
    source = table(tmp_path / "in", ROWS)
    manifest = collect.make_pairs(Pairs(source=str(source), group=False), tmp_path / "apart")
    assert manifest["samples"] == 15
    assert "texts" not in manifest
    assert all(sample.texts == [sample.text] for sample in samples(tmp_path / "apart"))
    together = collect.make_pairs(Pairs(source=str(source)), tmp_path / "together")
    assert together["key"] != manifest["key"]
    assert "group" not in read_manifest(tmp_path / "together")["settings"]  # as before there was a choice


def test_a_table_without_repeated_images_gives_the_same_bytes_either_way(tmp_path):
    source = table(tmp_path / "in", ROWS[:5])
    hashes = []
    for group in (True, False):
        out = tmp_path / str(group)
        hashes.append([s["sha256"] for s in collect.make_pairs(Pairs(source=str(source), group=group), out)["shards"]])
    assert hashes[0] == hashes[1]


def test_the_same_bytes_under_other_names_are_one_image(tmp_path):
    source = table(tmp_path / "in", ROWS[:2])
    (tmp_path / "in" / "1.png").write_bytes(image(0))
    manifest = collect.make_pairs(Pairs(source=str(source)), tmp_path / "out")
    assert manifest["samples"] == 1
    assert samples(tmp_path / "out")[0].texts == ["caption 0 of 0", "caption 0 of 1"]


def test_count_counts_samples_and_a_repeated_text_is_kept_once(tmp_path):
    source = table(tmp_path / "in", [*ROWS, ("0.png", "caption 1 of 0")])
    manifest = collect.make_pairs(Pairs(source=str(source), count=2), tmp_path / "out")
    assert (manifest["samples"], manifest["texts"]) == (2, 6)


def test_columns_that_differ_between_the_rows_become_lists(tmp_path):
    rows = [("0.png", "one", "a", "x"), ("0.png", "two", "b", "x"), ("0.png", "three", "c", "x")]
    source = table(tmp_path / "in", rows, ("image", "caption", "writer", "licence"))
    collect.make_pairs(Pairs(source=str(source)), tmp_path / "out")
    meta = samples(tmp_path / "out")[0].meta
    assert (meta["writer"], meta["licence"]) == (["a", "b", "c"], "x")


def test_a_bad_row_of_an_image_is_counted_and_leaves_the_others(tmp_path):
    source = table(tmp_path / "in", [("0.png", "one"), ("0.png", "  "), ("0.png", "three")])
    manifest = collect.make_pairs(Pairs(source=str(source)), tmp_path / "out")
    assert manifest["dropped"] == {"empty_text": 1}
    assert samples(tmp_path / "out")[0].texts == ["one", "three"]


class Stop(RuntimeError):
    """The run was killed."""


@pytest.mark.parametrize("at", [1, 4, 7, 10])
def test_a_killed_run_goes_on_to_the_same_samples(tmp_path, monkeypatch, at):
    source = table(tmp_path / "in", ROWS)
    settings = Pairs(source=str(source), samples_per_shard=2)
    whole = collect.make_pairs(settings, tmp_path / "whole")
    write, calls = collect.write_shard, Counter()

    def killed(*arguments):
        calls["shards"] += 1
        if calls["shards"] > at // 4:
            raise Stop
        return write(*arguments)

    monkeypatch.setattr(collect, "write_shard", killed)
    with pytest.raises(Stop):
        collect.make_pairs(settings, tmp_path / "out")
    monkeypatch.undo()
    assert collect.make_pairs(settings, tmp_path / "out")["shards"] == whole["shards"]


def test_rows_of_an_image_that_stand_beside_each_other_are_not_cut_by_a_shards_end(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = [
        {"image": {"bytes": image(n), "path": None}, "text": f"caption {k} of {n}"} for n in range(4) for k in (0, 1)
    ]
    given = datasets.Dataset.from_list(rows)
    manifest = collect.make_pairs(Pairs(samples_per_shard=1), tmp_path / "out", dataset=given)
    assert (manifest["samples"], manifest["texts"], len(manifest["shards"])) == (4, 8, 4)
