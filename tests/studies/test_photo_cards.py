"""The data card's table of photograph teachers: from recorded lines, of photographs named by their files."""

from __future__ import annotations

import pytest
import timm
import torch
from doubles.colour_clip import colour_clip, plain
from PIL import Image

from mobileclip2_lite.models import photo_packages, photo_teachers
from mobileclip2_lite.models.photo_teachers import KINDS
from mobileclip2_lite.models.preprocess import Preprocess
from mobileclip2_lite.studies import photo_cards, recorded
from mobileclip2_lite.studies import photo_teachers as photo_teachers_study

CARD = f"before\n{photo_cards.BEGIN}\nold\n{photo_cards.END}\nafter\n"


def test_the_data_card_says_what_is_recorded(repository):
    lines = list(recorded.read_lines(recorded.results_folder() / photo_cards.FILE))
    assert [line["teacher"] for line in lines] == list(KINDS)
    text = (repository / "data" / "README.md").read_text("utf-8")
    found = text.partition(photo_cards.BEGIN)[2].partition(photo_cards.END)[0].strip()
    assert found == photo_cards.table(lines), "python -m mobileclip2_lite.studies.photo_cards writes it anew"


def test_what_the_card_claims_beside_the_table_is_recorded():
    lines = {line["teacher"]: line for line in recorded.read_lines(recorded.results_folder() / photo_cards.FILE)}
    for line in lines.values():
        assert (line["held_out"]["images"], line["named"]["images"]) == (200, 750)
        assert line["held_out"]["i2t_r1"] > 10 / 200, "far more than guessing, which finds one of 200"
    captions = lines["photo-teacher-captions"]
    assert "all" not in captions, "most of them are what it was fitted on"
    assert all(captions["held_out"][way] > lines[other]["held_out"][way] for way in ("i2t_r1", "t2i_r1")
               for other in lines if other != captions["teacher"]), "captions teach captions"  # fmt: skip


def test_photographs_are_named_by_the_synset_in_front(tmp_path):
    for name in ("n01440764_tench.JPEG", "n01443537_goldfish.jpg", "n99999999_nothing.jpg", "notes.txt", "x.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name, "PNG")
    files, labels = photo_cards.classified([tmp_path])
    assert [path.name for path in files] == ["n01440764_tench.JPEG", "n01443537_goldfish.jpg"]
    assert labels.tolist() == [0, 1]
    assert len(set(photo_cards.synsets())) == 1_000
    named = photo_teachers_study.named_photographs([tmp_path])
    assert [(one.synset, one.name) for one in named] == [
        ("n01440764", "tench"), ("n01443537", "goldfish"), ("n99999999", "nothing")
    ]  # fmt: skip
    (tmp_path / "empty").mkdir()
    for wanted in (photo_cards.classified, photo_teachers_study.named_photographs):
        with pytest.raises(ValueError, match="n01440764_tench"):
            wanted([tmp_path / "empty"])


def test_teacher_and_classifier_name_the_same_photographs(tmp_path, monkeypatch):
    """The classifier here says `tench` to everything, the teacher sees colours."""
    state = timm.create_model("tf_efficientnet_lite0").state_dict()
    state |= {"classifier.weight": torch.zeros(1000, 1280), "classifier.bias": torch.eye(1000)[0]}
    monkeypatch.setattr(photo_packages, "classifier_state", lambda kind, keys: {key: state[key] for key in keys})
    monkeypatch.setattr(photo_teachers, "imagenet_names", lambda: ["red", "blue"])
    files = [tmp_path / "red.png", tmp_path / "blue.png"]
    for path in files:
        Image.fromarray(plain(path.stem)).save(path)
    loaded = colour_clip()
    loaded.preprocess = Preprocess(32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    found = photo_cards.named_right("photo-teacher-names", loaded, files, torch.tensor([0, 1]))
    assert found == {"teacher": 1.0, "classifier": 0.5}


def test_the_table_is_written_between_its_marks(tmp_path):
    recall = {"images": 3, "texts": 15, "i2t_r1": 0.25, "t2i_r1": 0.125}
    named = {"images": 7, "teacher": 0.5, "classifier": 0.75}
    lines = [
        {"teacher": "a", "unseen_names": None, "all": recall, "held_out": recall, "named": named},
        {"teacher": "b", "unseen_names": {"top1": 0.3}, "held_out": recall, "named": named},
    ]
    card = tmp_path / "README.md"
    card.write_text(CARD, "utf-8")
    photo_cards.write_card(card, lines)
    text = card.read_text("utf-8")
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| 25.0 % and 12.5 % | fitted on most of them |" in text
    assert "| none: it knows its thousand | 30.0 % |" in text
    assert "among 3 photographs with 15 captions" in text
    assert "| 50.0 % | 50.0 % | 76.2 % of all of ImageNet's, no label seen | 71.5 % of" in text, "beside published ones"
    card.write_text("no marks", "utf-8")
    with pytest.raises(ValueError, match="no lines"):
        photo_cards.write_card(card, lines)
