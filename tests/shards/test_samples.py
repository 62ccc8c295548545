"""The shard: the same bytes each time, read by stock libraries, checked against its schema, stored three ways."""

from __future__ import annotations

import json
import tarfile
from collections import Counter

import numpy as np
import pytest
import torch
from doubles.fake_teachers import picture, sample

from mobileclip2_lite.recipes import Augment
from mobileclip2_lite.shards import embeddings as storage
from mobileclip2_lite.shards import samples as shards
from mobileclip2_lite.shards.tars import ShardError, TarIndex, write_tar
from mobileclip2_lite.views.drawing import draw
from mobileclip2_lite.work.files import sha256_bytes, sha256_file
from mobileclip2_lite.work.randomness import rng


def reinforced(number, views=3, dimension=16):
    item = sample(number, captions=2)
    chance, digest = rng("s", number), sha256_bytes(item.image)
    item.views = [draw(chance, 60, 44, Augment(), digest) for _ in range(views)]
    item.meta |= {"width": 60, "height": 44, "sha256": digest, "licence": "mine"}
    generator = torch.Generator().manual_seed(number)
    for name, rows in (("image/t", views), ("text/t", 1), ("syn_text_c/t", 2)):
        rows = torch.randn(rows, dimension, generator=generator)
        item.embeddings[name] = torch.nn.functional.normalize(rows, dim=1)
    return item


@pytest.mark.parametrize("kind", storage.STORAGE)
def test_round_trip_and_the_same_bytes_each_time(tmp_path, kind):
    items = [reinforced(i) for i in range(4)]
    info = shards.write_shard(tmp_path / "a.tar", items, kind)
    assert info == shards.write_shard(tmp_path / "b.tar", items, kind)
    assert info == (sha256_file(tmp_path / "a.tar"), 4, (tmp_path / "a.tar").stat().st_size)
    tolerance = {"bf16": 2**-8, "int8": 0.51 / 127, "int6": 0.51 / 31, "fp32": 0}[kind]
    back = list(shards.read_samples(tmp_path / "a.tar"))
    for item, read in zip(items, back, strict=True):
        assert (read.uid, read.text, read.image, read.ext) == (item.uid, item.text, item.image, item.ext)
        assert (read.meta, read.syn_texts, read.views) == (item.meta, item.syn_texts, item.views)
        assert set(read.embeddings) == set(item.embeddings)
        for name, rows in item.embeddings.items():
            error = (read.embeddings[name] - rows).abs().amax(1) / rows.abs().amax(1)
            assert error.max() <= tolerance, name
    shards.write_shard(tmp_path / "c.tar", back, kind)
    again = list(shards.read_samples(tmp_path / "c.tar"))
    for item, read in zip(back, again, strict=True):  # reading and writing again loses nothing more
        assert all(torch.allclose(read.embeddings[n], rows, atol=1e-7) for n, rows in item.embeddings.items())


@pytest.mark.parametrize("kind", storage.STORAGE)
def test_one_row_alone_equals_that_row_of_all(kind):
    rows = torch.nn.functional.normalize(torch.randn(5, 24, generator=torch.Generator().manual_seed(0)), dim=1)
    data = storage.encode({"image/t": rows, "text/t": rows[:1]}, kind)
    whole = storage.decode(data)["image/t"]
    for row in range(5):
        assert np.array_equal(storage.rows(memoryview(data), "image/t", row), whole[row].numpy())
    with pytest.raises(ValueError, match="row 5 of 5"):
        storage.rows(data, "image/t", 5)
    with pytest.raises(ValueError, match="no tensor 'image/u'; there are image/t"):
        storage.rows(data, "image/u", 0)


def test_stock_libraries_read_it(tmp_path):
    import webdataset
    from safetensors.torch import load

    items = [reinforced(i) for i in range(3)]
    shards.write_shard(tmp_path / "a.tar", items)
    with tarfile.open(tmp_path / "a.tar") as tar:
        names = tar.getnames()
        assert all(entry.mtime == 0 for entry in tar)
    order = [name.partition(".")[2] for name in names[:6]]
    assert order == ["jpg", "txt", "json", "syn.json", "paug.json", "emb.safetensors"]
    for item, stock in zip(items, webdataset.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False), strict=True):
        assert stock["jpg"] == item.image
        assert stock["txt"].decode() == item.text
        assert json.loads(stock["json"])["uid"] == item.uid
        assert torch.equal(load(stock["emb.safetensors"])["image/t"], item.embeddings["image/t"].bfloat16())


def test_foreign_tars_are_pairs_too(tmp_path):
    """Any WebDataset tar: folders in keys, no json, jpeg for jpg, long names, other members."""
    long = "deep/" * 30 + "name"
    samples = {
        "x/000": {"jpeg": picture(1), "txt": "été".encode(), "cls": b"3"},
        long: {"png": picture(2), "txt": b"b"},
    }
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        folder = tarfile.TarInfo("x")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for key, parts in samples.items():
            for extension, data in parts.items():
                import io

                entry = tarfile.TarInfo(f"{key}.{extension}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    one, two = shards.read_pairs(tmp_path / "a.tar")
    assert (one.uid, one.ext, one.text) == ("x/000", "jpg", "été")
    assert (two.uid, two.image) == (long, picture(2))
    index = TarIndex(tmp_path / "a.tar")
    assert index.keys == ["x/000", long]
    assert bytes(index.member(1, "png")) == picture(2)


@pytest.mark.parametrize(
    ("member", "data", "message", "reason"),
    [
        ("json", b"{", r"member json: not JSON", "bad_json"),
        ("json", b'{"schema": 9}', r"member json: schema 9, this version reads up to 1", "newer_schema"),
        ("json", b"[1]", r"member json: a list, not an object", "bad_json"),
        ("syn.json", b'{"syn_text_c": "one"}', r"member syn.json: syn_text_c is not a list of strings", "bad_captions"),
        ("paug.json", b'{"views": "AAA="}', r"member paug.json: packed views end within a view", "bad_views"),
        ("paug.json", b'{"param_aug": []}', r"member paug.json: .*read_official", "bad_views"),
        ("emb.safetensors", b"x", r"member emb.safetensors: not safetensors", "bad_embeddings"),
        ("emb.safetensors", b"\xff" * 64, r"member emb.safetensors: not safetensors", "bad_embeddings"),
        ("txt", None, r"member txt: missing", "no_text"),
        ("jpg", None, r"member jpg.png.webp: missing", "no_image"),
    ],
)
def test_schema_errors_name_shard_key_and_member(tmp_path, member, data, message, reason):
    parts = shards.members(reinforced(1))
    if data is None:
        del parts[member]
    else:
        parts[member] = data
    good = reinforced(2)
    write_tar(tmp_path / "a.tar", [("bad", parts), (good.uid, shards.members(good))])
    with pytest.raises(ShardError, match=f"a.tar, key 'bad', {message}"):
        list(shards.read_samples(tmp_path / "a.tar"))
    dropped = Counter()
    assert [item.uid for item in shards.read_samples(tmp_path / "a.tar", dropped)] == [good.uid]
    assert dropped == {reason: 1}


def test_what_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="two samples have the uid"):
        shards.write_shard(tmp_path / "a.tar", [sample(1), sample(1)])
    item = reinforced(1)
    item.embeddings["image/t"][0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"image/t.*not a finite"):
        shards.write_shard(tmp_path / "a.tar", [item])
    with pytest.raises(ValueError, match="storage 'int4'"):
        shards.write_shard(tmp_path / "a.tar", [reinforced(2)], "int4")
    with pytest.raises(ValueError, match="image extension 'svg' is not one of jpg"):
        shards.write_shard(tmp_path / "a.tar", [sample(1, ext="svg")])
    assert list(tmp_path.iterdir()) == []


def test_int8_takes_about_half_of_bf16(tmp_path):
    item = reinforced(1, views=5, dimension=768)
    sizes = {kind: len(storage.encode(item.embeddings, kind)) for kind in storage.STORAGE}
    assert sizes["int6"] < 0.42 * sizes["bf16"]
    assert sizes["int8"] < 0.53 * sizes["bf16"] < 0.28 * sizes["fp32"]
