"""The zero-shot playground: what it draws, and what turning and typing change."""

from __future__ import annotations

import io
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

    shares = naming.answers_of(load_teachers(("lite-teacher-conv",)).loaded("lite-teacher-conv"), ["a {}"])
    red = shares(RED, ["a", "b", "c"])
    assert sum(red) == pytest.approx(1, abs=1e-5)
    assert shares(BLUE, ["a", "b", "c"]) != red
    assert shares(RED, ["c", "a", "b"]) == pytest.approx([red[2], red[0], red[1]], abs=1e-6), "known names in any order"


def test_each_name_is_embedded_once_and_an_image_once_while_it_stays(monkeypatch):
    from types import SimpleNamespace

    import torch

    from mobileclip2_lite.evaluation import measures
    from mobileclip2_lite.models import loaded

    named, looked_at = [], []

    def classifier(model, names, templates):
        named.extend(names)
        return torch.eye(4)[: len(names)]

    monkeypatch.setattr(measures, "zero_shot_classifier", classifier)
    monkeypatch.setattr(loaded, "encode_images", lambda model, images: looked_at.extend(images) or torch.eye(4)[:1])
    shares = naming.answers_of(SimpleNamespace(model=SimpleNamespace(logit_scale=torch.zeros(()))), ["{}"])
    for image, names in ((RED, ["a", "b"]), (RED, ["b", "c"]), (BLUE, ["c", "a"])):
        assert len(shares(image, names)) == 2
    assert named == ["a", "b", "c"]
    assert looked_at == [RED, BLUE]


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


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "Type two names or more"),
        ("dog", "Type two names or more"),
        ("dog, dog ,, dog", "Type two names or more"),
        ("x" * 10_000, "Type two names or more"),
        (f"dog, {'x' * 10_000}", "One name has 10,000 characters"),
        (", ".join(map(str, range(2_000))), "2,000 names are too many"),
    ],
)
def test_what_is_not_a_list_of_names_is_answered_in_words(line, words):
    with pytest.raises(ValueError, match=words):
        naming.read_names(line)


@pytest.mark.parametrize("name", ["$5 and $\\frac", "a" * naming.MOST_LETTERS, "犬 🐕", "50 %", "3.14", "nan"])
def test_any_name_is_drawn_as_it_was_typed_in_a_figure_of_the_usual_size(name):
    usual, drawn = (
        Image.open(io.BytesIO(naming.png(naming.drawn(RED, [one, "a cat"], [0.7, 0.3]), live=True)))
        for one in ("a dog", name)
    )
    assert drawn.size == usual.size


def encoded(picture: Image.Image, form: str, **more) -> bytes:
    data = io.BytesIO()
    picture.save(data, form, **more)
    return data.getvalue()


UPLOADS = {
    "one pixel": encoded(Image.new("RGB", (1, 1)), "PNG"),
    "one column": encoded(Image.new("RGB", (1, 3_000)), "PNG"),
    "CMYK": encoded(Image.new("CMYK", (40, 30)), "JPEG"),
    "16 bits": encoded(Image.fromarray(np.full((30, 40), 40_000, np.uint16)), "PNG"),
    "transparent": encoded(Image.new("RGBA", (40, 30)), "PNG"),
    "animated": encoded(Image.new("P", (20, 20)), "GIF", save_all=True, append_images=[Image.new("P", (20, 20), 3)]),
}


@pytest.mark.parametrize("kind", UPLOADS)
def test_any_image_that_is_uploaded_is_answered(kind):
    image = naming.uploaded(UPLOADS[kind])
    assert image.mode == "RGB"
    assert max(image.size) <= naming.KEPT
    assert naming.png(naming.drawn(image, ["a", "b"], [0.6, 0.4]), live=True)


@pytest.mark.parametrize("data", [b"", b"no image", UPLOADS["one pixel"][:40], b"%PDF-1.7", bytes(10_000)])
def test_a_file_that_is_no_image_is_answered_in_words(data):
    with pytest.raises(ValueError, match=r"cannot be read \(.+\): choose a JPEG, PNG or WebP file\."):
        naming.uploaded(data)
