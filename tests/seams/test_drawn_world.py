"""The embedded models know drawings: commands refuse to let them judge other images, and say what to take instead."""

from __future__ import annotations

import pytest
from doubles.fake_teachers import picture, sample, write_pairs

from mobileclip2_lite import recipes
from mobileclip2_lite.cli import main
from mobileclip2_lite.cli.drawn import INSTEAD, is_drawn, refuse_drawn
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
