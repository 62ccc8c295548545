"""The whole way at recipe tiny, and the seams between its stages: what one wrote, the next reads."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path

import pytest
import torch

from mobileclip2_lite import cli, pipeline, recipes
from mobileclip2_lite.evaluation.suite import chance
from mobileclip2_lite.models import loaded
from mobileclip2_lite.reports.numbers import evaluated_seeds
from mobileclip2_lite.shards.samples import read_pairs, read_samples
from mobileclip2_lite.work.crew import Spread
from mobileclip2_lite.work.folder import StageMismatch, Work, read_manifest

RECIPE = recipes.tiny()


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of every file, but for what every run writes anew."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("report"))
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def test_every_stage_leaves_a_manifest(tiny_run):
    folders = ("pairs", "captioned", "reinforced", "control-seed0", "student-seed0", "evaluation")
    manifests = {name: read_manifest(tiny_run / name) for name in folders}
    assert [manifest["stage"] for manifest in manifests.values()] == [
        "pairs",
        "caption",
        "reinforce",
        "train",
        "train",
        "evaluate",
    ]
    assert manifests["captioned"]["inputs"]["pairs"] == manifests["pairs"]["key"]
    assert manifests["reinforced"]["inputs"]["pairs"] == manifests["captioned"]["key"]
    assert manifests["student-seed0"]["inputs"]["data"] == manifests["reinforced"]["key"]
    assert not list(tiny_run.rglob("*.partial"))
    assert not list(tiny_run.rglob(".lock"))


def test_pairs_arrive_in_the_reinforced_shards_untouched(tiny_run):
    pairs = [pair for shard in sorted(tiny_run.glob("pairs/*.tar")) for pair in read_pairs(shard)]
    samples = [sample for shard in sorted(tiny_run.glob("reinforced/*.tar")) for sample in read_samples(shard)]
    assert len(pairs) == len(samples) == RECIPE.pairs.count
    names = RECIPE.reinforce.teachers
    for pair, sample in zip(pairs, samples, strict=True):
        assert (pair.uid, pair.image, pair.text) == (sample.uid, sample.image, sample.text)
        assert len(sample.views) == RECIPE.reinforce.views
        kinds = ("image", "text", *(f"syn_text_{captioner}" for captioner in RECIPE.caption.captioners))
        assert set(sample.embeddings) == {f"{kind}/{name}" for kind in kinds for name in names}
        assert list(sample.syn_texts) == list(RECIPE.caption.captioners)


def test_results_hold_every_measure_of_every_model(tiny_run):
    results = json.loads((tiny_run / "evaluation.json").read_text("utf-8"))
    measures = set(chance(RECIPE.world, RECIPE.evaluate))
    rows = [*results["control"], *results["student"], *results["teachers"].values()]
    assert len(results["control"]) == len(results["student"]) == len(RECIPE.seeds)
    assert set(results["teachers"]) == set(RECIPE.reinforce.teachers)
    for row in rows:
        assert set(row) == measures
        assert all(0 <= value <= 1 and math.isfinite(value) for value in row.values())


def test_teachers_know_the_names_that_the_course_uses(tiny_run):
    results = json.loads((tiny_run / "evaluation.json").read_text("utf-8"))
    assert max(teacher["zero_shot"] for teacher in results["teachers"].values()) > 0.8


def test_control_and_student_saw_the_same(tiny_run):
    control, student = (
        read_manifest(tiny_run / f"{kind}-seed0")["settings"]["train"] for kind in ("control", "student")
    )
    # each at the learning rate that validation chose for it (docs/lab_log.md): the contrastive loss wants another
    meant = {"distill", "views", "captioners", "learning_rate"}
    assert {key for key in control if control[key] != student[key]} == meant


def test_second_run_finds_its_work_done(tiny_run):
    before = state(tiny_run)
    lines = []
    results = pipeline.run(RECIPE, tiny_run, say=lines.append)
    assert results == json.loads((tiny_run / "evaluation.json").read_text("utf-8"))
    assert len(lines) == 6
    assert all(line.endswith(": done before") for line in lines)
    changed = {Path(name).parent.name for name, value in state(tiny_run).items() if before.get(name) != value}
    assert changed <= {"figures", tiny_run.name}
    assert before[str(tiny_run / "timings.json")] == state(tiny_run)[str(tiny_run / "timings.json")]


def test_a_run_grows_by_seeds_and_keeps_those_it_had(tiny_run, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    shutil.copytree(tiny_run, folder)
    of_one = json.loads((folder / "evaluation.json").read_text("utf-8"))
    monkeypatch.setattr(pipeline, "train_all", lambda recipe, run: None)
    for kind in ("control", "student"):  # another seed's training, as far as the evaluation reads it
        shutil.copytree(folder / f"{kind}-seed0", folder / f"{kind}-seed1")
    two = pipeline.run(dataclasses.replace(RECIPE, seeds=(0, 1)), folder, say=lambda line: None)
    assert [len(two[kind]) for kind in ("control", "student")] == [2, 2]
    assert two["student"][0] == of_one["student"][0]
    assert evaluated_seeds(folder) == [0, 1]
    before = state(folder)
    again = pipeline.run(RECIPE, folder, say=lambda line: None)  # as the notebooks ask, which know of one seed
    assert again == two == json.loads((folder / "evaluation.json").read_text("utf-8"))
    changed = {Path(name).parent.name for name, value in state(folder).items() if before.get(name) != value}
    assert changed <= {"figures", folder.name}


def test_changed_settings_are_refused_and_nothing_is_touched(tiny_run):
    before = state(tiny_run)
    changed = dataclasses.replace(RECIPE, pairs=dataclasses.replace(RECIPE.pairs, count=128))
    with pytest.raises(StageMismatch, match=r"pairs holds other work.*count: 256 there, 128 asked for"):
        pipeline.run(changed, tiny_run, say=lambda line: None)
    assert state(tiny_run) == before


def test_command_line_goes_the_same_way(tiny_run, capsys):
    cli.main(["run", "--recipe", "tiny", "--out", str(tiny_run)])
    assert "Reinforced against plain training" in capsys.readouterr().out
    cli.main(["inspect", str(tiny_run / "reinforced")])
    assert "lite-teacher-conv" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--recipe", "huge"], "recipe 'huge' does not exist: one of tiny, lite"),
        (["train", "nowhere", "out"], "nowhere"),
        (["evaluate", "no-such-model"], "no-such-model"),
        (["inspect", "nowhere"], "nowhere"),
        (["search", "nowhere", "a dog"], "nowhere is not a folder"),
    ],
)
def test_wrong_input_ends_in_one_line(arguments, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.startswith("error: ")
    assert message in said
    assert "Traceback" not in said


def test_report_speaks_of_the_run_and_of_nothing_else(tiny_run):
    text = (tiny_run / "report.md").read_text("utf-8")
    page = (tiny_run / "report.html").read_text("utf-8")
    assert "OpenMoji" in text
    assert "CC BY-SA 4.0" in page
    assert str(tiny_run.parent) not in text + page


def short(folder: Path, tiny_run: Path) -> recipes.Recipe:
    """A recipe of two trainings of four steps, and its data in `folder`."""
    (folder / "reinforced").mkdir(parents=True)
    for path in (tiny_run / "reinforced").iterdir():
        (folder / "reinforced" / path.name).write_bytes(path.read_bytes())
    changes = {"samples": 256, "tracker": "none"}
    control, student = (dataclasses.replace(part, **changes) for part in (RECIPE.control, RECIPE.student))
    return dataclasses.replace(RECIPE, control=control, student=student)


def test_trainings_side_by_side_are_those_one_after_another(tiny_run, tmp_path, monkeypatch):
    weights = []
    for jobs in (1, 2):
        folder = tmp_path / str(jobs)
        recipe = short(folder, tiny_run)
        if jobs == 2:
            monkeypatch.delenv("OMP_NUM_THREADS")
        pipeline.train_all(recipe, folder, jobs=jobs)
        weights.append(
            [(folder / f"{kind}-seed0" / "model.safetensors").read_bytes() for kind in ("control", "student")]
        )
    assert weights[0] == weights[1]
    assert weights[0][0] != weights[0][1]
    assert not (tmp_path / "1" / "measured").exists()
    measured = {path.name for path in (tmp_path / "2" / "measured").iterdir()}
    assert measured == {"control-seed0", "student-seed0", *recipe.reinforce.teachers}, "beside the longest training"
    side, alone = (pipeline.evaluate_all(recipe, tmp_path / str(jobs)) for jobs in (2, 1))
    assert side == alone
    assert side["teachers"] == json.loads((tiny_run / "evaluation.json").read_text("utf-8"))["teachers"]


def test_a_training_that_fails_beside_others_is_an_error(tiny_run, tmp_path, monkeypatch):
    recipe = short(tmp_path / "run", tiny_run)
    monkeypatch.delenv("OMP_NUM_THREADS")
    wrong = dataclasses.replace(recipe, student=dataclasses.replace(recipe.student, model="no-such-model"))
    with pytest.raises(ValueError, match="no-such-model"):
        pipeline.train_all(wrong, tmp_path / "run", jobs=2)


def test_a_teacher_of_the_hub_is_measured_in_a_folder_that_every_system_takes(tmp_path):
    name = "hf-hub:apple/MobileCLIP2-S0"  # no file's name on Windows
    reinforced = Work(tmp_path / "reinforced", "reinforce", 1, {})
    reinforced.begin()
    reinforced.commit(teachers=[{"name": name, "sha256": "x"}])
    settings = {"world": RECIPE.world, "evaluate": RECIPE.evaluate}
    place = tmp_path / "measured" / "hf-hub_apple_MobileCLIP2-S0"
    measured = Work(place, "evaluate", 1, settings, {"teacher": {name: "x"}})
    measured.begin()
    measured.commit(results={"zero_shot": 0.5})
    assert pipeline.measure(RECIPE, tmp_path, name, teacher=True) == {"zero_shot": 0.5}


def test_captioners_and_teachers_get_a_process_a_core_and_few_pairs_one(monkeypatch):
    monkeypatch.setattr(loaded, "cpu_has_bf16", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(pipeline.os, "cpu_count", lambda: 2)
    assert pipeline.crew(recipes.lite()) == (Spread(workers=2), "bf16")
    assert pipeline.crew(recipes.tiny()) == (Spread(workers=1), "bf16")
    monkeypatch.setattr(loaded, "cpu_has_bf16", lambda: False)
    assert pipeline.crew(recipes.lite()) == (Spread(workers=2), "fp32")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pipeline.crew(recipes.lite()) == (Spread(workers=1), "bf16")
