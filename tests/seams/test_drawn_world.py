"""The embedded models know drawings: commands refuse to let them judge other images, and say what to take instead."""

from __future__ import annotations

import dataclasses

import pytest
from doubles.fake_teachers import picture, sample, write_pairs

from mobileclip2_lite import recipes
from mobileclip2_lite.cli import main
from mobileclip2_lite.cli.drawn import INSTEAD, is_drawn, refuse_drawn, refuse_for_source
from mobileclip2_lite.pairs.collect import make_pairs

COMMANDS = {"reinforce": "--teachers", "filter": "--scorer", "caption": "--captioners"}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Pairs that are not of the embedded world."""
    return write_pairs(tmp_path_factory.mktemp("photographs") / "pairs", [[sample(0), sample(1)]])


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_names_what_to_use_for_other_images(photographs, tmp_path, capsys, command):
    with pytest.raises(SystemExit) as ended:
        main([command, str(photographs), str(tmp_path / "out")])
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert f"Take {COMMANDS[command]} {INSTEAD[COMMANDS[command]]}" in said
    assert "--allow-drawn" in said
    assert not (tmp_path / "out").exists()


def test_search_names_a_model_for_photographs(tmp_path, capsys):
    (tmp_path / "a.jpg").write_bytes(picture(1))
    with pytest.raises(SystemExit):
        main(["search", str(tmp_path), "a dog"])
    assert "hf-hub:apple/MobileCLIP2-S0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "take"),
    [
        (["run", "--pairs.source", "PHOTOS", "--filter.keep", "1"], "Take --reinforce.teachers photo-teacher-names"),
        (["captions", "PAIRS", "--teachers", "lite-teacher-se"], "Take --teachers photo-teacher-names"),
        (["playground", "lite-teacher-se", "OUT", "--album", "PHOTOS"], "Take MODEL photo-teacher-vectors"),
        (["evaluate", "lite-teacher-se", "--set", "hf:clip-benchmark/wds_cifar10"], "Take MODEL photo-teacher-vectors"),
        (["search", "PHOTOS", "--duplicates"], "Take --model photo-teacher-vectors"),
    ],
)
def test_every_other_command_that_judges_images_refuses_too(photographs, tmp_path, capsys, words, take):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(picture(1))
    places = {"PHOTOS": tmp_path / "photos", "PAIRS": photographs, "OUT": tmp_path / "out"}
    with pytest.raises(SystemExit) as ended:
        main([str(places.get(word, word)) for word in words])
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert take in said
    assert "--allow-drawn" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos"]


def test_the_whole_way_of_the_drawn_world_and_with_other_models_goes_on(tmp_path):
    recipe = recipes.tiny()
    refuse_for_source(recipe, False)
    own = dataclasses.replace(recipe, pairs=recipes.Pairs(source=str(tmp_path)))
    refuse_for_source(own, True)
    others = {
        "reinforce": recipes.Reinforce(teachers=("photo-teacher-names",)),
        "caption": dataclasses.replace(recipe.caption, captioners=()),
        "filter": dataclasses.replace(recipe.filter, keep=1.0),
    }
    refuse_for_source(dataclasses.replace(own, **others), False)
    with pytest.raises(ValueError, match=r"lite-dfn knows drawings.*Take --filter\.scorer photo-teacher-vectors"):
        refuse_for_source(dataclasses.replace(own, **{**others, "filter": recipes.Filter()}), False)
    make_pairs(recipes.Pairs(count=2), tmp_path / "drawn", world=recipe.world)
    drawn = recipes.Pairs(source=str(tmp_path / "drawn"))
    refuse_for_source(dataclasses.replace(recipe, pairs=drawn), False)


def test_drawings_and_other_models_and_who_insists_go_on(photographs, tmp_path):
    world = recipes.tiny()
    make_pairs(recipes.Pairs(count=2), tmp_path / "drawn", world=world.world)
    teachers = recipes.Reinforce().teachers
    assert is_drawn(tmp_path / "drawn")
    assert not is_drawn(photographs)
    refuse_drawn(teachers, tmp_path / "drawn", "--teachers", False)
    refuse_drawn(teachers, photographs, "--teachers", True)
    refuse_drawn(("ViT-B-32@openai", "photo-teacher-names", str(tmp_path)), photographs, "--teachers", False)
    with pytest.raises(ValueError, match="lite-teacher-conv, lite-teacher-se know drawings"):
        refuse_drawn(teachers, photographs, "--teachers", False)
