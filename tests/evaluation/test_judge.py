"""The second judge: mteb's numbers are ours, on the same data."""

from __future__ import annotations

import sys

import pytest

from mobileclip2_lite.evaluation import judge, public, twins
from mobileclip2_lite.evaluation.sets import evaluate_set
from mobileclip2_lite.models.embedded import data_folder
from mobileclip2_lite.models.zoo import create_model
from mobileclip2_lite.recipes import World

WORLD = World(names=12, image_size=64, max_objects=2)


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    return twins.write_twins(tmp_path_factory.mktemp("twins"), WORLD, 16, renders=2)


@pytest.fixture(scope="module")
def teacher():
    return create_model(data_folder() / "teachers" / "lite-teacher-conv")


@pytest.mark.parametrize(
    "form", ["wds", "wds_retrieval", "karpathy", "docci", "sugarcrepe/swap_att", "sugarcrepe/add_obj"]
)
def test_mteb_finds_the_same_numbers(twin, teacher, form):
    pytest.importorskip("mteb", reason="needs the extra `eval`")
    test_set = public.open_set(twin[form])
    template = "a picture of a {}" if form == "wds" else "{}"
    theirs = judge.judge(teacher, test_set, template)
    ours = evaluate_set(teacher, test_set, [template] if form == "wds" else ())["measures"]
    assert theirs
    assert theirs == pytest.approx({name: ours[name] for name in theirs}, abs=1e-4)


def test_what_mteb_does_not_have_is_refused(twin, teacher):
    pytest.importorskip("mteb", reason="needs the extra `eval`")
    with pytest.raises(ValueError, match="one right and one wrong caption"):
        judge.judge(teacher, public.open_set(twin["sugarcrepe++/swap_att"]))


def test_without_mteb_the_remedy_is_named(twin, teacher, monkeypatch):
    monkeypatch.setitem(sys.modules, "mteb", None)
    with pytest.raises(ModuleNotFoundError, match=r"mobileclip2_lite\[eval\]"):
        judge.judge(teacher, public.open_set(twin["wds"]))
