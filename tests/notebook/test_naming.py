"""The zero-shot playground: what it draws, and what turning and typing change."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from PIL import Image

from mobileclip2_lite.notebook import naming

RED, BLUE = (Image.new("RGB", (32, 32), colour) for colour in ("red", "blue"))


def test_the_most_probable_name_stands_first_and_few_are_drawn():
    names = [f"name {k}" for k in range(20)]
    left, right = naming.drawn(RED, names, np.linspace(0, 1, 20)).axes
    assert [text.get_text() for text in right.get_yticklabels()][:2] == ["name 19", "name 18"]
    assert len(right.patches) == naming.MOST
    assert left.images


def test_probabilities_add_up_to_one_and_follow_the_image():
    from mobileclip2_lite.models.teachers import load_teachers

    loaded = load_teachers(("lite-teacher-conv",)).loaded("lite-teacher-conv")
    shares = naming.probabilities(loaded, RED, ["a", "b", "c"], ["a {}"])
    assert sum(shares) == pytest.approx(1, abs=1e-5)
    assert naming.probabilities(loaded, BLUE, ["a", "b", "c"], ["a {}"]) != shares


def test_the_widget_answers_and_says_in_words_what_it_cannot():
    pytest.importorskip("ipywidgets")
    asked = []

    def answer(image, line: str) -> bytes:
        naming.read_names(line)
        asked.append((image, line))
        return f"{len(asked)}".encode()

    view = naming._widget(answer, [RED, BLUE], "dog, cat")
    line, row, said, shown = view.children
    which, upload = row.children
    assert shown.value == b"1"
    line.value = "dog, cat, cow"
    assert asked[-1] == (RED, "dog, cat, cow")
    which.value = 1
    assert asked[-1][0] is BLUE
    before = shown.value
    line.value = "dog"
    assert said.value.startswith("Type two names or more")
    assert shown.value == before, "the last answer stays"
    line.value = "dog, cow"
    assert said.value == ""
    file = {"name": "x.png", "type": "image/png", "size": 1, "content": memoryview(b"x")}
    upload.value = ({**file, "last_modified": datetime(2026, 1, 1, tzinfo=UTC)},)
    assert "choose a JPEG, PNG or WebP file" in said.value


def test_there_must_be_an_image():
    with pytest.raises(ValueError, match="give at least one"):
        naming.naming_box(None, [], "dog, cat", ["{}"])
