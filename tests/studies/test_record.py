"""Rows are trained once, measured on the test split and recorded with every hit; finished work is found."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from mobileclip2_lite import cli, recipes
from mobileclip2_lite.shards import samples as shards
from mobileclip2_lite.studies import data, intervals, record, recorded
from mobileclip2_lite.studies.questions import STUDIES, Study
from mobileclip2_lite.studies.rows import CONV, ROWS, SAMPLES, SE, SHORT, WEB, Row
from mobileclip2_lite.work.folder import FolderLocked, Work, read_manifest

LITE = recipes.lite()


@pytest.fixture(scope="module")
def reinforced(tmp_path_factory):
    """64 scenes with two captions of one captioner, reinforced by the embedded teachers."""
    from mobileclip2_lite.pairs.collect import make_pairs
    from mobileclip2_lite.reinforcement.stage import reinforce

    folder, tiny = tmp_path_factory.mktemp("study"), recipes.tiny()
    make_pairs(dataclasses.replace(tiny.pairs, count=64), folder / "pairs", world=tiny.world)
    (name,) = shards.shard_names(folder / "pairs")
    samples = [
        dataclasses.replace(sample, syn_texts={SHORT: [f"{sample.text}, seen", f"{sample.text}, drawn"]})
        for sample in shards.read_samples(folder / "pairs" / name)
    ]
    (folder / "captioned").mkdir()
    info = shards.write_shard(folder / "captioned" / name, samples)
    line = {"name": name, **info._asdict(), "dropped": {}}
    Work(folder / "captioned", "caption", 1, {}).commit(shards=[line], samples=len(samples))
    reinforce(tiny.reinforce, folder / "captioned", folder / "reinforced")
    return folder / "reinforced"


@pytest.fixture
def toy(monkeypatch, reinforced):
    """One study of two rows of 128 samples, on prepared data, trained in this process."""
    rows = {"plain": Row("control", {"captioners": ()}, 128), "taught": Row("student", {"captioners": (SHORT,)}, 128)}
    for name, row in rows.items():
        monkeypatch.setitem(ROWS, name, row)
    monkeypatch.setitem(STUDIES, "toy", Study("Does it run?", {name: name for name in rows}, "plain", seeds=2))
    monkeypatch.setattr(data, "prepare", lambda recipe, seed, kind, out: reinforced)

    def here(jobs, workers):
        for job in jobs:
            try:
                yield job, record.one(job)
            except ValueError as error:
                yield job, error

    monkeypatch.setattr(record, "_outcomes", here)


def _study(tmp_path, *more):
    words = ["study", "toy", "--recipe", "tiny", "--out", str(tmp_path / "out"), "--results", str(tmp_path / "lines")]
    cli.main([*words, *more])


def test_rows_are_trained_once_and_recorded_with_their_hits(toy, tmp_path, capsys, monkeypatch):
    _study(tmp_path, "--seeds", "1")
    assert "2 trainings are not recorded" in capsys.readouterr().out
    _study(tmp_path, "--seeds", "1", "--record")
    plain, taught = recorded.read_lines(tmp_path / "lines" / "rows.jsonl")
    assert (plain["row"], plain["seed"], taught["row"]) == ("plain", 0, "taught")
    assert taught["settings"]["captioners"] == [SHORT]
    counts = recipes.tiny().evaluate.counts("test")
    assert plain["items"] == {
        "zero_shot": 24 * counts["renders"],
        "retrieval_i2t_r1": counts["scenes"],
        "retrieval_t2i_r1": 5 * counts["scenes"],
        "binding": counts["hard_negatives"],
        "relations": counts["hard_negatives"],
    }
    hits = intervals.unpack(plain["hits"]["zero_shot"], plain["items"]["zero_shot"])
    assert hits.mean() == pytest.approx(plain["metrics"]["zero_shot"], abs=1e-4)
    assert len(plain["curve"]["samples"]) >= 1
    assert set(plain["versions"]) >= {"torch", "timm"}
    assert plain["command"] == "mobileclip2-lite study toy --recipe tiny --record --rows plain"
    assert str(tmp_path) not in json.dumps([plain, taught])
    assert "| plain |" in capsys.readouterr().out

    def again(job):
        raise AssertionError("a recorded row is trained again")

    monkeypatch.setattr(record, "one", again)
    _study(tmp_path, "--seeds", "1", "--record")
    assert len(recorded.read_lines(tmp_path / "lines" / "rows.jsonl")) == 2
    assert len(record.plan(["toy"], recipes.tiny(), tmp_path, tmp_path / "lines")) == 2  # the second seeds


def test_a_finished_training_that_was_not_recorded_is_found(toy, tmp_path, monkeypatch):
    (job,) = record.plan(["toy"], recipes.tiny(), tmp_path / "out", tmp_path / "lines", 1, ["plain"])
    first = record.one(job)

    def stepped(*_, **__):
        raise AssertionError("a finished training is stepped again")

    monkeypatch.setattr("mobileclip2_lite.training.loop.Run.go", stepped)
    assert record.one(job) == first
    short = ROWS["plain"]._replace(of="plain", dimensions=4)
    monkeypatch.setitem(ROWS, "short", short)
    monkeypatch.setitem(STUDIES, "toy", Study("Cut?", {"plain": "plain", "short": "short"}, "plain", seeds=1))
    (cut,) = record.plan(["toy"], recipes.tiny(), tmp_path / "out", tmp_path / "lines", rows=["short"])
    line = record.one(cut)  # whose model is the other row's
    assert line["seconds"] == first["seconds"]
    assert line["hits"] != first["hits"]
    monkeypatch.setitem(ROWS, "short", short._replace(dimensions=1_000))
    with pytest.raises(ValueError, match=r"1000 dimensions of embeddings that have \d+"):
        record.one(cut)


def test_a_failed_training_does_not_stop_the_others(toy, tmp_path, capsys, monkeypatch):
    whole = record.one

    def one(job):
        if job.row == "plain":
            raise ValueError("broken on purpose")
        return whole(job)

    monkeypatch.setattr(record, "one", one)
    with pytest.raises(SystemExit):
        _study(tmp_path, "--seeds", "1", "--record")
    assert "plain, seed 0: ValueError: broken on purpose" in capsys.readouterr().err
    assert [line["row"] for line in recorded.read_lines(tmp_path / "lines" / "rows.jsonl")] == ["taught"]


def test_every_row_is_a_training_and_none_is_another():
    seen = {}
    for name, row in ROWS.items():
        settings = record.train_settings(name, recipes.study())
        if row.of:
            assert (settings, row.data) == (record.train_settings(row.of, recipes.study()), ROWS[row.of].data)
        else:
            assert seen.setdefault((settings, row.data), name) == name
    assert record.train_settings("control, full", LITE).samples == LITE.control.samples
    assert recipes.study().control.samples == 2 * SAMPLES, "the full control is the one of twice a row's samples"
    assert record.train_settings("views 1", LITE).max_views == 1


def test_each_seed_has_another_world_other_captions_and_views():
    first, second = (data.seeded(LITE, seed) for seed in (0, 1))
    for part in ("world", "caption", "reinforce"):
        seeds = [getattr(recipe, part).seed for recipe in (first, second, LITE)]
        assert len(set(seeds)) == 3
        assert min(seeds[:2]) >= data.FIRST
    assert WEB in first.caption.captioners


def test_a_generation_changes_with_data_and_weights(monkeypatch, tmp_path):
    base = record.generation(LITE)
    assert base == record.generation(LITE)
    other = dataclasses.replace(LITE, reinforce=dataclasses.replace(LITE.reinforce, views=3))
    assert record.generation(other) != base
    from mobileclip2_lite.models import embedded

    for kind, names in (("teachers", LITE.reinforce.teachers), ("captioners", (*LITE.caption.captioners, WEB))):
        for name in names:
            (tmp_path / kind / name).mkdir(parents=True)
            (tmp_path / kind / name / "model.safetensors").write_bytes(b"other")
    monkeypatch.setattr(embedded, "data_folder", lambda: tmp_path)
    assert record.generation(LITE) != base


def test_kinds_of_data(monkeypatch, tmp_path):
    made = []
    monkeypatch.setattr(data, "_reinforced", lambda recipe, out: made.append((recipe.pairs.count, out)) or out)
    assert data.prepare(LITE, 2, "reinforced", tmp_path) == tmp_path / "data-seed2"
    assert data.prepare(LITE, 2, "first 50", tmp_path) == tmp_path / "first-50" / "data-seed2"
    assert [count for count, _ in made] == [LITE.pairs.count, 50]
    with pytest.raises(ValueError, match="'sharp' is none of"):
        data.prepare(LITE, 0, "sharp", tmp_path)


def test_filtered_pairs_are_as_many_and_strong_views_share_their_captions(monkeypatch, tmp_path):
    made = []
    monkeypatch.setattr(data, "_reinforced", lambda recipe, out: made.append((recipe, out)) or out)
    assert data.prepare(LITE, 2, "filtered", tmp_path) == tmp_path / "filtered" / "data-seed2"
    ((recipe, _),) = made
    assert recipe.pairs.count * recipe.filter.keep == LITE.pairs.count
    views = []
    monkeypatch.setattr("mobileclip2_lite.reinforcement.stage.reinforce", lambda *given: views.append(given))
    assert data.prepare(LITE, 2, "strong", tmp_path) == tmp_path / "data-seed2" / "strong"
    ((settings, source, _),) = views
    assert (settings.augment, source) == (recipes.Augment(), tmp_path / "data-seed2" / "captioned")
    assert settings.seed == data.seeded(LITE, 2).reinforce.seed
    assert data.prepare(LITE, 2, "weak", tmp_path) == tmp_path / "data-seed2" / "weak"
    settings, source, _ = views[-1]
    assert (settings.teachers, settings.augment) == (("lite-dfn",), LITE.reinforce.augment), "another teacher alone"
    assert source == tmp_path / "data-seed2" / "captioned"


def test_a_proxy_teacher_is_a_larger_student_of_the_same_data(monkeypatch, tmp_path):
    monkeypatch.setattr(data, "_reinforced", lambda recipe, out: out / "reinforced")
    trained, stored = [], []
    monkeypatch.setattr("mobileclip2_lite.training.loop.train", lambda *given, **_: trained.append(given) or given[2])
    monkeypatch.setattr("mobileclip2_lite.reinforcement.stage.reinforce", lambda *given: stored.append(given))
    folder = tmp_path / "data-seed1"
    assert data.prepare(LITE, 1, "proxy", tmp_path) == folder / "proxy"
    ((settings, source, teacher),) = trained
    assert (settings.model, settings.samples, source) == (data.LARGER, LITE.student.samples, folder / "reinforced")
    ((settings, source, _),) = stored
    assert (settings.teachers, settings.views, source) == ((str(teacher),), LITE.reinforce.views, folder / "captioned")


def test_data_that_another_process_makes_is_waited_for(monkeypatch, tmp_path):
    tries = []

    def busy(recipe, out):
        tries.append(out)
        if len(tries) < 3:
            raise FolderLocked("by another process")
        return out

    monkeypatch.setattr(data, "_reinforced", busy)
    monkeypatch.setattr(data, "LOOK", 0.0)
    assert data.prepare(LITE, 0, "reinforced", tmp_path) == tmp_path / "data-seed0"
    assert len(tries) == 3


@pytest.mark.parametrize("storage", ["int8", "int6"])
def test_a_copy_holds_the_same_in_smaller_numbers(reinforced, tmp_path, storage):
    copy = data.stored(reinforced, tmp_path / storage, storage)
    assert data.stored(reinforced, tmp_path / storage, storage) == copy  # found
    (name,) = shards.shard_names(copy)
    for one, other in zip(shards.read_samples(reinforced / name), shards.read_samples(copy / name), strict=True):
        assert (one.uid, one.image, one.texts, one.syn_texts, one.views) == (
            other.uid, other.image, other.texts, other.syn_texts, other.views,
        )  # fmt: skip
        for key, rows in one.embeddings.items():
            away = (rows.float() - other.embeddings[key].float()).norm(dim=-1)
            assert 0 < away.max() < 0.1, key
    assert (copy / name).stat().st_size < (reinforced / name).stat().st_size
    plain, found = (read_manifest(folder) for folder in (reinforced, copy))
    assert [card["name"] for card in found["teachers"]] == [card["name"] for card in plain["teachers"]]
    assert found["reinforced"]["storage"] == storage


def test_annotated_pairs_stand_beside_the_webs(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "ANNOTATED", 4)
    few = dataclasses.replace(LITE, pairs=dataclasses.replace(LITE.pairs, count=6))
    folder = data.prepare(few, 0, "annotated", tmp_path)
    found = [sample for name in shards.shard_names(folder) for sample in shards.read_samples(folder / name)]
    assert len(found) == 6 + 4  # the three captions of an annotated scene are texts of one image
    assert sorted(len(sample.texts) for sample in found) == [1] * 6 + [3] * 4


def test_unknown_names_are_errors(tmp_path):
    with pytest.raises(ValueError, match="no study is called nothing"):
        record.plan(["nothing"], LITE, tmp_path, tmp_path)
    with pytest.raises(ValueError, match="no row is called nothing"):
        record.plan(["ladder"], LITE, tmp_path, tmp_path, rows=["nothing"])


def test_the_temperature_study_covers_its_scales():
    rows = [row for row in STUDIES["temperature"].rows.values() if row.startswith(CONV)]
    scales = [dict(ROWS[row].changes["logit_scales"])[CONV] for row in rows]
    assert scales == [1, 2, 5, 10, 20, 40, 80, 160]
    assert np.all(np.diff(scales) > 0)
    assert {row.partition(" at ")[0] for row in ROWS if " at " in row} == {CONV, SE}, "only these are a curve"
