"""Costs and latency: counted numbers against numbers worked out by hand, and rows that survive a file."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time

import pytest
import torch
from torch import nn

from mobileclip2_lite.costs.flops import count_flops, peak_memory, stage_costs
from mobileclip2_lite.costs.latency import (
    Row,
    TextTower,
    compare,
    count_parameters,
    measure,
    measure_model,
    picture,
    read_jsonl,
    report,
    table,
    waiting,
    write_jsonl,
)
from mobileclip2_lite.models.zoo import create_model

QUICK = {"warmup": 1, "seconds": 0.02, "passes": (2, 3)}


def test_flops_by_hand():
    depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
    assert count_flops(depthwise, torch.rand(2, 8, 10, 10)) == 2 * 2 * 8 * 9 * 100
    assert count_flops(nn.Linear(5, 7), torch.rand(3, 5)) == 2 * 3 * 5 * 7
    attention = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    tokens, width, hidden = 6, 16, 32
    products = 4 * tokens * width * width + 2 * tokens * tokens * width + 2 * tokens * width * hidden
    assert count_flops(attention, torch.rand(1, tokens, width)) == 2 * products


def test_peak_memory_by_hand():
    wide = nn.Sequential(nn.Linear(10, 1000), nn.Linear(1000, 10))
    numbers = 4 * (10 + 1000 + 10)  # input, hidden and output live together when the second layer runs
    assert peak_memory(wide, torch.rand(4, 10)) == 4 * numbers
    deep = nn.Sequential(*(nn.Linear(100, 100) for _ in range(20)))
    assert peak_memory(deep, torch.rand(1, 100)) <= 4 * 4 * 100, "what is no longer used does not count"


def test_stages_add_up_to_the_tower():
    stages = stage_costs("lite_mci5", 128, 192)
    model = create_model("lite-mci5-s").model
    row = measure(model.visual, torch.rand(1, 3, 128, 128), **QUICK)
    assert sum(stage.parameters for stage in stages) == row.parameters
    assert sum(stage.flops for stage in stages) == row.flops
    assert [stage.side for stage in stages] == [32, 32, 16, 8, 4, 2, 1]
    assert [stage.mixer for stage in stages[1:6]] == ["convolution"] * 3 + ["attention"] * 2
    large = stage_costs("fastvit_mci3", 256, 768)
    assert sum(stage.parameters for stage in large) / 1e6 == pytest.approx(125.1, abs=0.1)


def test_parameters_are_counted_without_weights():
    assert [round(count / 1e6, 1) for count in count_parameters("MobileCLIP2-S0")] == [11.4, 63.4]
    model = create_model("lite-mci-s").model
    row = measure(model.visual, torch.rand(1, 3, 64, 64), **QUICK)
    assert count_parameters("lite-mci-s") == (row.parameters, sum(p.numel() for p in model.text.parameters()))


def test_a_row_says_what_was_measured():
    model = create_model("lite-mci-s").model.train()
    row = measure(model.visual, torch.rand(2, 3, 64, 64), model="m", **QUICK)
    assert model.training
    assert row.folded
    assert (row.batch_size, row.size, row.threads, row.tower) == (2, 64, 1, "image")
    assert row.parameters < sum(parameter.numel() for parameter in model.visual.parameters())
    assert 0 < row.low <= row.milliseconds <= row.high
    assert 2 <= row.passes <= 3
    double = measure(model.visual, torch.rand(4, 3, 64, 64), **QUICK)
    assert double.flops == 2 * row.flops
    assert row.peak_bytes < double.peak_bytes <= 2.1 * row.peak_bytes
    with pytest.raises(ValueError, match="backend"):
        measure(model.visual, torch.rand(1, 3, 64, 64), backend="tpu")


class Asleep(nn.Module):
    """A tower whose time is known."""

    def forward(self, x):
        time.sleep(0.02)
        return x.mean(dim=(2, 3))


def test_milliseconds_are_milliseconds():
    inputs = torch.rand(1, 3, 4, 4)
    alone = measure(Asleep(), inputs, memory=False, **QUICK)
    (in_turn,) = compare([("asleep", "image", lambda: (Asleep(), inputs))], rounds=2)
    for row in (alone, in_turn):
        assert 19 < row.low <= row.milliseconds <= row.high < 19_000


def test_all_combinations_of_a_model():
    rows = list(
        measure_model("lite-mci-s", image_sizes=(None, 96), batch_sizes=(1, 2), threads=(1,), memory=False, **QUICK)
    )
    combinations = [(row.tower, row.size, row.batch_size) for row in rows]
    loaded = create_model("lite-mci-s")
    own, context = loaded.preprocess.image_size, loaded.model.context_length
    assert combinations == [
        *[("image", size, batch) for size in (own, 96) for batch in (1, 2)],
        *[("text", context, batch) for batch in (1, 2)],
    ]
    assert all(row.model == "lite-mci-s" for row in rows)


def test_a_gpu_is_waited_for():
    """Or the milliseconds are those of asking alone."""
    assert waiting(torch.device("cpu")) is None
    assert waiting(torch.device("cuda:1")) is torch.cuda.synchronize
    assert waiting(torch.device("mps")) is torch.mps.synchronize


def test_towers_compared_in_turn():
    model = create_model("lite-mci-s").model
    small, large = torch.rand(1, 3, 32, 32), torch.rand(4, 3, 128, 128)
    rows = compare(
        [("small", "image", lambda: (model.visual, small)), ("large", "image", lambda: (model.visual, large))], rounds=5
    )
    assert [row.model for row in rows] == ["small", "large"]
    assert [row.passes for row in rows] == [5, 5]
    assert rows[1].flops > 30 * rows[0].flops
    assert rows[1].milliseconds > 2 * rows[0].milliseconds


def test_report_says_and_keeps_every_row(tmp_path):
    said = []
    rows = report(["lite-mci-s"], output=tmp_path / "rows.jsonl", progress=said.append, memory=False, **QUICK)
    assert [row.tower for row in rows] == ["image", "text"]
    assert len(said) == 2 + len(rows)
    assert read_jsonl(tmp_path / "rows.jsonl") == rows
    assert not (tmp_path / "rows.png").exists(), "the picture is the family's"


def test_onnx_runtime_as_backend():
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = create_model("lite-mci-s").model
    row = measure(model.visual, torch.rand(1, 3, 64, 64), backend="onnx", **QUICK)
    assert row.backend == "onnx"
    assert row.milliseconds > 0


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_as_backend():
    row = measure(create_model("lite-mci-s").model.visual, torch.rand(1, 3, 64, 64), backend="compiled", **QUICK)
    assert row.backend == "compiled"
    assert row.milliseconds > 0


def test_text_towers_of_both_classes_of_open_clip(tmp_path):
    custom = create_model("lite-mci-s")
    tokens = custom.tokenizer(["a cat"])
    assert torch.equal(TextTower(custom.model)(tokens), custom.model.encode_text(tokens))
    from mobileclip2_lite.models.zoo import build

    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 600, "width": 32, "heads": 2, "layers": 1},
    }
    plain = build(config)
    tower = TextTower(plain)
    tokens = torch.randint(1, 600, (2, 77))
    assert torch.equal(tower(tokens), plain.encode_text(tokens))
    visual = sum(parameter.numel() for parameter in plain.visual.parameters())
    assert measure(tower, tokens, kind="text", **QUICK).parameters == (
        sum(parameter.numel() for parameter in plain.parameters()) - visual
    )


ROW = Row(
    "MobileCLIP2-S0", "image", "eager", True, 1, 256, 1, 11_360_000, 4_000_000_000, 10**7, 80.0, 79.0, 82.0, 9, "x"
)


def test_rows_survive_a_file(tmp_path):
    rows = [ROW, dataclasses.replace(ROW, model="MobileCLIP2-S4", milliseconds=900.0)]
    path = write_jsonl(rows[:1], tmp_path / "new" / "rows.jsonl")
    write_jsonl(rows[1:], path)
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps({"claim": "S4 against L/14", "ratio": 2.0}) + "\n")
    assert read_jsonl(path) == rows
    assert "| MobileCLIP2-S0 | image | eager | 1 | 256 | 1 | 11.36 | 4.00 | 10.0 | 80.0 (79.0-82.0) |" in table(rows)


def test_picture_shows_the_papers_phone_and_this_machine(tmp_path):
    figure = picture([ROW, dataclasses.replace(ROW, model="unknown")], tmp_path / "p.png")
    phone, here = figure.axes
    assert {text.get_text() for text in phone.texts} >= {"S0", "S4", "L-14"}
    assert [text.get_text() for text in here.texts] == ["S0"]
    assert here.lines[0].get_xdata()[0] == 80.0
    assert here.lines[0].get_ydata()[0] == 71.5
    assert (tmp_path / "p.png").stat().st_size > 5_000
    picture([])
