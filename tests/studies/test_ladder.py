"""The ladder of longer runs, at toy size: trained once, recorded once, put beside their control."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import shlex
import sys
from pathlib import Path

import pytest

from mobileclip2_lite import recipes
from mobileclip2_lite.shards import samples as shards
from mobileclip2_lite.studies import figures as figures_training
from mobileclip2_lite.studies import recorded
from mobileclip2_lite.studies.recorded import (
    MEASURES,
    MISSING,
    STRENGTHS,
    STUDIES,
    VIEWS,
    reached,
    read_ladder,
    read_temperature,
    study_table,
    temperature_table,
    values,
)
from mobileclip2_lite.training.teachers import TUNED
from mobileclip2_lite.work.files import canonical
from mobileclip2_lite.work.folder import Work

SETTINGS = ["--recipe", "tiny", "--samples", "128", "--seeds", "0"]


def program(path: Path):
    """A program as a module, for as long as the tests of this file last."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[path.stem]


@pytest.fixture(scope="module")
def ladder(repository):
    yield from program(repository / "benchmarks" / "ladder.py")


@pytest.fixture(scope="module")
def views(repository, ladder):
    yield from program(repository / "benchmarks" / "views.py")


@pytest.fixture(scope="module")
def data(tmp_path_factory, ladder) -> Path:
    """64 scenes with two captions of one captioner, reinforced by the embedded teachers."""
    from mobileclip2_lite.pairs.collect import make_pairs
    from mobileclip2_lite.reinforcement.stage import reinforce

    folder, tiny = tmp_path_factory.mktemp("ladder"), recipes.tiny()
    make_pairs(dataclasses.replace(tiny.pairs, count=64), folder / "pairs", world=tiny.world)
    (name,) = shards.shard_names(folder / "pairs")
    samples = [
        dataclasses.replace(sample, syn_texts={ladder.SHORT: [f"{sample.text}, seen", f"{sample.text}, drawn"]})
        for sample in shards.read_samples(folder / "pairs" / name)
    ]
    (folder / "captioned").mkdir()
    info = shards.write_shard(folder / "captioned" / name, samples)
    record = {"name": name, **info._asdict(), "dropped": {}}
    Work(folder / "captioned", "caption", 1, {}).commit(shards=[record], samples=len(samples))
    reinforce(tiny.reinforce, folder / "captioned", folder / "reinforced")
    return folder / "reinforced"


@pytest.fixture
def everything(tmp_path, ladder, monkeypatch) -> Path:
    """A folder that says that it holds all that the rows ask for, with tuned scales."""
    cards = [{"name": name, "logit_scale": 20.0, "dimension": 8} for name in (ladder.CONV, ladder.SE)]
    captioners = [ladder.WEB, ladder.SHORT, ladder.RELATIONAL, ladder.DETAILED]
    Work(tmp_path, "reinforce", 1, {}).commit(teachers=cards, captioners=captioners, shards=[])
    monkeypatch.setattr(ladder, "stored", lambda data: {"views": 5, "captions": dict.fromkeys(captioners, 5)})
    (tmp_path / TUNED).write_text(json.dumps({ladder.CONV: 8.0, ladder.SE: 32.0}), "utf-8")
    return tmp_path


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_two_rows_are_trained_once_and_recorded_once(ladder, data, tmp_path, capsys, monkeypatch):
    arguments = ["--data", str(data), "--out", str(tmp_path / "out"), "--results", str(tmp_path / "ladder.jsonl")]
    arguments += [*SETTINGS, "--rows", "control", "all captions"]
    assert ladder.main(arguments) == 0
    control, student = lines(tmp_path / "ladder.jsonl")
    assert (control["row"], control["seed"], student["row"]) == ("control", 0, "captions: short")
    assert control["settings"].items() >= {"base": "control", "samples": 128}.items()
    assert student["settings"].items() >= {"base": "student", "captioners": [ladder.SHORT]}.items()
    assert control["logit_scales"] == {}
    assert set(student["logit_scales"]) == {ladder.CONV, ladder.SE}
    assert set(MEASURES) <= set(control["metrics"])
    assert student["stored"] == {"views": 2, "captions": {ladder.SHORT: 2}}
    assert student["curve"]["samples"] == [128]
    assert student["curve"]["zero_shot"] == [student["metrics"]["zero_shot"]]
    assert student["seconds"] > 0
    assert str(tmp_path) not in (tmp_path / "ladder.jsonl").read_text("utf-8")
    table = capsys.readouterr().out
    assert f"| captions: short | {100 * student['metrics']['zero_shot']:.1f} |" in table
    assert "| + ensemble |  |" in table
    assert MISSING in table

    def trained_again(*_, **__):
        raise AssertionError("a recorded row is trained again")

    monkeypatch.setattr(ladder, "one", trained_again)
    assert ladder.main(arguments) == 0
    assert len(lines(tmp_path / "ladder.jsonl")) == 2
    assert ladder.main([*arguments[:-2], "--rows", "control"]) == 0


def test_a_training_that_was_not_recorded_is_found(ladder, data, tmp_path, capsys, monkeypatch):
    arguments = ["--data", str(data), "--out", str(tmp_path / "out"), *SETTINGS, "--rows", "control", "--results"]
    assert ladder.main([*arguments, str(tmp_path / "first.jsonl")]) == 0

    def stepped(*_, **__):
        raise AssertionError("a finished training is stepped again")

    monkeypatch.setattr("mobileclip2_lite.training.loop.Run.go", stepped)
    assert ladder.main([*arguments, str(tmp_path / "second.jsonl")]) == 0
    first, second = (lines(tmp_path / f"{name}.jsonl") for name in ("first", "second"))
    assert first == second


def test_a_failed_training_does_not_stop_the_others(ladder, data, tmp_path, capsys, monkeypatch):
    done = []

    def one(job, progress=False):
        if job.row == "control":
            raise RuntimeError("the loss is not a number")
        done.append(job.row)
        return {**job.line, "metrics": dict.fromkeys(MEASURES, 0.5), "curve": {}, "seconds": 1.0}

    monkeypatch.setattr(ladder, "one", one)
    out = ["--data", str(data), "--out", str(tmp_path), "--results", str(tmp_path / "ladder.jsonl")]
    assert ladder.main([*out, *SETTINGS, "--rows", "control", "no captions", "+ ensemble"]) == 1
    assert done == ["no captions"]
    said = capsys.readouterr().err
    assert "control, seed 0: RuntimeError: the loss is not a number" in said
    assert f"left out: + ensemble: {data} has no captions of {ladder.DETAILED}" in said


def test_every_row_is_a_training_and_none_is_another(ladder, everything):
    from mobileclip2_lite.training.loop import _check

    found = {}
    for name in ladder.ROWS:
        settings = ladder.train_settings(name, recipes.lite(), everything)
        _check(settings)
        found[name] = canonical(settings)
        assert settings.samples == 100_000
    assert len(set(found.values())) == len(found)
    assert set(ladder.ALIASES.values()) <= set(ladder.ROWS)
    assert all(study.control in study.rows for study in STUDIES.values())
    assert not set(ladder.ALIASES) & set(ladder.ROWS)
    assert len({ladder.slug(name) for name in ladder.ROWS}) == len(ladder.ROWS)
    assert {row for study in STUDIES.values() for row in study.rows.values()} <= set(ladder.ROWS)


def test_scales_of_the_rows(ladder, everything):
    def scales(name):
        return dict(ladder.train_settings(name, recipes.lite(), everything).logit_scales)

    assert scales("+ ensemble") == {}  # the data's own, which are tuned
    assert scales("shared scale") == {ladder.CONV: 16.0, ladder.SE: 16.0}
    assert set(scales("cards before tuning")) == {ladder.CONV, ladder.SE}
    (everything / TUNED).write_text(json.dumps(scales("cards before tuning")), "utf-8")
    with pytest.raises(ValueError, match="have not been tuned"):
        scales("cards before tuning")


def test_views_of_several_strengths_are_stored_and_trained_on_once(views, data, tmp_path, capsys, monkeypatch):
    arguments = ["--pairs", str(data.parent / "captioned"), "--out", str(tmp_path), *SETTINGS]
    arguments += ["--results", str(tmp_path / "views.jsonl"), "--rows", "control: crops from 90 %"]
    assert views.main([*arguments, "control: crops from 50 %, one RandAugment"]) == 0
    weak, strong = lines(tmp_path / "views.jsonl")
    assert (weak["row"], weak["augment"]["scale"], weak["augment"]["operations"]) == (arguments[-1], [0.9, 1.0], 0)
    assert (strong["augment"]["scale"], strong["augment"]["operations"]) == ([0.5, 1.0], 1)
    assert weak["settings"].items() >= {"base": "control", "views": "stored"}.items()
    assert weak["data"] != strong["data"]
    assert {"--rows", weak["row"]} <= set(shlex.split(weak["command"]))
    [kept] = (tmp_path / "crops-from-90").glob("*.tar")
    assert all(len(view.operations) == 0 for sample in shards.read_samples(kept) for view in sample.views)
    table = capsys.readouterr().out
    for row in (weak, strong):
        name = row["row"].removeprefix("control: ")
        assert f"| {name} | {100 * row['metrics']['zero_shot']:.1f} |" in table
    monkeypatch.setattr(views.ladder, "one", lambda *_, **__: pytest.fail("a recorded row is trained again"))
    assert views.main(arguments) == 0
    with pytest.raises(SystemExit):
        views.main([*arguments[:-1], "control: crops"])
    assert "no row is called 'control: crops': one of control: crops from 90 %; " in capsys.readouterr().err


def test_the_rows_about_views_are_those_of_the_figures(views):
    assert {row for study in VIEWS.values() for row in study.rows.values()} == set(views.ROWS)
    assert all(study.control in study.rows for study in VIEWS.values())
    augment = recipes.lite().reinforce.augment
    assert STRENGTHS["crops from 50 %"] == (augment.scale[0], augment.operations)
    assert STRENGTHS["crops from 8 %, two RandAugment"] == (recipes.Augment().scale[0], 2)


def test_a_limit_that_limits_nothing_is_refused(ladder, data):
    assert ladder.stored(data) == {"views": 2, "captions": {ladder.SHORT: 2}}
    ladder.train_settings("captions 1", recipes.tiny(), data)
    with pytest.raises(ValueError, match="holds no more than 2: max_captions=2 changes nothing"):
        ladder.train_settings("captions 2", recipes.tiny(), data)


def test_fewer_samples_keep_the_points_of_the_curve(ladder, everything):
    settings = ladder.train_settings("control", recipes.lite(), everything, 20_000)
    assert settings.samples == 20_000
    assert settings.samples // settings.batch_size // settings.evaluate_every == 6


def test_an_unknown_row_is_refused(ladder, everything, capsys):
    with pytest.raises(SystemExit):
        ladder.main(["--data", str(everything), "--rows", "controll"])
    assert "no row is called 'controll': one of control; " in capsys.readouterr().err


def line(row: str, seed: int, zero_shot: list[float], samples: int = 300, **changes) -> dict:
    measured = dict.fromkeys(MEASURES, 0.5) | {"zero_shot": zero_shot[-1]}
    steps = [samples * (place + 1) // len(zero_shot) for place in range(len(zero_shot))]
    found = {"row": row, "seed": seed, "recipe": "lite", "samples": samples, "data": "d", "metrics": measured}
    return {**found, "curve": {"samples": steps, "zero_shot": zero_shot}, **changes}


def test_recorded_lines_are_read_of_one_set_up_and_newest_first(tmp_path):
    path = tmp_path / "ladder.jsonl"
    found = [line("control", 1, [0.2]), line("control", 0, [0.1]), line("control", 0, [0.9], samples=8)]
    found.append(line("control", 1, [0.3]))
    path.write_text("".join(json.dumps(one) + "\n" for one in found), "utf-8")
    ladder = read_ladder(path)
    assert values(ladder, "control", "zero_shot") == [0.1, 0.3]
    assert recorded.mean(ladder, "control") == pytest.approx(0.2)
    assert read_ladder(tmp_path / "none.jsonl") == {}
    path.write_text("{}\n{", "utf-8")
    with pytest.raises(ValueError, match="line 2 is not JSON"):
        read_ladder(path)


def test_samples_to_the_controls_end():
    ladder = {
        "control": [line("control", seed, [0.05, 0.1, 0.2]) for seed in (0, 1)],
        "+ ensemble": [line("+ ensemble", 0, [0.1, 0.2, 0.4]), line("+ ensemble", 1, [0.1, 0.4, 0.8])],
    }
    assert reached(ladder, "+ ensemble", 0.2) == 150  # between 0.1 at 100 and 0.3 at 200
    assert reached(ladder, "+ ensemble", 0.05) == 50  # before the first evaluation
    assert reached(ladder, "control", 0.3) is None
    header, rows = study_table(ladder, STUDIES["ladder"], ("zero_shot",), "control")
    assert header == ["% right", "zero-shot, top-1", "against control", "seeds", "samples to 20.0 % zero-shot"]
    assert rows[0] == ["control", "20.0 ± 0.0", "", "2", "300"]
    assert rows[1] == ["+ captions", "", "", MISSING, ""]
    assert rows[-1] == ["+ ensemble", "60.0 ± 28.3", "+40.0", "2", "150"]


def test_figures_draw_what_is_there_and_name_what_is_missing():
    study = STUDIES["lambda"]
    (said,) = figures_training.study_bars({}, study).axes[0].texts
    assert 'python benchmarks/ladder.py --rows "lambda 0.5"' in said.get_text()
    (said,) = figures_training.study_curves({}, study).axes[0].texts
    assert "--rows" in said.get_text()
    ladder = {row: [line(row, 0, [0.1, 0.2]), line(row, 1, [0.2, 0.4])] for row in ("lambda 0.5", "+ ensemble")}
    made = figures_training.study_bars(ladder, study, ("zero_shot", "binding"), {"zero_shot": 0.01, "binding": 0.5})
    assert [text.get_text() for text in made.axes[0].get_yticklabels()] == ["λ = 0.5", "λ = 1"]
    assert [bar.get_width() for bar in made.axes[0].patches] == pytest.approx([30, 30])
    assert [bar.get_width() for bar in made.axes[1].patches] == [50, 50]
    made = figures_training.study_curves(ladder, study, ("zero_shot",), "+ ensemble")
    assert list(made.axes[0].lines[0].get_ydata()) == pytest.approx([15, 30])
    assert made.axes[0].lines[-1].get_ydata()[0] == pytest.approx(30)


def search() -> dict:
    """A search as `temperature.json` holds it."""
    from mobileclip2_lite.studies.temperature import judge

    rows = [(5.0, 200, [0.1, 0.3]), (20.0, 200, [0.5, 0.7]), (80.0, 200, [0.2, 0.2]), (5.0, 50, [0.9])]
    curve = [
        {"scale": scale, "samples": samples, "values": found, "mean": sum(found) / len(found), "std": 0.1}
        for scale, samples, found in rows
    ]
    result = {"teacher": "t", "metric": "zero_shot", "best": 20.0, "own": 80.0, "curve": curve}
    result["predicted"] = {"calibration": 40.0, "entropy": 20.0}
    return {**result, "judged": judge(result)}


def test_temperature_table_and_curve(tmp_path):
    (tmp_path / "temperature.jsonl").write_text(json.dumps(search()) + "\n", "utf-8")
    searches = read_temperature(tmp_path / "temperature.jsonl")
    header, rows = temperature_table(searches)
    assert header[2:] == ["logit scale", "of the best", "zero-shot, top-1 (%)", "lost (points)"]
    assert rows[0] == ["t", "best measured", "20", "1", "60.0 ± 10.0", "0"]
    assert rows[1] == ["", "the teacher's own", "80", "4.00", "20.0", "40.0"]
    assert rows[2] == ["", "predicted: calibration", "40", "2.00", "40.0", "20.0"]
    made = figures_training.temperature_curves(searches)
    mean = next(drawn for drawn in made.axes[0].lines if drawn.get_label() == "student, mean")
    assert list(mean.get_xdata()) == [5, 20, 80]  # the pruning round is left out
    (said,) = figures_training.temperature_curves({}).axes[0].texts
    assert "mobileclip2-lite temperature" in said.get_text()
