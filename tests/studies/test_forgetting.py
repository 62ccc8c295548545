"""The study on forgetting, as small as it goes: both arms start from the same weights, and all is measured."""

from __future__ import annotations

import dataclasses

from mobileclip2_lite.recipes import Evaluate
from mobileclip2_lite.studies import arms, forgetting, photograph_page


def test_both_arms_go_on_from_the_trained_model(tmp_path, monkeypatch):
    tiny = {"samples": 16, "batch_size": 8}
    small = {arm: dataclasses.replace(settings, **tiny) for arm, settings in forgetting.ARMS.items()}
    monkeypatch.setattr(forgetting, "ARMS", small)
    monkeypatch.setattr(forgetting, "OLD", forgetting.NEW)
    sizes = Evaluate(renders=1, scenes=8)
    lines = list(forgetting.study(tmp_path, pairs=16, seeds=(0,), sizes=sizes))
    assert [line["arm"] for line in lines] == ["before", "plain", "reinforced"]
    before, *after = ({name: arms.hits({0: line}, name)[0].mean() for name in line["hits"]} for line in lines)
    assert before["old_zero_shot"] > 0.6  # of 24 names: it is the trained model
    assert all(line["old_zero_shot"] > 0.4 for line in after)  # two steps from it
    assert {line["settings"]["start"] for line in lines[1:]} == {"lite-dfn"}
    assert lines[0]["chance"]["new_zero_shot"] == round(1 / 24, 5)
    text = photograph_page.page([], [{**line, "command": "python -m study"} for line in lines])
    assert "Made by `python -m study`." in text
    assert "| before | " in text
    assert "| reinforced − plain | " in text
