"""Filtering: the best pairs and no others, untouched, the same bytes however the work was cut; and its report."""

from __future__ import annotations

import dataclasses
import importlib.util
import json

import numpy as np
import pytest
from doubles.fake_teachers import FakeTeachers, files, picture, sample, write_pairs
from doubles.tiny_training import write_model

from mobileclip2_lite import emoji_world, recipes
from mobileclip2_lite.filtering import stage as filtering
from mobileclip2_lite.filtering.scoring import ShardScorer
from mobileclip2_lite.filtering.stage import filter_pairs, read_scores
from mobileclip2_lite.models.embedded import load
from mobileclip2_lite.models.loaded import encode_images, encode_texts
from mobileclip2_lite.models.zoo import create_model
from mobileclip2_lite.pairs.collect import make_pairs
from mobileclip2_lite.recipes import Filter, Reinforce, World
from mobileclip2_lite.reinforcement.stage import reinforce
from mobileclip2_lite.reports import filter as filter_report
from mobileclip2_lite.shards.dataset import ReinforcedDataset
from mobileclip2_lite.shards.samples import members, read_samples, shard_names
from mobileclip2_lite.shards.tars import read_tar, write_tar
from mobileclip2_lite.views import decoding
from mobileclip2_lite.work.files import sha256_bytes, sha256_file
from mobileclip2_lite.work.folder import StageMismatch

SETTINGS = Filter(scorer="tiny-vit", keep=0.4, batch_size=8)


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    return create_model(write_model(tmp_path_factory.mktemp("scorer") / "tiny-vit"))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    groups = [[sample(40 * g + i, captions=i % 3) for i in range(n)] for g, n in enumerate((40, 33, 17))]
    return write_pairs(tmp_path_factory.mktemp("web") / "pairs", groups)


@pytest.fixture(scope="module")
def filtered(pairs, scorer, tmp_path_factory):
    out = tmp_path_factory.mktemp("filtered") / "out"
    return out, filter_pairs(SETTINGS, pairs, out, scorer)


def hashes(folder):
    return {name: sha256_bytes(data) for name, data in files(folder).items()}


def member_hashes(folder):
    return {
        key: {name: sha256_bytes(data) for name, data in parts.items()}
        for name in shard_names(folder)
        for key, parts in read_tar(folder / name)
    }


# --- what is kept ----------------------------------------------------------------------------------------------------


def test_the_best_share_of_the_whole_folder_is_kept(filtered, pairs, scorer):
    out, manifest = filtered
    items = [item for name in shard_names(pairs) for item in read_samples(pairs / name)]
    images = encode_images(scorer, [decoding.decode(item.image) for item in items])
    cosines = (images * encode_texts(scorer, [item.text for item in items])).sum(dim=1).numpy()
    lines = list(read_scores(out))
    assert [line["uid"] for line in lines] == [item.uid for item in items]
    np.testing.assert_allclose([line["score"] for line in lines], cosines, atol=2e-6)
    kept = [line["uid"] for line in lines if line["kept"]]
    assert manifest["samples"] == len(kept) == round(0.4 * 90)
    assert manifest["removed"] == 54
    assert manifest["scored"] == 90
    assert manifest["dropped"] == {}
    best = sorted(lines, key=lambda line: -line["score"])[:36]
    assert set(kept) == {line["uid"] for line in best}
    assert manifest["threshold"] == best[-1]["score"]
    assert manifest["mean"]["kept"] > manifest["threshold"] > manifest["mean"]["removed"]
    assert kept == [item.uid for name in shard_names(out) for item in read_samples(out / name)]
    assert sum(shard["samples"] for shard in manifest["shards"]) == 36
    assert sum(shard["removed"] for shard in manifest["shards"]) == 54


def test_several_texts_of_one_image_score_their_mean(scorer, tmp_path):
    texts = ["text 0", "a red fish", "two birds"]
    one = sample(0, captions=0)
    groups = [[dataclasses.replace(one, meta={**one.meta, "texts": texts}), sample(1, captions=0)]]
    folder = write_pairs(tmp_path / "pairs", groups)
    filter_pairs(Filter(keep=1.0), folder, tmp_path / "out", scorer)
    pixels = [decoding.pixels(item.image) for item in groups[0]]
    images, rows = encode_images(scorer, pixels), encode_texts(scorer, [*texts, "text 1"])
    expected = [(rows[:3] @ images[0]).mean().item(), (rows[3] @ images[1]).item()]
    np.testing.assert_allclose([line["score"] for line in read_scores(tmp_path / "out")], expected, atol=2e-6)


def test_members_of_kept_pairs_are_untouched(filtered, pairs):
    before, after = member_hashes(pairs), member_hashes(filtered[0])
    assert len(after) == 36
    assert after == {key: before[key] for key in after}
    assert any("syn.json" in parts for parts in after.values())


def test_manifest_says_who_scored(filtered, pairs, scorer):
    _, manifest = filtered
    assert manifest["scorer"]["name"] == "tiny-vit"
    assert len(manifest["scorer"]["sha256"]) == 64
    assert manifest["scorer"]["preprocess"] == scorer.preprocess.to_config()
    assert manifest["inputs"]["pairs"] == json.loads((pairs / "manifest.json").read_text("utf-8"))["key"]
    assert manifest["settings"] == {"keep": 0.4}


def test_training_and_reinforcement_take_the_result(filtered, tmp_path):
    out, _ = filtered
    dataset = ReinforcedDataset(out, 16, 12, seed=0, views="weak", teachers=())
    kept = {line["uid"] for line in read_scores(out) if line["kept"]}
    assert {uid for number in range(len(dataset)) for uid in dataset.batch(number).uids} == kept
    manifest = reinforce(Reinforce(teachers=("small", "large"), views=1), out, tmp_path, ensemble=FakeTeachers())
    assert manifest["samples"] == 36


def test_equal_scores_are_broken_by_uid(scorer, tmp_path):
    twins = [dataclasses.replace(sample(1), uid=uid) for uid in "hbfadgce"]
    folder = write_pairs(tmp_path / "twins", [twins[:5], twins[5:]])
    manifest = filter_pairs(Filter(keep=0.5), folder, tmp_path / "out", scorer)
    lines = list(read_scores(tmp_path / "out"))
    assert len({line["score"] for line in lines}) == 1
    assert sorted(line["uid"] for line in lines if line["kept"]) == list("abcd")
    assert manifest["samples"] == 4


def test_a_threshold_keeps_what_reaches_it_and_says_when_nothing_does(pairs, scorer, filtered, tmp_path):
    scores = sorted(line["score"] for line in read_scores(filtered[0]))
    with pytest.raises(ValueError, match=r"keeps nothing: the best of 90 pairs scores"):
        filter_pairs(Filter(keep=0, threshold=0.999), pairs, tmp_path / "out", scorer)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.scores.json")}
    assert len(before) == 3
    work = filter_pairs(Filter(keep=0, threshold=scores[50]), pairs, tmp_path / "out", scorer)
    assert work["samples"] == 40
    assert work["threshold"] == scores[50]
    assert work["settings"] == {"threshold": scores[50]}


def test_a_shard_without_kept_pairs_is_left_out(scorer, pairs, filtered, tmp_path):
    lines = {line["uid"]: line["score"] for line in read_scores(filtered[0])}
    items = sorted((item for n in shard_names(pairs) for item in read_samples(pairs / n)), key=lambda i: lines[i.uid])
    folder = write_pairs(tmp_path / "sorted", [items[:30], items[30:]])
    manifest = filter_pairs(Filter(keep=0.5), folder, tmp_path / "out", scorer)
    assert [shard["name"] for shard in manifest["shards"]] == ["shard-000001.tar"]
    assert [path.name for path in (tmp_path / "out").glob("*.tar")] == ["shard-000001.tar"]
    assert manifest["removed"] == 45


# --- however the work is cut -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 1000])
def test_batch_size_changes_no_byte(filtered, pairs, scorer, tmp_path, batch_size):
    filter_pairs(dataclasses.replace(SETTINGS, batch_size=batch_size), pairs, tmp_path / "out", scorer)
    assert hashes(tmp_path / "out") == hashes(filtered[0])


@pytest.mark.parametrize(("function", "place"), [("score", 2), ("write", 1), ("commit", 0)])
def test_a_killed_run_goes_on_and_ends_in_the_same_bytes(
    filtered, pairs, scorer, tmp_path, monkeypatch, function, place
):
    class Killed(BaseException):
        pass

    calls = {"score": 0, "write": 0, "commit": 0}

    def dying(name, real):
        def wrapper(*args, **kwargs):
            if name == function and calls[name] == place:
                raise Killed
            calls[name] += 1
            return real(*args, **kwargs)

        return wrapper

    with monkeypatch.context() as patch:
        patch.setattr(ShardScorer, "__call__", dying("score", ShardScorer.__call__))
        patch.setattr(filtering, "write_tar", dying("write", filtering.write_tar))
        patch.setattr(filtering, "_write_scores", dying("commit", filtering._write_scores))
        with pytest.raises(Killed):
            filter_pairs(SETTINGS, pairs, tmp_path / "out", scorer)
    assert not (tmp_path / "out" / "manifest.json").is_file()
    again = []
    with monkeypatch.context() as patch:
        score = ShardScorer.__call__
        patch.setattr(ShardScorer, "__call__", lambda self, target: again.append(target.name) or score(self, target))
        filter_pairs(SETTINGS, pairs, tmp_path / "out", scorer)
    assert again == (["shard-000002.tar"] if function == "score" else [])
    assert hashes(tmp_path / "out") == hashes(filtered[0])


def test_finished_work_is_found_and_other_work_refused(filtered, pairs, scorer, monkeypatch, tmp_path):
    out, manifest = filtered
    monkeypatch.setattr(filtering, "each_shard", None)
    assert filter_pairs(SETTINGS, pairs, out, scorer) == manifest
    with pytest.raises(StageMismatch, match="keep"):
        filter_pairs(dataclasses.replace(SETTINGS, keep=0.5), pairs, out, scorer)
    other = create_model(write_model(tmp_path / "other", seed=1))
    with pytest.raises(StageMismatch, match="sha256"):
        filter_pairs(SETTINGS, pairs, out, other)


# --- bad input -------------------------------------------------------------------------------------------------------


def test_bad_pairs_are_counted_by_reason(scorer, tmp_path):
    good = [sample(i) for i in range(8)]
    bad = [
        sample(20, image=b"GIF89a nothing"),
        sample(21, image=picture(21)[:300]),
        sample(22, text=" "),
        sample(23, meta={"sha256": "0" * 64}),
        dataclasses.replace(sample(24), uid=good[0].uid),
    ]
    mixed = [item for pair in zip(good[:5], bad, strict=True) for item in pair] + good[5:]
    folder = write_pairs(tmp_path / "pairs", [mixed[:9]])  # and then over it, with keys that hide the second of one uid
    info = write_tar(folder / "shard-000000.tar", [(f"key-{i}", members(item)) for i, item in enumerate(mixed)])
    assert info.samples == 13
    manifest = filter_pairs(Filter(keep=0.5), folder, tmp_path / "out", scorer)
    reasons = ("broken_image", "duplicate_uid", "empty_text", "hash_mismatch", "not_an_image")
    assert manifest["dropped"] == dict.fromkeys(reasons, 1)
    assert manifest["scored"] == 8
    assert manifest["samples"] == 4
    assert {line["uid"] for line in read_scores(tmp_path / "out")} == {item.uid for item in good}


def test_a_damaged_tar_gives_what_it_can(pairs, scorer, tmp_path):
    items = [[sample(40 * g + i) for i in range(10)] for g in range(2)]
    folder = write_pairs(tmp_path / "pairs", items)
    data = (folder / "shard-000001.tar").read_bytes()
    (folder / "shard-000001.tar").write_bytes(data[: len(data) // 2])
    manifest = filter_pairs(Filter(keep=1.0), folder, tmp_path / "out", scorer)
    assert manifest["samples"] + manifest["dropped"]["damaged_tar"] == 20
    assert 10 < manifest["samples"] < 20


def test_a_folder_without_a_usable_pair_is_an_error(scorer, tmp_path):
    folder = write_pairs(tmp_path / "pairs", [[sample(0, image=b"no")]])
    with pytest.raises(ValueError, match=r"no pair that can be scored \(1 not_an_image\)"):
        filter_pairs(Filter(), folder, tmp_path / "out", scorer)


@pytest.mark.parametrize(
    ("settings", "says"),
    [(Filter(keep=1.5), "keep = 1.5"), (Filter(threshold=2), "threshold = 2"), (Filter(batch_size=0), "batch_size")],
)
def test_bad_settings_are_refused(settings, says, pairs, scorer, tmp_path):
    with pytest.raises(ValueError, match=says):
        filter_pairs(settings, pairs, tmp_path / "out", scorer)
    assert not (tmp_path / "out").exists()


def test_a_scorer_needs_weights(tmp_path):
    with pytest.raises(ValueError, match="weights would be random"):
        load("lite-mci-s", "scorer")
    loaded = load(write_model(tmp_path / "mine"))
    assert loaded.preprocess.image_size == 16


# --- the report ------------------------------------------------------------------------------------------------------


def test_judge_by_hand():
    scores = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    wrong = np.array([True, False, True, False, False])
    found = filter_report.judge(scores, scores > 0.25, wrong)
    assert found["precision"] == 1 / 2
    assert found["recall"] == 1 / 2
    assert found["wrong_kept"] == 1 / 3
    assert found["average_precision"] == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)
    assert found["random"] == {"precision": 2 / 5, "recall": 2 / 5, "average_precision": 2 / 5}
    same = filter_report.judge(np.zeros(5), scores > 0, wrong)
    assert same["average_precision"] == pytest.approx(2 / 5)  # a filter that knows nothing is as good as chance
    assert same["precision"] is None
    assert filter_report.average_precision(scores, np.zeros(5, bool)) is None


def test_wrong_is_what_was_written_for_another_picture():
    world = World(names=60)
    scenes = [emoji_world.scene(world, "train", index) for index in range(600)]
    texts = [emoji_world.alt_text(picture, world) for picture in scenes]
    wrong = [filter_report.mismatched(text, s.uid, world) for text, s in zip(texts, scenes, strict=True)]
    assert 0.24 < np.mean(wrong) < 0.34  # 30 %, less those that fit by chance
    clean = dataclasses.replace(world, alt_text=dataclasses.replace(world.alt_text, mismatch=0.0, fragment=0.5))
    assert not any(filter_report.mismatched(emoji_world.alt_text(s, clean), s.uid, clean) for s in scenes)
    assert not any(emoji_world.fits(text, s) for text, s, bad in zip(texts, scenes, wrong, strict=True) if bad)


def test_report_of_the_embedded_web(scorer, tmp_path):
    world = dataclasses.replace(recipes.tiny().world, names=12)
    make_pairs(recipes.Pairs(count=60, samples_per_shard=25), tmp_path / "pairs", world)
    out = tmp_path / "kept"
    filter_pairs(Filter(keep=0.7), tmp_path / "pairs", out, scorer)
    found = filter_report.filter_report(out, tmp_path / "report.html", world)
    assert found["kept"] == 42
    assert found["removed"] == 18
    assert sum(found["histogram"]["kept"]) == 42
    assert sum(found["histogram"]["removed"]) == 18
    truth = found["truth"]
    wrong = {
        item.uid: filter_report.mismatched(item.text, item.meta["scene"], world)
        for name in shard_names(tmp_path / "pairs")
        for item in read_samples(tmp_path / "pairs" / name)
    }
    removed = [line["uid"] for line in read_scores(out) if not line["kept"]]
    assert truth["precision"] == sum(wrong[uid] for uid in removed) / 18
    assert truth["recall"] == sum(wrong[uid] for uid in removed) / sum(wrong.values())
    html = (tmp_path / "report.html").read_text("utf-8")
    assert html.count("<img") == 2 + 3 * filter_report.SHOWN
    assert "OpenMoji" in html
    assert "✗" in html
    with pytest.raises(ValueError, match="is not a training"):
        filter_report.filter_report(out, world=World(names=60))


def test_report_needs_the_folder_that_was_filtered(filtered, pairs, tmp_path):
    assert filter_report.filter_report(filtered[0])["kept"] == 36
    with pytest.raises(ValueError, match="with `pairs`"):
        filter_report.filter_report(filtered[0], tmp_path / "report.html")
    filter_report.filter_report(filtered[0], tmp_path / "report.html", pairs=pairs)
    assert "The worst" in (tmp_path / "report.html").read_text("utf-8")


# --- the annotated set and the embedded scorer -----------------------------------------------------------------------


def test_annotated_pairs_are_clean_and_of_their_own_split(tmp_path):
    world = World(names=60, image_size=32)
    data = emoji_world.annotated_dataset(world, 12, emoji_world.STYLES, start=3)
    for index, row in enumerate(data, 3):
        picture = emoji_world.scene(world, "annotated", index)
        assert row["scene"] == picture.uid == f"annotated-0-60-{index}"
        assert row["text"] == emoji_world.caption(picture, emoji_world.STYLES[index % 3])
        assert row["image"].size == (32, 32)
    again = emoji_world.annotated_dataset(dataclasses.replace(world, seed=5), 2, emoji_world.STYLES, start=5)
    assert again[:]["uid"] == data[2:4]["uid"]
    things = [emoji_world.scene(world, "annotated", index).things for index in range(50)]
    assert not set(things) & {emoji_world.scene(world, "train", index).things for index in range(2_000)}
    manifest = make_pairs(recipes.Pairs(count=0), tmp_path / "clean", dataset=data)
    assert manifest["samples"] == 12
    assert manifest["dropped"] == {}
    (name,) = shard_names(tmp_path / "clean")
    assert [item.meta["scene"] for item in read_samples(tmp_path / "clean" / name)] == data[:]["scene"]


@pytest.mark.parametrize("bad", [{"styles": ()}, {"styles": ("poetic",)}, {"count": 0}, {"start": -1}])
def test_annotated_pairs_refuse_nonsense(bad):
    with pytest.raises(ValueError, match="annotated_dataset"):
        emoji_world.annotated_dataset(World(), **{"count": 1, **bad})


@pytest.mark.parametrize(("name", "start"), [("lite-dfn", ""), ("emoji-dfn", "lite-dfn")])
def test_the_scorers_program_trains_and_measures(name, start, repository, tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("train_scorer", repository / "data" / "train_scorer.py")
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    monkeypatch.setattr(program, "evaluate", lambda *args, **kwargs: {"zero_shot": 0.5})
    monkeypatch.setattr(program, "WEB", 40)
    loaded, facts = program.train(name, tmp_path, 128, 128, 0, start)
    assert facts["samples"] == 128
    assert facts["scenes"] == 128
    assert facts["settings"]["start"] == start
    assert facts["world"].names == recipes.named(program.RECIPES[name]).world.names
    assert loaded.model.architecture == "lite-dfn"
    found = program.measure(name, loaded, tmp_path, 0.5)["removal"]
    assert found["pairs"] == 40
    assert 0 <= found["precision"] <= 1
    assert found["random"]["recall"] == 0.5


@pytest.mark.parametrize(("name", "recipe"), [("lite-dfn", "lite"), ("emoji-dfn", "emoji")])
def test_the_committed_scorer_is_what_its_card_says(name, recipe, repository):
    folder = repository / "data" / "scorers" / name
    card = json.loads((folder / "card.json").read_text("utf-8"))
    assert card["sha256"] == sha256_file(folder / "model.safetensors")
    assert (folder / "model.safetensors").stat().st_size < 12e6
    assert card["split"] == "annotated"
    assert card["removal"]["precision"] > 2 * card["removal"]["random"]["precision"]
    loaded = load(name)
    world = recipes.named(recipe).world
    scenes = [emoji_world.scene(world, "holdout", index, objects=(1,)) for index in range(24)]
    images = encode_images(loaded, [emoji_world.render(picture, world.image_size) for picture in scenes])
    texts = encode_texts(loaded, [picture.things[0].name for picture in scenes])
    own, other = (images * texts).sum(dim=1), (images * texts.roll(1, dims=0)).sum(dim=1)
    assert float((own > other).float().mean()) > 0.85
