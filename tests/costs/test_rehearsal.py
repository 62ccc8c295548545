"""A dry run finds what a training would stumble over, and says what it takes, without training."""

from __future__ import annotations

import dataclasses
import json

import pytest
from doubles.tiny_training import settings, write_data, write_model

from mobileclip2_lite import recipes
from mobileclip2_lite.cli import main
from mobileclip2_lite.costs.rehearsal import rehearse
from mobileclip2_lite.reports.page import Table
from mobileclip2_lite.shards.tar_members import ShardError


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data") / "reinforced")


def cells(blocks) -> dict[str, str]:
    return {row[0]: row[1] for block in blocks if isinstance(block, Table) for row in block.rows}


def size(found: dict[str, str], images: int) -> float:
    """Bytes of activations and gradients."""
    return in_bytes(found[f"activations and gradients, {images} images at a time"])


def in_bytes(cell: str) -> float:
    number, unit = cell.split()
    return float(number) * {"kB": 1e3, "MB": 1e6, "GB": 1e9}[unit]


def test_the_papers_student_is_built_at_its_real_size(data):
    """Of the published ablation all but the data: 8,192 samples a step of MobileCLIP2-B over 64 GPUs."""
    paper = recipes.paper_12m().student
    chosen = dataclasses.replace(paper, batch_size=32, samples=30_000 * 32, captioners=("short",), logit_scales=())
    found = cells(rehearse(chosen, data, processes=8))
    assert found["parameters, image tower"].startswith("86,"), "86.3 million in the paper"
    assert found["parameters, all"].startswith("149,"), "with a text tower of 63.4 million"
    assert found["steps"] == "30,000 of 32"
    assert found["a process and step"] == "4 of 8"
    assert found["epochs"] == "24,000.00"
    assert float(found["weights"].split()[0]) == pytest.approx(600, rel=0.02), "MB: 150 million fp32 numbers"
    assert float(found["adamw's moments"].split()[0]) == pytest.approx(1.2, rel=0.02)
    assert size(found, 4) > 0.6e9, "its gradients alone"


def test_memory_follows_a_process_share(data, tmp_path):
    chosen = settings(write_model(tmp_path / "model"))
    alone, half = cells(rehearse(chosen, data)), cells(rehearse(chosen, data, processes=2))
    chunked = cells(rehearse(dataclasses.replace(chosen, forward_chunk=4), data))
    assert size(alone, 16) > size(half, 8) > size(chunked, 4)
    assert alone["weights"] == half["weights"]
    in_parts = cells(rehearse(dataclasses.replace(chosen, parallel="fsdp"), data, processes=2))
    for name in ("weights", "adamw's moments"):
        assert in_bytes(in_parts[name]) == pytest.approx(in_bytes(half[name]) / 2, rel=0.02)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"captioners": ("third",)},
            r"shard-000000.tar, sample .*: it has no captions of third, but of \['long', 'short'\]",
        ),
        ({"teachers": ("third",)}, "teachers \\['third'\\] are not in"),
        ({"batch_size": 41, "samples": 41}, "holds 40 samples, fewer than one batch of 41"),
        ({"precision": "fp8"}, "precision 'fp8' is unknown"),
    ],
)
def test_what_a_training_would_stumble_over_is_said(data, tmp_path, changes, words):
    with pytest.raises(ValueError, match=words):
        rehearse(settings(write_model(tmp_path / "model"), **changes), data)


def test_a_batch_that_cannot_be_split_is_said(data, tmp_path):
    with pytest.raises(ValueError, match="cannot be split evenly over 3"):
        rehearse(settings(write_model(tmp_path / "model")), data, processes=3)
    with pytest.raises(ValueError, match="processes is 0: at least one"):
        rehearse(settings(write_model(tmp_path / "model")), data, processes=0)


def test_the_last_shard_is_opened(tmp_path):
    data, chosen = write_data(tmp_path / "data"), settings(write_model(tmp_path / "model"))
    manifest = json.loads((data / "manifest.json").read_text("utf-8"))
    last = data / manifest["shards"][-1]["name"]
    whole = last.read_bytes()
    manifest["shards"][-1]["samples"] -= 1
    (data / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(ValueError, match=r"shard-000001.tar holds 20 samples, the manifest says 19"):
        rehearse(chosen, data)
    last.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ShardError, match="shard-000001"):
        rehearse(chosen, data)


def test_a_tokenizer_of_another_model_is_noticed(data, tmp_path, monkeypatch):
    """On the meta device a text tower takes any token, and the training would end in its first step."""
    from mobileclip2_lite.costs import rehearsal
    from mobileclip2_lite.models.tokenizer import prefix_tokenizer

    real, chosen = rehearsal.new_model, settings(write_model(tmp_path / "model"))
    for tokenizer, words in (
        (prefix_tokenizer(4_000, 24), r"gives token 3999 for .*, the text tower knows 600"),
        (prefix_tokenizer(600, 30), "gives 30 tokens a text, the text tower takes 24"),
    ):
        monkeypatch.setattr(rehearsal, "new_model", lambda s, t=tokenizer: real(s)._replace(tokenizer=t))
        with pytest.raises(ValueError, match=words):
            rehearse(chosen, data)


def test_the_command_prints_and_trains_nothing(data, tmp_path, capsys):
    model = write_model(tmp_path / "model")
    options = ["--model", str(model), "--samples", "80", "--batch-size", "16", "--captioners", "short"]
    main(["train", str(data), str(tmp_path / "out"), *options, "--dry-run", "--processes", "2"])
    said = capsys.readouterr().out
    assert "| steps | 5 of 16 |" in said
    assert "| a process and step | 8 of 2 |" in said
    assert not (tmp_path / "out").exists()
