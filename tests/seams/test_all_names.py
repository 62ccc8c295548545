"""Recipe `emoji` goes its whole way: its own teachers, captioners and scorer, in the world of all names."""

from __future__ import annotations

import dataclasses

from mobileclip2_lite import emoji_world, pipeline, recipes
from mobileclip2_lite.evaluation.suite import evaluate
from mobileclip2_lite.models.teachers import load_teachers
from mobileclip2_lite.work.folder import read_manifest

FULL = recipes.emoji()
SMALL = {"samples": 64, "batch_size": 32, "evaluate_every": 0, "workers": 0, "tracker": "none"}
SHORT = dataclasses.replace(
    FULL,
    pairs=dataclasses.replace(FULL.pairs, count=64, samples_per_shard=64),
    caption=dataclasses.replace(FULL.caption, captioners=FULL.caption.captioners[:1]),
    reinforce=dataclasses.replace(FULL.reinforce, views=1),
    control=dataclasses.replace(FULL.control, **SMALL),
    student=dataclasses.replace(FULL.student, captioners=FULL.caption.captioners[:1], **SMALL),
    evaluate=recipes.Evaluate(1, 1, 16, 8, val_renders=1, val_scenes=8, val_hard_negatives=8),
)


def test_the_way_in_the_world_of_all_names(tmp_path):
    pipeline.make_data(SHORT, tmp_path / "run", say=lambda line: None)
    kept, reinforced = (read_manifest(tmp_path / "run" / stage) for stage in ("filtered", "reinforced"))
    assert kept["samples"] == round(0.7 * 64)
    assert [card["name"] for card in reinforced["teachers"]] == list(FULL.reinforce.teachers)
    student = pipeline.train_one(SHORT, tmp_path / "run", "student", 0, progress=False)
    assert read_manifest(student)["samples"] == 64


def test_its_teachers_know_its_names():
    ensemble = load_teachers(FULL.reinforce.teachers)
    for name in ensemble.names:
        found = evaluate(ensemble.loaded(name), FULL.world, SHORT.evaluate, only=("zero_shot",), split="val")
        assert found["zero_shot"] > 0.7, "of 755 names"


def test_it_has_names_that_the_small_world_lacks():
    every, few = emoji_world.names(FULL.world.names), emoji_world.names(recipes.lite().world.names)
    assert len(every) > 6 * len(few)
    assert every[: len(few)] == few, "and the small world's first, so that its models know their names"
