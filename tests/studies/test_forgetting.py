"""The study on forgetting, as small as it goes: both arms start from the same weights, and all is measured."""

from __future__ import annotations

import dataclasses

from mobileclip2_lite.recipes import Evaluate
from mobileclip2_lite.studies import forgetting


def test_both_arms_go_on_from_the_trained_model(tmp_path, monkeypatch):
    tiny = {"samples": 16, "batch_size": 8}
    arms = {arm: dataclasses.replace(settings, **tiny) for arm, settings in forgetting.ARMS.items()}
    monkeypatch.setattr(forgetting, "ARMS", arms)
    monkeypatch.setattr(forgetting, "OLD", forgetting.NEW)
    sizes = Evaluate(renders=1, scenes=8)
    lines = list(forgetting.study(tmp_path, pairs=16, seeds=(0,), sizes=sizes))
    assert [line["arm"] for line in lines] == ["before", "plain", "reinforced"]
    before, *after = lines
    assert before["old_zero_shot"] > 0.6  # of 24 names: it is the trained model
    assert all(line["old_zero_shot"] > 0.4 for line in after)  # two steps from it
    assert {line["settings"]["start"] for line in after} == {"lite-dfn"}
