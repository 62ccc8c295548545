"""Reinforcement: right rows at the right sample, the same bytes for any batch size, threads and interruption."""

from __future__ import annotations

import dataclasses
import io
import os
import shutil
import tarfile
from collections import Counter

import numpy as np
import pytest
import torch
from doubles.fake_teachers import FakeTeachers, files, picture, sample, write_pairs
from doubles.kills import survive_kills

from mobileclip2_lite.recipes import Reinforce, Train
from mobileclip2_lite.reinforcement.stage import reinforce
from mobileclip2_lite.shards import samples as shards
from mobileclip2_lite.shards.dataset import ReinforcedDataset
from mobileclip2_lite.training.teachers import TUNED, teacher_cards
from mobileclip2_lite.views import decoding
from mobileclip2_lite.views.replay import replay
from mobileclip2_lite.work.files import sha256_file
from mobileclip2_lite.work.folder import FolderLocked, StageMismatch, Work, read_manifest

SETTINGS = Reinforce(teachers=("small", "large"), views=3, batch_size=8)


@pytest.fixture(scope="module")
def teachers():
    return FakeTeachers()


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    groups = [[sample(10 * g + i, captions=i % 3) for i in range(10)] for g in range(3)]
    return write_pairs(tmp_path_factory.mktemp("pairs"), groups)


@pytest.fixture(scope="module")
def reinforced(pairs, teachers, tmp_path_factory):
    out = tmp_path_factory.mktemp("reinforced")
    return out, reinforce(SETTINGS, pairs, out, ensemble=teachers)


def test_stored_rows_are_those_of_the_replayed_views_and_texts(reinforced, teachers):
    out, manifest = reinforced
    assert manifest["samples"] == 30
    assert manifest["dropped"] == {}
    assert [(t["name"], t["dimension"], t["logit_scale"]) for t in manifest["teachers"]] == [
        ("small", 32, 50.0),
        ("large", 24, 70.0),
    ]
    stored = [item for name in shards.shard_names(out) for item in shards.read_samples(out / name)]
    assert manifest["texts"] == sum(len(item.texts) for item in stored)
    written = Counter(name for item in stored for name, texts in item.syn_texts.items() for _ in texts)
    assert manifest["captions"] == written
    assert manifest["captioners"] == sorted(written)
    for name in shards.shard_names(out):
        for item in shards.read_samples(out / name):
            image = decoding.pixels(item.image)
            for teacher in teachers.names:
                size, interpolation = teachers.image_size(teacher), teachers.interpolation(teacher)
                views = [torch.from_numpy(np.array(replay(image, view, size, interpolation))) for view in item.views]
                again = teachers.embed_images(teacher, torch.stack(views).permute(0, 3, 1, 2))
                assert torch.allclose(item.embeddings[f"image/{teacher}"], again, atol=4e-3)
                text = teachers.embed_texts(teacher, [item.text])
                assert torch.equal(item.embeddings[f"text/{teacher}"], text.bfloat16().float())
                for captioner, texts in item.syn_texts.items():
                    if texts:
                        rows = teachers.embed_texts(teacher, texts).bfloat16().float()
                        assert torch.equal(item.embeddings[f"syn_text_{captioner}/{teacher}"], rows)


@pytest.mark.parametrize(("batch_size", "threads"), [(1, 0), (7, 0), (1000, 3)])
def test_batch_size_and_threads_change_no_byte(reinforced, pairs, teachers, tmp_path, batch_size, threads):
    settings = dataclasses.replace(SETTINGS, batch_size=batch_size)
    reinforce(settings, pairs, tmp_path / "out", ensemble=teachers, threads=threads)
    assert files(tmp_path / "out") == files(reinforced[0])


def test_real_teachers_bytes_do_not_depend_on_the_batch_size(pairs, tmp_path):
    """Matrix libraries round differently at other batch shapes: a convolutional tower and a text tower show it."""
    import open_clip

    class Real(FakeTeachers):
        names = ("small",)

        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.model = open_clip.CLIP(
                embed_dim=64,
                vision_cfg={"layers": [1, 1, 1, 1], "width": 16, "image_size": 32, "head_width": 32},
                text_cfg={"context_length": 16, "vocab_size": 300, "width": 64, "heads": 2, "layers": 2},
            )

        def embed_images(self, name, images):
            return self.model.encode_image(images.float() / 255, normalize=True)

        def embed_texts(self, name, texts):
            tokens = torch.zeros(len(texts), 16, dtype=torch.long)
            for row, text in zip(tokens, texts, strict=True):
                coded = torch.tensor([*[1 + c % 250 for c in text.encode()][:15], 299])
                row[: len(coded)] = coded
            return self.model.encode_text(tokens, normalize=True)

    teachers = Real().eval()
    settings = dataclasses.replace(SETTINGS, storage="fp32", teachers=("small",))
    for batch_size in (1, 5, 64):
        reinforce(
            dataclasses.replace(settings, batch_size=batch_size), pairs, tmp_path / f"{batch_size}", ensemble=teachers
        )
    assert files(tmp_path / "1") == files(tmp_path / "5") == files(tmp_path / "64")


def test_precision_is_part_of_what_is_stored(reinforced, pairs, teachers, tmp_path):
    manifest = reinforce(SETTINGS, pairs, tmp_path / "out", ensemble=teachers, precision="bf16")
    assert manifest["key"] != reinforced[1]["key"]
    [one, *_] = shards.read_samples(tmp_path / "out" / "shard-000000.tar")
    [other, *_] = shards.read_samples(reinforced[0] / "shard-000000.tar")
    assert torch.allclose(one.embeddings["image/small"], other.embeddings["image/small"], atol=0.02)
    with pytest.raises(ValueError, match="precision 'fp8'"):
        reinforce(SETTINGS, pairs, tmp_path / "other", ensemble=teachers, precision="fp8")
    official = {"layout": "datacompdr"}
    for bad in ({"layout": "official"}, {"storage": "int4"}, *({**official, "storage": s} for s in ("int8", "int6"))):
        with pytest.raises(ValueError, match=r"layout|storage"):
            reinforce(dataclasses.replace(SETTINGS, **bad), pairs, tmp_path / "other", ensemble=teachers)


def test_finished_work_is_not_done_again_and_other_settings_are_refused(reinforced, pairs, teachers):
    out, manifest = reinforced
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert reinforce(SETTINGS, pairs, out, ensemble=teachers) == manifest
    assert before == {path: path.stat().st_mtime_ns for path in out.iterdir()}
    with pytest.raises(StageMismatch, match="views"):
        reinforce(dataclasses.replace(SETTINGS, views=2), pairs, out, ensemble=teachers)


def test_a_scale_tuned_later_is_taken_over_and_embeds_nothing_again(reinforced, pairs, tmp_path, monkeypatch):
    """`temperature.use` writes into the teacher's card: the shards stay, the manifest and trainings follow."""
    out = tmp_path / "out"
    shutil.copytree(reinforced[0], out)
    before = {path.name: sha256_file(path) for path in out.iterdir()}
    tuned = FakeTeachers()
    tuned.logit_scales = {"small": 33.0, "large": 70.0}
    monkeypatch.setattr(FakeTeachers, "embed_images", None)
    manifest = reinforce(SETTINGS, pairs, out, ensemble=tuned)
    assert {t["name"]: t["logit_scale"] for t in manifest["teachers"]} == tuned.logit_scales
    assert manifest == read_manifest(out)
    assert {**manifest, "teachers": reinforced[1]["teachers"]} == reinforced[1]
    after = {path.name: sha256_file(path) for path in out.iterdir()}
    assert before.pop("manifest.json") != after.pop("manifest.json")
    assert before == after
    settings = Train(model="tiny", distill=1.0)
    scales = lambda: {name: card.logit_scale for name, card in teacher_cards(out, settings).items()}  # noqa: E731
    assert scales() == tuned.logit_scales
    (out / TUNED).write_text('{"large": 11.0}', "utf-8")  # the folder's own search goes before the card
    reinforce(SETTINGS, pairs, out, ensemble=tuned)
    assert scales() == {"small": 33.0, "large": 11.0}


def test_a_bad_sample_is_counted_and_shifts_no_neighbour(reinforced, pairs, teachers, tmp_path):
    good = list(shards.read_samples(pairs / "shard-000000.tar"))
    bad = [
        sample(900, image=b""),
        sample(901, image=picture(901)[:300]),
        sample(902, text="  \n"),
        sample(903, meta={"sha256": "0" * 64}),
    ]
    mixed = [item for pair in zip(good[:4], bad, strict=True) for item in pair] + good[4:]
    write_pairs(tmp_path / "pairs", [mixed])
    manifest = reinforce(SETTINGS, tmp_path / "pairs", tmp_path / "out", ensemble=teachers)
    assert manifest["dropped"] == {"broken_image": 1, "empty_text": 1, "hash_mismatch": 1, "no_image": 1}
    assert manifest["samples"] == 10
    expected = {item.uid: item for item in shards.read_samples(reinforced[0] / "shard-000000.tar")}
    for item in shards.read_samples(tmp_path / "out" / "shard-000000.tar"):
        assert item.views == expected[item.uid].views
        for name, rows in item.embeddings.items():
            assert torch.allclose(rows, expected[item.uid].embeddings[name], atol=1e-6), name


def test_a_sample_that_comes_twice_in_a_shard_is_kept_once(teachers, tmp_path):
    write_pairs(tmp_path / "pairs", [[sample(1), sample(2)]])
    path = tmp_path / "pairs" / "shard-000000.tar"
    first = shards.members(sample(1))
    with tarfile.open(path, "a") as tar:
        for extension, data in first.items():
            entry = tarfile.TarInfo(f"again.{extension}")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    manifest = reinforce(SETTINGS, tmp_path / "pairs", tmp_path / "out", ensemble=teachers)
    assert (manifest["samples"], manifest["dropped"]) == (2, {"duplicate_uid": 1})


def test_a_damaged_shard_of_a_finished_part_is_made_again(reinforced, pairs, teachers, tmp_path):
    out = tmp_path / "out"
    reinforce(SETTINGS, pairs, out, ensemble=teachers)
    (out / "manifest.json").unlink()
    with open(out / "shard-000001.tar", "r+b") as file:
        file.truncate(5000)
    reinforce(SETTINGS, pairs, out, ensemble=teachers)
    assert files(out) == files(reinforced[0])


def test_a_shard_without_a_good_sample_is_written_empty_and_the_same_when_resumed(teachers, tmp_path):
    pairs = write_pairs(tmp_path / "pairs", [[sample(1)], [sample(2, text="")], [sample(3)]])
    manifest = reinforce(SETTINGS, pairs, tmp_path / "whole", ensemble=teachers)
    assert [shard["samples"] for shard in manifest["shards"]] == [1, 0, 1]
    reinforce(SETTINGS, pairs, tmp_path / "resumed", ensemble=teachers)
    for name in ("manifest.json", "shard-000001.json", "shard-000002.tar"):
        (tmp_path / "resumed" / name).unlink()
    reinforce(SETTINGS, pairs, tmp_path / "resumed", ensemble=teachers)
    assert files(tmp_path / "resumed") == files(tmp_path / "whole")
    batches = list(ReinforcedDataset(tmp_path / "whole", 16, 1))
    assert sorted(batch.uids[0] for batch in batches) == sorted([sample(1).uid, sample(3).uid])


def test_two_processes_on_one_target(pairs, teachers, tmp_path):
    with Work(tmp_path / "out", "reinforce", 1, {}).lock(), pytest.raises(FolderLocked, match="being written"):
        reinforce(SETTINGS, pairs, tmp_path / "out", ensemble=teachers)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_killed_at_fifty_moments_the_result_is_the_same(teachers, tmp_path):
    groups = [[sample(10 * g + i, captions=1, image=picture(g, 24, 20)) for i in range(4)] for g in range(6)]
    pairs = write_pairs(tmp_path / "pairs", groups)
    settings = dataclasses.replace(SETTINGS, views=2)
    survive_kills(lambda out: reinforce(settings, pairs, out, ensemble=teachers), tmp_path, kills=50, share=0.5)


def test_another_seed_draws_other_views(reinforced, pairs, teachers, tmp_path):
    other = tmp_path / "other"
    reinforce(dataclasses.replace(SETTINGS, seed=SETTINGS.seed + 1), pairs, other, ensemble=teachers)
    for path in sorted(reinforced[0].glob("*.tar")):
        for one, two in zip(shards.read_samples(path), shards.read_samples(other / path.name), strict=True):
            assert one.uid == two.uid
            assert not set(map(str, one.views)) & set(map(str, two.views))
