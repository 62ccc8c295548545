"""The same images, named by a model in training."""

from __future__ import annotations

import pytest
import torch

from mobileclip2_lite.notebook import watching


def test_a_watch_keeps_every_answer(monkeypatch):
    answers = iter([[[0], [0]], [[0], [1]]])
    monkeypatch.setattr(watching.measures, "zero_shot_classifier", lambda *_: torch.eye(2))
    monkeypatch.setattr(watching.measures, "top_classes", lambda *_, k: next(answers))
    monkeypatch.setattr(watching, "encode_images", lambda *_: torch.eye(2))
    watch = watching.Watch(["first", "second"], ["cat", "dog"], ["cat", "dog"])
    assert watch(None) == {"right": 0.5}
    assert watch(None) == {"right": 1.0}
    assert watch.answers == [["cat", "cat"], ["cat", "dog"]]


def test_a_watch_wants_a_name_an_image():
    with pytest.raises(ValueError, match="give one name an image"):
        watching.Watch(["first"], ["cat", "dog"], ["cat", "dog"])
