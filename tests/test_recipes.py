"""Recipes: plain data, every field explained, differences that can be printed."""

from __future__ import annotations

import dataclasses

import pytest

from mobileclip2_lite import recipes


def parts(value, where: str = "recipe"):
    yield where, value
    for field in dataclasses.fields(value):
        inner = getattr(value, field.name)
        if dataclasses.is_dataclass(inner):
            yield from parts(inner, f"{where}.{field.name}")


@pytest.mark.parametrize("name", sorted(recipes.RECIPES))
def test_every_field_of_every_recipe_is_explained(name):
    for where, part in parts(recipes.named(name)):
        docs = recipes.field_docs(type(part))
        assert docs.keys() == {field.name for field in dataclasses.fields(part)}, where
        assert all(doc.endswith(".") and "\n" not in doc for doc in docs.values()), where


def test_named_recipes_carry_their_names():
    assert [recipes.named(name).name for name in recipes.RECIPES] == list(recipes.RECIPES)
    with pytest.raises(
        ValueError, match=r"'huge' does not exist: one of tiny, lite, study, emoji, paper_12m, paper_2b"
    ):
        recipes.named("huge")


def test_papers_numbers():
    """docs: 8,192 x 30k on 12.8M pairs with 30 views; 65,536 x 200k on 1.9B with 2."""
    small, full = recipes.paper_12m(), recipes.paper_2b()
    assert (small.pairs.count, small.reinforce.views, small.student.batch_size) == (12_800_000, 30, 8_192)
    assert small.student.samples // small.student.batch_size == 30_000
    assert (full.pairs.count, full.reinforce.views, full.student.batch_size) == (1_900_000_000, 2, 65_536)
    assert full.student.samples // full.student.batch_size == 200_000
    for recipe in (small, full):
        assert dict(recipe.student.logit_scales) == {"ViT-L-14@dfn2b": 70.0, "ViT-L-14@dfn2b_s39b": 60.0}
        assert set(recipe.reinforce.teachers) == set(dict(recipe.student.logit_scales))
        assert (recipe.student.distill, recipe.student.weight_decay, recipe.student.grad_clip) == (1.0, 0.2, 1.0)
        assert recipe.student.betas == (0.9, 0.95)
        assert recipe.control.samples == recipe.student.samples


def test_paper_teachers_exist():
    from mobileclip2_lite.models.teachers import PAPER_PAIR

    assert {teacher.name: teacher.logit_scale for teacher in PAPER_PAIR} == dict(
        recipes.paper_12m().student.logit_scales
    )


def test_control_is_the_student_without_reinforcement():
    for name in recipes.RECIPES:
        recipe = recipes.named(name)
        fields = {row.field for row in recipes.differences(recipe.control, recipe.student)}
        own = {"captioners", "logit_scales", "teachers", "learning_rate"}  # each has its own best rate
        assert {"distill", "views"} <= fields <= {"distill", "views", "workers"} | own  # a loader changes no batch


def test_differences_are_complete_and_printable():
    assert recipes.differences(recipes.lite(), recipes.lite()) == []
    rows = {row.field: row for row in recipes.differences(recipes.lite(), recipes.paper_12m())}
    assert rows["student.batch_size"][1:3] == (str(recipes.lite().student.batch_size), "8,192")
    assert rows["reinforce.views"].doc.startswith("Stored augmentations an image (paper: 30")
    assert rows["student.logit_scales"].first == "none"
    table = recipes.difference_table(recipes.lite(), recipes.paper_12m())
    assert "| reinforce.views | 5 | 30 |" in table
    assert len({line.count("|") for line in table.splitlines()}) == 1
    with pytest.raises(TypeError, match="cannot compare Recipe with Train"):
        recipes.differences(recipes.lite(), recipes.Train())
