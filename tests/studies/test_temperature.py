"""The temperature search: prunes, refines, resumes, and judges its predictors; results are used."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch
from doubles.tiny_training import settings, write_data, write_model

from mobileclip2_lite import cli, recipes
from mobileclip2_lite.studies import temperature
from mobileclip2_lite.studies.recorded import read_lines
from mobileclip2_lite.training.teachers import teacher_cards


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("temperature")
    return write_model(folder / "model"), write_data(folder / "data")


def test_search_prunes_refines_and_finds_its_finished_work(made, tmp_path, monkeypatch):
    """A student whose measured quality peaks at scale 30 for one teacher and 12 for the other."""
    from mobileclip2_lite.training import loop as training

    model, data = made
    trained, real = [], training.train
    peaks = {"first": 30.0, "second": 12.0}

    def watched(chosen, *arguments):
        ((name, scale),) = chosen.logit_scales
        trained.append((name, scale, chosen.samples, arguments[2]))
        goodness = math.exp(-(math.log(scale / peaks[name]) ** 2)) + 0.001 * arguments[2]
        return real(chosen, *arguments[:3], lambda loaded: {"zero_shot": goodness}, *arguments[4:])

    monkeypatch.setattr(training, "train", watched)
    search = recipes.Temperature(
        scales=(5.0, 10.0, 20.0, 40.0), samples=64, first=0.25, keep=0.5, seeds=(0, 1), pairs=32
    )
    student = settings(model)
    results = temperature.search(search, student, data, tmp_path, lambda loaded: {}, "cpu", False)
    first = results["first"]
    assert first["best"] == 28.3  # the geometric mean of 20 and 40, nearest to 30
    assert results["second"]["best"] in (10.0, 14.1)
    short = [row for row in first["curve"] if row["samples"] == 16]
    full = {row["scale"]: row for row in first["curve"] if row["samples"] == 64}
    assert [row["scale"] for row in short] == [5.0, 10.0, 20.0, 40.0]
    assert full.keys() == {20.0, 40.0, 28.3}
    assert full[28.3]["std"] == pytest.approx(0.001 / math.sqrt(2))
    assert len(full[28.3]["values"]) == 2
    assert first["own"] == 22.0
    assert first["judged"]["own"]["factor"] == pytest.approx(22 / 28.3, abs=1e-3)
    assert 0 < first["judged"]["own"]["regret"] < 0.2
    assert json.loads((tmp_path / "first" / "temperature.json").read_text("utf-8")) == first
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model.safetensors")}
    again = temperature.search(search, student, data, tmp_path, lambda loaded: {}, "cpu", False)
    assert again == results
    temperature.use(results, data)  # the folder's scale is now the one that was found
    try:
        assert teacher_cards(data, student)["first"].logit_scale == 28.3
        after = temperature.search(search, student, data, tmp_path, lambda loaded: {}, "cpu", False)
        assert after["first"]["own"] == 22.0, "the teacher's own, before any search"
    finally:
        (data / "temperature.json").unlink()
    assert files == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model.safetensors")}


def test_a_first_round_of_full_length_prunes_nothing(made, tmp_path, monkeypatch):
    """It would stand for the full trainings with its one seed."""
    monkeypatch.setattr(temperature._Runs, "train", lambda self, scale, samples, seed: float(seed))
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    model, data = made
    search = recipes.Temperature(scales=(5.0, 10.0), samples=64, first=1.0, seeds=(0, 1), refine=0, pairs=32)
    found = temperature.search(search, settings(model), data, tmp_path, lambda loaded: {}, "cpu", False)
    assert [row["values"] for row in found["first"]["curve"]] == [[0.0, 1.0], [0.0, 1.0]]


def test_found_scales_are_used_by_default(made, tmp_path):
    model, _ = made
    data = write_data(tmp_path / "data")
    result = {"best": 33.0, "metric": "zero_shot", "curve": [], "judged": {}}
    card = tmp_path / "card.json"
    card.write_text('{"name": "first", "logit_scale": 22.0, "seed": 1}', "utf-8")
    assert teacher_cards(data, settings(model))["first"].logit_scale == 22.0
    temperature.use({"first": result}, data, [card])
    cards = teacher_cards(data, settings(model))
    assert (cards["first"].logit_scale, cards["second"].logit_scale) == (33.0, 30.0)
    explicit = settings(model, logit_scales=(("first", 7.0),))
    assert teacher_cards(data, explicit)["first"].logit_scale == 7.0
    written = json.loads(card.read_text("utf-8"))
    assert (written["logit_scale"], written["logit_scale_before"], written["seed"]) == (33.0, 22.0, 1)
    temperature.use({"first": {**result, "best": 44.0}}, None, [card])
    assert json.loads(card.read_text("utf-8"))["logit_scale_before"] == 22.0
    with pytest.raises(ValueError, match="which was not searched"):
        temperature.use({"second": result}, None, [card])


def test_predictors_find_a_scale_that_was_planted(monkeypatch):
    """Texts drawn by a softmax of scale 20 over images' similarities: calibration finds it again."""
    g = torch.Generator().manual_seed(0)
    images = torch.nn.functional.normalize(torch.randn(2048, 16, generator=g), dim=-1)
    directions = torch.nn.functional.normalize(torch.randn(20_000, 16, generator=g), dim=-1)
    drawn = torch.multinomial((20 * images @ directions.T).softmax(1), 1, generator=g)[:, 0]
    monkeypatch.setattr(temperature, "stored_pairs", lambda *arguments: (images, directions[drawn]))
    found = temperature.predict("unused", "teacher", 2048, 256)
    assert found["calibration"] == pytest.approx(20, rel=0.2)
    entropies = [entropy for _, _, entropy in found["curve"]]
    assert entropies == sorted(entropies, reverse=True)
    assert entropies[0] > math.log(256) / 2 > entropies[-1]


def test_predictors_read_the_stored_rows(made):
    _, data = made
    images, texts = temperature.stored_pairs(data, "second", 30)
    assert images.shape == texts.shape == (30, 20)
    with pytest.raises(ValueError, match="holds 40 pairs of second, fewer than one batch of 64"):
        temperature.predict(data, "second", 64, 64)


def test_a_cards_scale_from_before_a_search_is_the_teachers_own(made, tmp_path, monkeypatch):
    _, data = made
    card = tmp_path / "teachers" / "first" / "card.json"
    card.parent.mkdir(parents=True)
    card.write_text('{"name": "first", "logit_scale": 22.0, "logit_scale_before": 70.0}', "utf-8")
    monkeypatch.setattr(temperature, "data_folder", lambda: tmp_path)
    assert [temperature.own_scale(data, name) for name in ("first", "second")] == [70.0, 30.0]


def test_no_shard_is_opened_beyond_the_pairs_that_are_wanted(made, monkeypatch):
    from mobileclip2_lite.shards import samples

    opened, real = [], samples.read_samples
    monkeypatch.setattr(samples, "read_samples", lambda path: opened.append(path.name) or real(path))
    assert len(temperature.stored_pairs(made[1], "first", 20)[0]) == 20
    assert opened == ["shard-000000.tar"]
    with pytest.raises(ValueError, match="holds no pair of nobody"):
        temperature.stored_pairs(made[1], "nobody", 20)


def test_neighbours():
    assert temperature.between(20.0, [10.0, 20.0, 40.0]) == [14.1, 28.3]
    assert temperature.between(10.0, [10.0, 20.0]) == [14.1]
    assert temperature.between(10.0, [10.0]) == []


def test_wrong_searches_are_named(made, tmp_path):
    model, data = made
    with pytest.raises(ValueError, match="at least one seed"):
        temperature.search(recipes.Temperature(seeds=()), settings(model), data, tmp_path, lambda loaded: {})
    one = recipes.Temperature(scales=(5.0,), samples=16, seeds=(0,), metric="retrieval")
    chosen = dataclasses.replace(settings(model), teachers=("first",))
    with pytest.raises(ValueError, match="no 'retrieval', only zero_shot"):
        temperature.search(one, chosen, data, tmp_path, lambda loaded: {"zero_shot": 1.0}, "cpu", False)


def test_the_command_writes_cards_and_a_record(tmp_path, monkeypatch):
    row = {"scale": 8.0, "samples": 16, "values": [0.5], "mean": 0.5, "std": None}
    found = {"teacher": "t", "metric": "zero_shot", "best": 8.0, "own": 20.0, "curve": [row], "judged": {}}
    asked = []
    monkeypatch.setattr(temperature, "search", lambda *given, device: asked.append((*given, device)) or {"t": found})
    card, record = tmp_path / "card.json", tmp_path / "results" / "temperature.jsonl"
    card.write_text('{"name": "t", "logit_scale": 20.0}', "utf-8")
    words = [
        "temperature",
        "data",
        "out",
        "--seeds",
        "4",
        "--device",
        "cpu",
        "--cards",
        str(card),
        "--record",
        str(record),
    ]
    for _ in range(2):
        monkeypatch.setattr("sys.argv", ["/somewhere/mobileclip2-lite", *words])
        cli.main()
    settings, _, data, out, _, device = asked[0]
    assert (settings.seeds, data.name, out.name, str(device)) == ((4,), "data", "out", "cpu")
    written = json.loads(card.read_text("utf-8"))
    assert (written["logit_scale"], written["logit_scale_before"]) == (8.0, 20.0)
    lines = read_lines(record)
    assert [line["command"] for line in lines] == [f"mobileclip2-lite {' '.join(words)}"] * 2
    assert lines[-1]["best"] == 8.0
    assert not (tmp_path / "data").exists(), "without --use the data stays as it is"
