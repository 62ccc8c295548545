"""The dial of weights and scales: its target is the library's, it embeds once, and says in words what it cannot."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mobileclip2_lite.notebook import targets
from mobileclip2_lite.notebook.targets import Voice

COSINES = {"a": np.array([[0.9, 0.1, 0.0], [0.2, 0.3, 0.1]]), "b": np.array([[0.1, 0.8, 0.3], [0.0, 0.1, 0.6]])}
TEXTS = ["a dog", "a cat", "a very long text about a cow in the rain"]
IMAGES = [np.full((8, 8, 3), grey, np.uint8) for grey in (80, 180)]


def test_equal_weights_give_the_librarys_target_and_unequal_ones_lean():
    import torch

    from mobileclip2_lite.training.row_losses import ensemble_target

    scales = {"a": 5.0, "b": 20.0}
    logits = [torch.tensor(scale * COSINES[name]) for name, scale in scales.items()]
    equal = targets.blended(COSINES, {name: Voice(0.3, scale) for name, scale in scales.items()})
    np.testing.assert_allclose(equal, ensemble_target(logits)[0].numpy(), atol=1e-12)
    alone = targets.blended(COSINES, {"a": Voice(0.0, 5.0), "b": Voice(0.4, 20.0)})
    np.testing.assert_allclose(alone, logits[1].softmax(1).numpy(), atol=1e-12)
    loud = targets.blended(COSINES, {"a": Voice(1, 0.5), "b": Voice(1, 20)})
    assert loud.argmax(axis=1).tolist() == [1, 2], "the louder one decides"
    with pytest.raises(ValueError, match="nobody is asked"):
        targets.blended(COSINES, {"a": Voice(0, 5), "b": Voice(0, 5)})


def test_static_panels_and_the_live_figure_say_the_same():
    own, quiet = {"a": Voice(1, 5), "b": Voice(1, 20)}, {"a": Voice(1, 0.5), "b": Voice(1, 20)}

    def words(cell):
        return [text.get_text() for text in cell.texts]

    left, right = targets.panels(COSINES, [own, quiet], TEXTS, IMAGES).axes
    (live,) = targets.panels(COSINES, [quiet], TEXTS, IMAGES).axes
    assert words(live) == words(right) != words(left)
    assert live.get_title(loc="left") == "a: weight 1.0, scale 0.5\nb: weight 1.0, scale 20"
    assert right.get_title(loc="left") == live.get_title(loc="left") != left.get_title(loc="left")
    best = targets.blended(COSINES, quiet).max(axis=1)
    assert words(live)[-2:] == [f"{best[0]:.0%} a cat", f"{best[1]:.0%} a very long text about a cow…"]


def test_images_and_texts_are_embedded_once(monkeypatch):
    import torch

    from mobileclip2_lite.models import loaded

    asked = []

    class Ensemble:
        names = ("a", "b")
        loaded = staticmethod(lambda name: name)

    def encode_texts(model, texts):
        asked.extend((model, text) for text in texts)
        return torch.eye(4)[[len(text) % 4 for text in texts]]

    monkeypatch.setattr(loaded, "encode_images", lambda model, images: torch.eye(4)[: len(images)])
    monkeypatch.setattr(loaded, "encode_texts", encode_texts)
    cosines = targets.cosines_of(Ensemble, IMAGES)
    assert cosines(["four", "seven.."])["a"].tolist() == [[1, 0], [0, 0]]
    assert cosines(["seven..", "four"])["b"].tolist() == [[0, 1], [0, 0]]
    cosines(["four", "a new one"])
    assert asked == [(name, text) for new in (["four", "seven.."], ["a new one"]) for name in "ab" for text in new]


def test_the_widget_answers_and_says_in_words_what_it_cannot():
    pytest.importorskip("ipywidgets")
    asked = []

    def answer(voices, text: str) -> bytes:
        targets.blended(COSINES, voices)
        targets.read_texts(text)
        asked.append((voices, text))
        return f"{len(asked)}".encode()

    view = targets._widget(answer, {"a": Voice(1, 5), "b": Voice(1, 20)}, "\n".join(TEXTS))
    first, second, lines, _, said, shown = view.children
    assert shown.value == b"1"
    first.children[0].value = 0.5
    second.children[1].value = 100
    assert asked[-1] == ({"a": Voice(0.5, 5), "b": Voice(1, 100)}, "\n".join(TEXTS))
    assert shown.value == b"3"
    lines.value = "a dog\n\n a dog "
    assert said.value.startswith("Write two texts or more, one a line")
    lines.value = "\n".join(f"text {k}" for k in range(targets.MOST + 1))
    assert said.value.startswith("13 texts are too many")
    lines.value = "a dog\na cow"
    assert said.value == ""
    first.children[0].value = second.children[0].value = 0
    assert said.value.startswith("All weights are zero")
    assert shown.value == f"{len(asked)}".encode(), "the last answer stays"


def test_there_must_be_an_image_and_two_texts():
    with pytest.raises(ValueError, match="give at least one"):
        targets.targets_box(None, [], TEXTS)
    with pytest.raises(ValueError, match="two texts or more"):
        targets.targets_box(None, [Image.new("RGB", (8, 8))], ["a dog"])
