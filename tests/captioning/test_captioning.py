"""The caption stage: right captions at the right sample, the same bytes for any batch size, engine and interruption."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pickle
import shutil
import tarfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from doubles.fake_teachers import FakeTeachers, files, picture, sample, write_pairs
from doubles.kills import survive_kills
from PIL import Image

from mobileclip2_lite import recipes
from mobileclip2_lite.captioning import generation
from mobileclip2_lite.captioning import stage as captioning
from mobileclip2_lite.captioning.stage import caption, caption_pictures, captioner_key
from mobileclip2_lite.cli import data as cli_captions
from mobileclip2_lite.cli.places import Commands
from mobileclip2_lite.models.card import digest
from mobileclip2_lite.models.loaded import LoadedModel
from mobileclip2_lite.models.preprocess import Preprocess
from mobileclip2_lite.models.zoo import create_model, save_model
from mobileclip2_lite.recipes import Caption, Generate, Reinforce
from mobileclip2_lite.reinforcement.stage import reinforce
from mobileclip2_lite.reports import figures
from mobileclip2_lite.reports.inspection import inspect
from mobileclip2_lite.shards import samples as shards
from mobileclip2_lite.shards.dataset import ReinforcedDataset
from mobileclip2_lite.shards.tars import read_tar
from mobileclip2_lite.studies import captions as caption_figures
from mobileclip2_lite.views import decoding
from mobileclip2_lite.work import shardwise
from mobileclip2_lite.work.crew import Spread
from mobileclip2_lite.work.files import sha256_bytes
from mobileclip2_lite.work.folder import FolderLocked, StageMismatch, Work, read_manifest
from mobileclip2_lite.work.processes import Alone
from mobileclip2_lite.work.randomness import rng

SETTINGS = Caption(captioners=(), generate=Generate(captions=3), batch_size=8)


class Said(NamedTuple):
    text: str


class FakeCaptioner(torch.nn.Module):
    """Weights that tell one captioner from another."""

    def __init__(self, number: float = 1.0) -> None:
        super().__init__()
        self.number = torch.nn.Parameter(torch.tensor([number]))


def said(images: torch.Tensor, number: float, chance, count: int) -> list[str]:
    """What the fake captioner says of one picture: its mean brightness, and a random number."""
    return [f"captioner {number:g} sees {images.float().mean():.3f}, {chance.integers(10**6)}" for _ in range(count)]


def fake_generate(loaded, images, settings, *, rngs, precision):
    size = loaded.preprocess.image_size
    assert images.dtype == torch.uint8
    assert tuple(images.shape[1:]) == (3, size, size)
    assert len(rngs) == len(images) <= captioning.PIECE
    number = float(loaded.model.number.detach())
    return [
        [Said(text) for text in said(one, number, chance, settings.captions)]
        for one, chance in zip(images, rngs, strict=True)
    ]


def fakes() -> dict[str, LoadedModel]:
    first, second = Preprocess(24, interpolation="bilinear"), Preprocess(32, resize_mode="squash")
    return {
        "one": LoadedModel(FakeCaptioner(1.0), first, str.split),
        "two": LoadedModel(FakeCaptioner(2.0), second, str.split),
    }


@pytest.fixture
def fake(monkeypatch):
    """Captioners that need no weights."""
    monkeypatch.setattr(generation, "generate", fake_generate)
    monkeypatch.setattr(generation, "check", lambda settings, model: 64)
    return fakes()


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Three shards of ten pairs; a third of them have captions by `c` already."""
    groups = [[sample(10 * g + i, captions=i % 3 == 0) for i in range(10)] for g in range(3)]
    return write_pairs(tmp_path_factory.mktemp("pairs"), groups)


def hashes(folder: Path) -> dict[str, str]:
    return {name: sha256_bytes(data) for name, data in files(folder).items()}


def members(folder: Path) -> dict[str, dict[str, bytes]]:
    return {f"{name}/{key}": parts for name in shards.shard_names(folder) for key, parts in read_tar(folder / name)}


def test_every_sample_has_the_captions_of_its_own_picture(pairs, fake, tmp_path):
    manifest = caption(SETTINGS, pairs, tmp_path / "out", captioners=fake)
    assert (manifest["samples"], manifest["dropped"]) == (30, {})
    assert manifest["captions"] == {"one": 90, "two": 90}
    found = [
        item for name in shards.shard_names(tmp_path / "out") for item in shards.read_samples(tmp_path / "out" / name)
    ]
    assert len(found) == 30
    for item in found:
        for name, loaded in fake.items():
            image = Image.fromarray(decoding.pixels(item.image))
            seen = torch.from_numpy(np.array(loaded.preprocess.resize(image))).permute(2, 0, 1)
            expected = said(seen, float(loaded.model.number.detach()), rng(0, "caption", name, item.uid), 3)
            assert item.syn_texts[name] == expected
    assert len({text for item in found for text in item.syn_texts["one"]}) == 90


def test_members_that_were_there_stay_byte_for_byte(pairs, fake, tmp_path):
    caption(SETTINGS, pairs, tmp_path / "out", captioners=fake)
    before, after = members(pairs), members(tmp_path / "out")
    assert list(before) == list(after), "the same samples in the same shards, in the same order"
    for key, parts in before.items():
        for member in parts.keys() - {"syn.json"}:
            assert after[key][member] == parts[member], (key, member)
        old = json.loads(parts.get("syn.json", b"{}"))
        new = json.loads(after[key]["syn.json"])
        assert list(new) == [*old, "syn_text_one", "syn_text_two"]
        assert {name: new[name] for name in old} == old


@pytest.mark.parametrize("batch_size", [1, 33, 1000])
def test_batch_size_changes_no_byte(pairs, fake, tmp_path, batch_size):
    caption(SETTINGS, pairs, tmp_path / "some", captioners=fake)
    settings = dataclasses.replace(SETTINGS, batch_size=batch_size)
    caption(settings, pairs, tmp_path / "other", captioners=fake)
    assert hashes(tmp_path / "some") == hashes(tmp_path / "other")


def test_many_pieces_of_one_shard_keep_their_order(fake, tmp_path):
    tiny = [sample(number, captions=0, image=picture(number, 12, 9)) for number in range(3 * captioning.PIECE + 5)]
    pairs = write_pairs(tmp_path / "pairs", [tiny])
    alone = write_pairs(tmp_path / "alone", [tiny[-1:]])
    for source, batch_size in ((pairs, 1), (pairs, 40), (alone, 1)):
        settings = dataclasses.replace(SETTINGS, batch_size=batch_size)
        caption(settings, source, tmp_path / f"{source.name}-{batch_size}", captioners=fake)
    assert hashes(tmp_path / "pairs-1") == hashes(tmp_path / "pairs-40")
    *_, last = members(tmp_path / "pairs-1").values()
    assert [last] == list(members(tmp_path / "alone-1").values()), "a picture's captions are its own affair"


def test_the_manifest_names_captioners_decoding_and_the_pairs(pairs, fake, tmp_path):
    (tmp_path / "pairs").mkdir()
    for path in pairs.iterdir():
        shutil.copy(path, tmp_path / "pairs")
    work = Work(tmp_path / "pairs", "pairs", 1, {})
    work.commit(source="emoji_world", world={"names": 24}, shards=read_manifest(pairs)["shards"])
    settings = dataclasses.replace(SETTINGS, generate=Generate(captions=2, top_p=0.8), seed=3)
    manifest = caption(settings, tmp_path / "pairs", tmp_path / "once", captioners={"one": fake["one"]})
    assert manifest == read_manifest(tmp_path / "once")
    assert (manifest["stage"], manifest["source"], manifest["world"]) == ("caption", "emoji_world", {"names": 24})
    [card] = manifest["captioners"]
    assert (card["name"], card["seed"], card["precision"]) == ("one", 3, "fp32")
    assert card["generate"] == dataclasses.asdict(settings.generate)
    assert card["preprocess"]["size"] == 24
    assert card["sha256"] == digest(fake["one"].model)
    again = caption(SETTINGS, tmp_path / "once", tmp_path / "twice", captioners=fakes())
    assert [card["name"] for card in again["captioners"]] == ["one", "two"]
    assert {card["generate"]["captions"] for card in again["captioners"]} == {3}, "the same captioner is replaced"
    for item in shards.read_samples(tmp_path / "twice" / "shard-000000.tar"):
        assert len(item.syn_texts["one"]) == len(item.syn_texts["two"]) == 3
    more = caption(SETTINGS, tmp_path / "once", tmp_path / "more", captioners={"two": fake["two"]})
    assert [(card["name"], card["seed"]) for card in more["captioners"]] == [("one", 3), ("two", 0)]
    assert [len(item.syn_texts["one"]) for item in shards.read_samples(tmp_path / "more" / "shard-000000.tar")] == [
        2
    ] * 10


def test_finished_work_is_found_and_other_work_refused(pairs, fake, tmp_path):
    out = tmp_path / "out"
    manifest = caption(SETTINGS, pairs, out, captioners=fake)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert caption(dataclasses.replace(SETTINGS, batch_size=99), pairs, out, captioners=fakes()) == manifest
    assert before == {path: path.stat().st_mtime_ns for path in out.iterdir()}
    with pytest.raises(StageMismatch, match="top_p"):
        caption(dataclasses.replace(SETTINGS, generate=Generate(captions=3, top_p=0.5)), pairs, out, captioners=fake)
    with pytest.raises(StageMismatch, match="seed"):
        caption(dataclasses.replace(SETTINGS, seed=1), pairs, out, captioners=fake)
    with pytest.raises(StageMismatch, match="precision"):
        caption(SETTINGS, pairs, out, captioners=fake, precision="bf16")
    other = {**fakes(), "one": fake["one"]._replace(model=FakeCaptioner(1.5))}
    with pytest.raises(StageMismatch, match="captioners"):
        caption(SETTINGS, pairs, out, captioners=other)


def test_finished_shards_of_an_interrupted_run_are_kept_and_damaged_ones_made_again(pairs, fake, tmp_path, monkeypatch):
    out, calls = tmp_path / "out", []

    def counted(*arguments, **options):
        calls.append(1)
        return fake_generate(*arguments, **options)

    monkeypatch.setattr(generation, "generate", counted)
    caption(SETTINGS, pairs, out, captioners=fake)
    whole, first = hashes(out), len(calls)
    (out / "manifest.json").unlink()
    with open(out / "shard-000001.tar", "r+b") as file:
        file.truncate(5000)
    (out / "shard-000002.json").write_text("{")
    caption(SETTINGS, pairs, out, captioners=fake)
    assert hashes(out) == whole
    assert len(calls) - first == first * 2 // 3


def test_a_bad_picture_is_counted_and_its_neighbours_keep_their_captions(pairs, fake, tmp_path):
    good = list(shards.read_samples(pairs / "shard-000000.tar"))
    bad = [
        sample(900, image=b""),
        sample(901, image=picture(901)[:300]),
        sample(902, image=b"no picture at all"),
        sample(903, meta={"sha256": "0" * 64}),
    ]
    mixed = [item for pair in zip(good[:4], bad, strict=True) for item in pair] + good[4:]
    write_pairs(tmp_path / "pairs", [mixed, bad])
    path = tmp_path / "pairs" / "shard-000000.tar"
    with tarfile.open(path, "a") as tar:
        for extension, data in shards.members(good[0]).items():
            entry = tarfile.TarInfo(f"again.{extension}")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    manifest = caption(SETTINGS, tmp_path / "pairs", tmp_path / "out", captioners=fake)
    one = {"broken_image": 1, "hash_mismatch": 1, "no_image": 1, "not_an_image": 1}
    assert [shard["dropped"] for shard in manifest["shards"]] == [{**one, "duplicate_uid": 1}, one]
    assert [shard["samples"] for shard in manifest["shards"]] == [10, 0]
    caption(SETTINGS, pairs, tmp_path / "clean", captioners=fake)
    expected = [parts for key, parts in members(tmp_path / "clean").items() if key.startswith("shard-000000")]
    assert list(members(tmp_path / "out").values()) == expected


def test_a_shard_that_is_cut_short_gives_what_is_whole_and_a_missing_one_is_an_error(pairs, fake, tmp_path):
    (tmp_path / "pairs").mkdir()
    for path in pairs.iterdir():
        shutil.copy(path, tmp_path / "pairs")
    with open(tmp_path / "pairs" / "shard-000001.tar", "r+b") as file:
        file.truncate(file.seek(0, os.SEEK_END) // 2)
    manifest = caption(SETTINGS, tmp_path / "pairs", tmp_path / "out", captioners=fake)
    kept = manifest["shards"][1]["samples"]
    assert 0 < kept < 10
    assert manifest["dropped"] == {"damaged_tar": 10 - kept}
    (tmp_path / "pairs" / "shard-000001.tar").unlink()
    with pytest.raises(FileNotFoundError, match="shard-000001"):
        caption(SETTINGS, tmp_path / "pairs", tmp_path / "other", captioners=fake)


def test_empty_captions_are_left_out(pairs, fake, tmp_path, monkeypatch):
    def mute(loaded, images, settings, *, rngs, precision):
        return [[Said(" \n"), Said(" seen ")] for _ in rngs]

    monkeypatch.setattr(generation, "generate", mute)
    manifest = caption(SETTINGS, pairs, tmp_path / "out", captioners=fake)
    assert manifest["captions"] == {"one": 30, "two": 30}
    assert {
        text for item in members(tmp_path / "out").values() for text in json.loads(item["syn.json"])["syn_text_one"]
    } == {"seen"}


def test_what_comes_out_is_inspected_and_reinforced(pairs, fake, tmp_path):
    caption(SETTINGS, pairs, tmp_path / "captioned", captioners=fake)
    found = inspect(tmp_path / "captioned", html=tmp_path / "page.html", verify=True)
    assert (found["problems"], found["samples"], found["captioners"]) == ([], 30, ["c", "one", "two"])
    assert "captioner 2 sees" in (tmp_path / "page.html").read_text("utf-8")
    teachers = FakeTeachers()
    settings = Reinforce(teachers=teachers.names, views=2)
    manifest = reinforce(settings, tmp_path / "captioned", tmp_path / "reinforced", ensemble=teachers)
    assert (manifest["samples"], manifest["captioners"]) == (30, ["c", "one", "two"])
    texts = {
        item.uid: item.syn_texts
        for name in shards.shard_names(pairs)
        for item in shards.read_samples(tmp_path / "captioned" / name)
    }
    batch = next(iter(ReinforcedDataset(tmp_path / "reinforced", 16, 30, captioners=("one", "two"))))
    said_by = {
        name: sum(text in texts[uid][name] for uid, text in zip(batch.uids, batch.syn_texts, strict=True))
        for name in ("one", "two")
    }
    assert sum(said_by.values()) == 30
    assert min(said_by.values()) > 3, "both captioners are drawn from"
    rows = teachers.embed_texts("small", batch.syn_texts)
    assert torch.allclose(batch.syn_text_embeddings["small"], rows, atol=4e-3)
    with pytest.raises(ValueError, match="is reinforced"):
        caption(SETTINGS, tmp_path / "reinforced", tmp_path / "again", captioners=fake)


def test_bad_settings_and_names_are_refused_before_anything_is_written(pairs, fake, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="precision 'fp8'"):
        caption(SETTINGS, pairs, out, captioners=fake, precision="fp8")
    with pytest.raises(ValueError, match="batch_size"):
        caption(dataclasses.replace(SETTINGS, batch_size=0), pairs, out, captioners=fake)
    with pytest.raises(ValueError, match="captioner name 'a/b'"):
        caption(SETTINGS, pairs, out, captioners={"a/b": fake["one"]})
    with pytest.raises(ValueError, match="one or more"):
        caption(SETTINGS, pairs, out)
    with pytest.raises(ValueError, match="different names"):
        caption(dataclasses.replace(SETTINGS, captioners=("x/mine", "y/mine")), pairs, out)
    with pytest.raises(FileNotFoundError, match="lite-captioner-none"):
        caption(dataclasses.replace(SETTINGS, captioners=("lite-captioner-none",)), pairs, out)
    with pytest.raises(FileNotFoundError, match="has not finished"):
        caption(SETTINGS, tmp_path, out, captioners=fake)
    assert not out.exists()


def test_names_of_captioners(tmp_path):
    (tmp_path / "my captioner").mkdir()
    assert captioner_key(tmp_path / "my captioner") == "my-captioner"
    assert captioner_key("lite-captioner-short") == "lite-captioner-short"
    assert captioner_key("hf-hub:laion/CoCa-ViT-L-14") == "CoCa-ViT-L-14"
    assert captioner_key("coca_ViT-L-14@mscoco") == "coca_ViT-L-14@mscoco"
    with pytest.raises(ValueError, match="no name"):
        captioner_key("..:")


def test_two_processes_on_one_target(pairs, fake, tmp_path):
    with Work(tmp_path / "out", "caption", 1, {}).lock(), pytest.raises(FolderLocked, match="being written"):
        caption(SETTINGS, pairs, tmp_path / "out", captioners=fake)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_killed_at_thirty_moments_the_result_is_the_same(fake, tmp_path):
    groups = [[sample(10 * g + i, captions=1, image=picture(g, 24, 20)) for i in range(4)] for g in range(6)]
    pairs = write_pairs(tmp_path / "pairs", groups)
    survive_kills(lambda out: caption(SETTINGS, pairs, out, captioners=fake), tmp_path, kills=30, share=0.6)


# --- with a captioner that really writes, of random weights ----------------------------------------------------------


def babbler() -> dict[str, LoadedModel]:
    """A captioner that writes nonsense, the same one in every process."""
    torch.manual_seed(0)
    return {"babbler": create_model("lite-coca")}


BABBLE = dataclasses.replace(SETTINGS, generate=Generate(captions=2, top_p=0.5, max_length=8))


def test_a_real_captioner_writes_the_same_alone_and_among_others(pairs, tmp_path, monkeypatch):
    loaded = babbler()
    caption(BABBLE, pairs, tmp_path / "whole", captioners=loaded)
    monkeypatch.setattr(captioning, "PIECE", 3)
    caption(BABBLE, pairs, tmp_path / "threes", captioners=loaded)
    assert hashes(tmp_path / "whole") == hashes(tmp_path / "threes")
    found = [item for name in shards.shard_names(pairs) for item in shards.read_samples(tmp_path / "whole" / name)]
    assert len({text for item in found for text in item.syn_texts["babbler"]}) == 60
    assert all(item.syn_texts["babbler"] for item in found)
    images, uids = [decoding.pixels(item.image) for item in found], [item.uid for item in found]
    again = caption_pictures(loaded["babbler"], images, BABBLE.generate, uids=uids, name="babbler")
    assert [[one.text for one in own] for own in again] == [item.syn_texts["babbler"] for item in found]
    settings = dataclasses.replace(BABBLE, generate=Generate(captions=2, method="greedy"))
    with pytest.raises(ValueError, match="greedy captions"):
        caption(settings, pairs, tmp_path / "refused", captioners=loaded)
    assert not (tmp_path / "refused").exists()


def test_captioners_are_loaded_by_name_and_from_folders(pairs, tmp_path):
    save_model(babbler()["babbler"], tmp_path / "my captioner", name="mine", card={})
    settings = dataclasses.replace(BABBLE, captioners=(str(tmp_path / "my captioner"),))
    manifest = caption(settings, pairs, tmp_path / "named")
    assert [card["name"] for card in manifest["captioners"]] == ["my-captioner"]
    given = caption(BABBLE, pairs, tmp_path / "given", captioners={"my-captioner": babbler()["babbler"]})
    assert given["key"] == manifest["key"], "the same weights under the same name are the same work"
    assert hashes(tmp_path / "named") == hashes(tmp_path / "given")
    with pytest.raises(ValueError, match="no text decoder"):
        caption(dataclasses.replace(BABBLE, captioners=("lite-teacher-conv",)), pairs, tmp_path / "other")


def test_a_worker_on_another_machine_writes_the_same_bytes(pairs, tmp_path, monkeypatch):
    """What Ray does, without Ray: the worker is made from pickled parts. tests/work runs Ray itself."""
    caption(BABBLE, pairs, tmp_path / "local", captioners=babbler())

    def elsewhere(make, spread, label):
        assert (spread.engine, spread.workers) == ("ray", 2)
        return Alone(pickle.loads(pickle.dumps(make)))

    monkeypatch.setattr(shardwise, "open_crew", elsewhere)
    caption(BABBLE, pairs, tmp_path / "ray", captioners=babbler(), spread=Spread(engine="ray", workers=2))
    assert hashes(tmp_path / "local") == hashes(tmp_path / "ray")


# --- the command line ------------------------------------------------------------------------------------------------


def run(*arguments: str | Path) -> None:
    app = Commands()
    cli_captions.add(app, recipes.tiny())
    app.run(list(map(str, arguments)), "the command line")


def test_commands_caption_and_captions(pairs, fake, tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(captioning, "_load", lambda names: asked.append(names) or fake)
    run("caption", pairs, tmp_path / "out", "--captioners", "x", "y", "--generate.captions", "4", "--seed", "2")
    out = capsys.readouterr().out
    assert "30 samples in 3 shards" in out
    assert "two: 120 captions" in out
    assert asked == [("x", "y")]
    settings = read_manifest(tmp_path / "out")["settings"]
    assert (settings["seed"], settings["generate"]["captions"]) == (2, 4)
    run("captions", tmp_path / "out", "--references", "text", "--output", tmp_path / "report.json")
    out = capsys.readouterr().out
    assert "| two |" in out
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert report["rows"]["two"]["captions"] == 120


def test_command_filter(monkeypatch, tmp_path, capsys):
    from mobileclip2_lite.filtering import stage as filtering

    def fake_filter(settings, pairs, out, precision, device, spread):
        assert (settings.keep, pairs, out) == (0.5, Path("here"), Path("there"))
        assert (precision, device, spread) == ("bf16", "cpu", Spread(workers=2))
        return {"samples": 5, "shards": [1], "dropped": {"no_text": 2}, "removed": 4, "threshold": 0.25}

    monkeypatch.setattr(filtering, "filter_pairs", fake_filter)
    run("filter", "here", "there", "--keep", "0.5", "--precision", "bf16", "--device", "cpu", "--workers", "2")
    out = capsys.readouterr().out
    assert out.splitlines() == [
        "5 samples in 1 shard in there",
        "  dropped 2: no_text",
        "  removed 4: score below 0.2500",
    ]


# --- figures about captions ----------------------------------------------------------------------------------------


def test_measures_become_a_table():
    rows = {"a": {"unique": 0.5, "vocabulary": 1234}, "b": {"unique": None}}
    header, cells = caption_figures.measures(rows, {"unique": "unique (%)", "vocabulary": "vocabulary"})
    assert header == ["", "unique (%)", "vocabulary"]
    assert cells == [["a", "50", "1234"], ["b", "–", "–"]]


def test_next_words_are_what_the_model_would_write_next():
    loaded = babbler()["babbler"]
    image = Image.fromarray(decoding.pixels(picture(1)))
    [[greedy]] = caption_pictures(loaded, [image], Generate(captions=1, method="greedy", max_length=6))
    for place, token in enumerate(greedy.tokens[:-1]):
        beginning = loaded.tokenizer.decode(list(greedy.tokens[:place]))
        if tuple(loaded.tokenizer([beginning])[0, 1 : place + 1].tolist()) == greedy.tokens[:place]:
            words, chances = caption_figures.next_words(loaded, image, beginning, most=3)
            assert words[0] == loaded.tokenizer.decode([token]).strip()
            assert chances == sorted(chances, reverse=True)
    cold = caption_figures.next_words(loaded, image, "", temperature=0.1, most=3)[1]
    assert cold[0] > caption_figures.next_words(loaded, image, "", most=3)[1][0]


def test_pictures_of_captions_show_texts_signs_and_the_nucleus():
    made, axes = figures.figure(4, 3)
    caption_figures.written(axes, decoding.pixels(picture(1)), ["a cat", "a dog"], [True, False])
    assert axes.texts[0].get_text() == "✓ a cat\n✗ a dog"
    made, axes = figures.figure(4, 3)
    caption_figures.nucleus(axes, ["x", "y", "z"], [0.6, 0.3, 0.1], 0.7)
    filled = [bar.get_facecolor()[:3] != (1.0, 1.0, 1.0) for bar in axes.patches]
    assert filled == [True, True, False]
    assert figures.png(made)


def test_agreement_with_the_paper_needs_a_difference_larger_than_its_deviation():
    def row(*zero_shot: float) -> list[dict]:
        return [
            {"seed": k, "metrics": {"zero_shot": z, "retrieval_i2t_r1": z, "retrieval_t2i_r1": z - 0.02}}
            for k, z in enumerate(zero_shot)
        ]

    ladder = {
        "no captions": row(0.50, 0.52, 0.54),
        "+ ensemble": row(0.60, 0.62, 0.64),
        "captions: short": row(0.61, 0.62, 0.63),
        "captions: pretrained": row(0.40),
    }
    header, cells = caption_figures.agreement(ladder)
    found = {(cell[0], cell[1]): cell[2:] for cell in cells}
    assert header == ["change", "measure", "paper", "ours", "agree"]
    assert found["captions beside the alt-text", "zero-shot"] == ["+5.3", "+10.0 ± 2.8", "yes"]
    assert found["fine-tuned captioner for pretrained", "zero-shot"] == ["+0.0", "+22.0 ± 1.0", "no"]
    assert found["fine-tuned captioner for pretrained", "retrieval"] == ["+6.7", "+22.0 ± 1.0", "yes"]
    assert found["several captioners for one", "zero-shot"] == ["+0.0", "+0.0 ± 2.2", "yes"]
    assert found["detailed captions for short", "retrieval"] == ["-2.8", "not recorded", ""]
