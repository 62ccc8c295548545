"""The official layout, against a writer and a reader of it that share no code with the package."""

from __future__ import annotations

import gzip
import io
import json
import pickle
from collections import Counter

import numpy as np
import pytest
import torch
from doubles.fake_teachers import FakeTeachers, files, picture, sample, write_pairs
from doubles.official import PARAMETERS, TEACHERS, official_sample, write_tar
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F
from torchvision.transforms.autoaugment import _apply_op

from mobileclip2_lite.cli import main
from mobileclip2_lite.recipes import Augment, Reinforce
from mobileclip2_lite.reinforcement.stage import reinforce
from mobileclip2_lite.shards import datacompdr
from mobileclip2_lite.shards import samples as shards
from mobileclip2_lite.shards.dataset import ReinforcedDataset
from mobileclip2_lite.shards.joining import ShardJoiner, join, write_links
from mobileclip2_lite.shards.tars import ShardError
from mobileclip2_lite.views import decoding
from mobileclip2_lite.views.operations import OPERATIONS
from mobileclip2_lite.views.replay import replay
from mobileclip2_lite.views.view import SourceMismatch
from mobileclip2_lite.work.crew import Spread
from mobileclip2_lite.work.folder import read_manifest


@pytest.mark.parametrize("form", ["v1", "v2"])
@pytest.mark.parametrize("paug", ["list", "string"])
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_reads_every_published_form(tmp_path, form, paug, dtype):
    made = {f"uid{i}": official_sample(i, form, paug, dtype) for i in range(3)}
    path = write_tar(tmp_path / "a.tar", {uid: parts for uid, (parts, *_) in made.items()})
    read = list(datacompdr.read_official(path, TEACHERS))
    assert [item.uid for item in read] == list(made)
    cast = (lambda x: torch.tensor(x).bfloat16().float()) if dtype == "bf16" else torch.tensor
    for item in read:
        _, image_emb, text_emb, syn_emb = made[item.uid]
        captioner = "" if form == "v1" else "dfn"
        assert torch.equal(item.embeddings["image/second"], cast(image_emb)[:, 6:])
        assert torch.equal(item.embeddings["text/first"], cast(text_emb)[:, :6])
        assert torch.equal(item.embeddings[f"syn_text_{captioner}/second"], cast(syn_emb)[:, 6:])
        assert item.syn_texts[captioner][2] == f"caption 2 of {item.uid[3:]}"
        assert item.meta["source"] == f"https://example.org/{item.uid[3:]}.jpg"
        assert item.views[0].crop == (5 / 60, 3 / 44, 35 / 60, 23 / 44)


def test_reads_what_webdataset_wrote(tmp_path):
    """Its writer notes times in extended headers, and compresses `.gz` members itself."""
    import webdataset

    with webdataset.TarWriter(str(tmp_path / "a.tar")) as sink:
        for i in range(3):
            parts, *_ = official_sample(i, paug="list")
            emb = torch.load(io.BytesIO(gzip.decompress(parts.pop("pth.gz"))), weights_only=True)
            sink.write({"__key__": f"uid{i}", **parts, "pth.gz": emb})
    read = list(datacompdr.read_official(tmp_path / "a.tar", list(TEACHERS.items())))
    assert [item.uid for item in read] == ["uid0", "uid1", "uid2"]
    cast = torch.tensor(official_sample(2)[1]).bfloat16().float()
    assert torch.equal(read[2].embeddings["image/first"], cast[:, :6])


def official_replay(image, parameters, size=224):
    (top, left, height, width), operations = parameters
    image = F.resized_crop(image, top, left, height, width, [size, size], InterpolationMode.BICUBIC)
    for number, magnitude in operations:
        image = _apply_op(image, OPERATIONS[number], magnitude, InterpolationMode.NEAREST, None)
    return np.asarray(image)


def test_a_view_read_from_the_official_layout_has_the_official_pixels(tmp_path):
    image = Image.open(io.BytesIO(picture(1)))
    for parameters in PARAMETERS:
        view = datacompdr.to_view(parameters, *image.size)
        assert np.array_equal(np.asarray(replay(image, view, 224, "bicubic")), official_replay(image, parameters))
        assert datacompdr.to_official(view)[0] == parameters[0]
        again = datacompdr.to_official(view)[1]
        assert [(n, round(m, 4)) for n, m in again] == [(n, round(m, 4)) for n, m in parameters[1]]


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("paug", ["list", "string"])
def test_what_we_write_is_read_by_stock_libraries(tmp_path, dtype, paug):
    import webdataset

    pairs = write_pairs(tmp_path / "pairs", [[sample(i) for i in range(5)]])
    settings = Reinforce(teachers=("small", "large"), views=2, augment=Augment())
    teachers = FakeTeachers()
    reinforce(settings, pairs, tmp_path / "native", ensemble=teachers)
    native = {item.uid: item for item in shards.read_samples(tmp_path / "native" / "shard-000000.tar")}
    path = tmp_path / "official.tar"
    info = datacompdr.write_official(path, native.values(), teachers.names, dtype=dtype, paug=paug)
    assert info == datacompdr.write_official(path, native.values(), teachers.names, dtype=dtype, paug=paug)
    for stock in webdataset.WebDataset(str(path), shardshuffle=False):
        item = native[stock["__key__"]]
        parameters = json.loads(stock["paug.json"])["param_aug"]
        parameters = json.loads(parameters) if paug == "string" else parameters
        emb = (
            torch.load(io.BytesIO(gzip.decompress(stock["pth.gz"])), weights_only=True)
            if dtype == "bf16"
            else dict(np.load(io.BytesIO(stock["npz"]), allow_pickle=False))
        )
        image = Image.open(io.BytesIO(stock["jpg"])).convert("RGB")
        for row, view in enumerate(item.views):
            assert np.array_equal(
                official_replay(image, parameters[row]), np.asarray(replay(image, view, 224, "bicubic"))
            )
            both = torch.cat([item.embeddings["image/small"][row], item.embeddings["image/large"][row]])
            assert torch.equal(torch.as_tensor(emb["image_emb"][row]).float(), both)
        assert json.loads(stock["syn.json"])["syn_text_c"] == item.syn_texts["c"]
        caption = torch.cat([item.embeddings["syn_text_c/small"][1], item.embeddings["syn_text_c/large"][1]])
        assert torch.equal(torch.as_tensor(emb["text_emb"][1 + 1]).float(), caption), "text first, captions behind"
    back = list(datacompdr.read_official(path, {"small": 32, "large": 24}))
    for item in back:
        assert [v.crop for v in item.views] == [v.crop for v in native[item.uid].views]
        for name, rows in native[item.uid].embeddings.items():
            assert torch.equal(item.embeddings[name], rows)


def test_reinforce_writes_the_official_layout(tmp_path):
    pairs = write_pairs(tmp_path / "pairs", [[sample(i) for i in range(3)]])
    settings = Reinforce(teachers=("small", "large"), views=2, layout="datacompdr")
    reinforce(settings, pairs, tmp_path / "out", ensemble=FakeTeachers())
    read = list(datacompdr.read_official(tmp_path / "out" / "shard-000000.tar", {"small": 32, "large": 24}))
    assert len(read) == 3
    assert all(len(item.views) == 2 for item in read)
    with pytest.raises(ValueError, match="flip"):
        reinforce(
            Reinforce(views=1, augment=Augment(flip=0.5), layout="datacompdr"),
            pairs,
            tmp_path / "flipped",
            ensemble=FakeTeachers(),
        )


def test_several_captioners_stand_under_their_own_keys(tmp_path):
    item = sample(1)
    item.views = [datacompdr.to_view(PARAMETERS[0], 60, 44)]
    item.syn_texts = {"a": ["x"], "b": ["y", "z"]}
    item.embeddings = {"image/t": torch.ones(1, 3), "text/t": torch.ones(1, 3)}
    item.embeddings |= {"syn_text_a/t": torch.full((1, 3), 2.0), "syn_text_b/t": torch.full((2, 3), 3.0)}
    datacompdr.write_official(tmp_path / "x.tar", [item], ["t"], dtype="fp32")
    [back] = datacompdr.read_official(tmp_path / "x.tar", {"t": 3})
    assert torch.equal(back.embeddings["syn_text_b/t"], item.embeddings["syn_text_b/t"])
    with pytest.raises(ValueError, match="one captioner"):
        datacompdr.write_official(tmp_path / "y.tar", [item], ["t"], joined=True)


def broken(parts, **changes):
    return {k: v for k, v in {**parts, **{k.replace("_", "."): v for k, v in changes.items()}}.items() if v is not None}


class Evil:
    def __reduce__(self):
        return (print, ("unpickled",))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"paug_json": None}, r"paug\.json: missing"),
        ({"paug_json": b'{"param_aug": "[[["}'}, r"paug\.json: param_aug is not JSON"),
        (
            {"paug_json": b'{"param_aug": [[[0, 0, 500, 500], []], [[0, 0, 5, 5], []]]}'},
            "not inside an image of 60 x 44",
        ),
        (
            {"paug_json": b'{"param_aug": [[[0, 0, 5, 5], [[99, 1.0]]], [[0, 0, 5, 5], []]]}'},
            "are not .crop, operations",
        ),
        ({"paug_json": b'{"param_aug": []}'}, "0 views"),
        ({"npz": None}, "missing"),
        ({"npz": b"PK\x03\x04 not a zip"}, "npz"),
        ({"npz": None, "pth_gz": gzip.compress(pickle.dumps(Evil()))}, r"pth\.gz"),
        ({"syn_json": b'{"syn_text": ["only one"]}'}, "3 embeddings for the 1 captions"),
        ({"syn_json": b"[]"}, r"syn\.json: a list"),
        ({"json": b"\xff"}, "not UTF-8"),
    ],
)
def test_a_bad_member_is_named_and_counted(tmp_path, capsys, changes, message):
    good, bad = official_sample(1, dtype="fp32")[0], official_sample(2, dtype="fp32")[0]
    path = write_tar(tmp_path / "a.tar", {"uid1": good, "uid2": broken(bad, **changes)})
    with pytest.raises(ShardError, match=f"(?s)a.tar, key 'uid2'.*{message}"):
        list(datacompdr.read_official(path, TEACHERS))
    dropped = Counter()
    assert [item.uid for item in datacompdr.read_official(path, TEACHERS, dropped=dropped)] == ["uid1"]
    assert sum(dropped.values()) == 1
    assert "unpickled" not in capsys.readouterr().out


def test_dimensions_that_do_not_add_up_are_an_error(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"uid1": official_sample(1)[0]})
    with pytest.raises(ShardError, match="together 11"):
        list(datacompdr.read_official(path, {"first": 6, "second": 5}))


def test_join_with_pictures_by_uid(tmp_path):
    """One picture is a file, one is in a tar under another key, one has another size, one is missing."""
    made = {f"uid{i}": official_sample(i, image=False)[0] for i in range(4)}
    write_tar(tmp_path / "published" / "00000000.tar", made)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "uid0.jpg").write_bytes(picture(0))
    (tmp_path / "images" / "uid2.jpg").write_bytes(picture(2, 20, 20))
    write_tar(tmp_path / "images" / "x.tar", {"000017": {"jpg": picture(1), "json": b'{"uid": "uid1"}'}})
    manifest = join(tmp_path / "published", tmp_path / "out", TEACHERS, tmp_path / "images", {"first": 70.0})
    assert manifest["samples"] == 2
    assert manifest["dropped"] == {"missing_image": 1, "other_image": 1}
    lost = [json.loads(line) for line in (tmp_path / "out" / "missing.jsonl").read_text("utf-8").splitlines()]
    assert {(line["uid"], line["reason"]) for line in lost} == {("uid2", "other_image"), ("uid3", "missing_image")}
    assert lost[1]["source"] == "https://example.org/3.jpg"
    [batch] = ReinforcedDataset(tmp_path / "out", 32, 2, captioners=("",))
    assert sorted(batch.uids) == ["uid0", "uid1"]
    assert batch.image_embeddings["second"].shape == (2, 4)
    assert manifest == join(tmp_path / "published", tmp_path / "out", TEACHERS, tmp_path / "images", {"first": 70.0})


def test_dead_links_are_listed_and_tried_again_later(tmp_path, capsys):
    """Half of the pictures, as img2dataset leaves them; the others come later, all but one, whose link stays listed."""
    made = {f"uid{i}": official_sample(i, image=False)[0] for i in range(4)}
    write_tar(tmp_path / "published" / "00000000.tar", made)

    def fetched(name: str, numbers: list[int]) -> None:
        members = {f"{i:09d}": {"jpg": picture(i), "json": json.dumps({"uid": f"uid{i}"}).encode()} for i in numbers}
        write_tar(tmp_path / name / "00000.tar", members)

    fetched("first", [0, 1])
    join(tmp_path / "published", tmp_path / "joined", TEACHERS, tmp_path / "first")
    assert write_links(tmp_path / "joined", tmp_path / "links.csv") == 2
    links = (tmp_path / "links.csv").read_text("utf-8").splitlines()
    assert links == ["url,uid", "https://example.org/2.jpg,uid2", "https://example.org/3.jpg,uid3"]
    fetched("again", [2])
    both = [tmp_path / "joined", tmp_path / "again"]
    assert join(tmp_path / "published", tmp_path / "more", TEACHERS, both)["samples"] == 3
    assert write_links(tmp_path / "more", tmp_path / "links.csv") == 1
    words = ["join", tmp_path / "published", tmp_path / "command", "--images", *both, "--links", tmp_path / "links.csv"]
    main([*map(str, words), "--teachers", *(str(word) for teacher in TEACHERS.items() for word in teacher)])
    assert (tmp_path / "command" / "00000000.tar").read_bytes() == (tmp_path / "more" / "00000000.tar").read_bytes()
    assert "1 links to try again" in capsys.readouterr().out
    fetched("all", [0, 1, 2])
    join(tmp_path / "published", tmp_path / "whole", TEACHERS, tmp_path / "all")
    tars = [(tmp_path / name / "00000000.tar").read_bytes() for name in ("more", "whole")]
    assert tars[0] == tars[1], "as if they had been there at once"


def test_join_reads_pictures_of_every_kind_or_counts_them(tmp_path):
    """A bitmap and a TIFF in a tar become PNG; a broken link is missing; a page under a picture's name is no image."""
    made = {f"uid{i}": official_sample(i, image=False)[0] for i in range(4)}
    write_tar(tmp_path / "published" / "00000000.tar", made)
    folder = tmp_path / "images" / "sub"
    folder.mkdir(parents=True)
    (tmp_path / "images" / "._uid0.bmp").write_bytes(b"mac")
    bitmap, tiff = (io.BytesIO() for _ in range(2))
    Image.open(io.BytesIO(picture(0))).save(bitmap, "BMP")
    Image.open(io.BytesIO(picture(1))).save(tiff, "TIFF")
    (folder / "uid0.bmp").write_bytes(bitmap.getvalue())
    write_tar(tmp_path / "images" / "x.tar", {"uid1": {"tif": tiff.getvalue()}})
    (folder / "uid2.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (folder / "uid3.png").write_bytes(b"<html>404</html>")
    manifest = join(tmp_path / "published", tmp_path / "out", TEACHERS, tmp_path / "images")
    assert manifest["dropped"] == {"missing_image": 1, "not_an_image": 1}
    found = {sample.uid: sample for sample in shards.read_samples(tmp_path / "out" / "00000000.tar")}
    assert {uid: sample.ext for uid, sample in found.items()} == {"uid0": "png", "uid1": "png"}
    for number in range(2):
        assert np.array_equal(decoding.pixels(found[f"uid{number}"].image), decoding.pixels(picture(number)))


def test_joining_goes_on_after_a_kill_and_can_be_spread(tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    for number in range(3):
        made = {f"uid{i}": official_sample(i, image=False)[0] for i in (2 * number, 2 * number + 1)}
        write_tar(tmp_path / "published" / f"{number:08d}.tar", made)
        (tmp_path / "images" / f"uid{2 * number}.jpg").write_bytes(picture(2 * number))
    whole = join(tmp_path / "published", tmp_path / "whole", TEACHERS, tmp_path / "images")
    assert whole["dropped"] == {"missing_image": 3}
    assert (
        join(tmp_path / "published", tmp_path / "spread", TEACHERS, tmp_path / "images", spread=Spread(workers=2))
        == whole
    )
    assert files(tmp_path / "spread") == files(tmp_path / "whole")

    class Killed(BaseException):
        pass

    def dying(self, target):
        if target.name == "00000001.tar":
            raise Killed
        return make(self, target)

    made, make = [], ShardJoiner.__call__
    with monkeypatch.context() as patch:
        patch.setattr(ShardJoiner, "__call__", dying)
        with pytest.raises(Killed):
            join(tmp_path / "published", tmp_path / "cut", TEACHERS, tmp_path / "images")
    with monkeypatch.context() as patch:
        patch.setattr(ShardJoiner, "__call__", lambda self, target: made.append(target.name) or make(self, target))
        assert join(tmp_path / "published", tmp_path / "cut", TEACHERS, tmp_path / "images") == whole
    assert made == ["00000001.tar", "00000002.tar"]
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


def test_a_view_is_not_replayed_on_an_image_of_another_size():
    view = datacompdr.to_view(PARAMETERS[0], 60, 44)
    with pytest.raises(SourceMismatch, match="60 x 44"):
        replay(Image.new("RGB", (61, 44)), view, 32)
    assert replay(Image.new("RGB", (120, 88)), view, 32, on_mismatch="ignore").size == (32, 32)


def test_a_later_join_takes_other_scales_and_facts_and_joins_nothing_again(tmp_path, monkeypatch):
    write_tar(tmp_path / "published" / "0.tar", {"uid0": official_sample(0, image=False)[0]})
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "uid0.jpg").write_bytes(picture(0))
    places = (tmp_path / "published", tmp_path / "out", TEACHERS, tmp_path / "images")
    first = join(*places)
    assert [card["logit_scale"] for card in first["teachers"]] == [None, None]
    assert first["captioners"] == [""]
    monkeypatch.setattr("mobileclip2_lite.shards.joining.ShardJoiner.__call__", None)
    second = join(*places, {"first": 70.0}, facts={"second": {"image_size": 336, "logit_bias": -10.0}})
    assert second == read_manifest(tmp_path / "out")
    cards = {card["name"]: card for card in second["teachers"]}
    assert cards["first"]["logit_scale"] == 70.0
    assert (cards["second"]["image_size"], cards["second"]["logit_bias"]) == (336, -10.0)
    third = {card["name"]: card for card in join(*places, {"second": 60.0})["teachers"]}
    assert (third["first"]["logit_scale"], third["second"]["logit_scale"]) == (70.0, 60.0)
    assert third["second"]["logit_bias"] == -10.0
    with pytest.raises(ValueError, match=r"logit_scales names \['third'\]"):
        join(*places, {"third": 1.0})


def test_commands_join_and_shrink(tmp_path, capsys):
    made = {f"uid{i}": official_sample(i)[0] for i in range(3)}
    write_tar(tmp_path / "published" / "00000000.tar", made)
    words = ["--teachers", "first", "6", "second", "4", "--logit-scales", "second", "50"]
    main(["join", str(tmp_path / "published"), str(tmp_path / "joined"), *words])
    assert "3 samples in 1 shard" in capsys.readouterr().out
    manifest = read_manifest(tmp_path / "joined")
    assert [(card["name"], card["logit_scale"]) for card in manifest["teachers"]] == [("first", None), ("second", 50.0)]
    assert manifest == join(tmp_path / "published", tmp_path / "joined", TEACHERS, logit_scales={"second": 50.0})
    main(["shrink", str(tmp_path / "joined"), str(tmp_path / "small"), "--side", "16"])
    assert "3 samples in 1 shard" in capsys.readouterr().out
    [small] = (tmp_path / "small").glob("*.tar")
    assert {min(decoding.decode(item.image).size) for item in shards.read_samples(small)} == {16}
