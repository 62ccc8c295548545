"""The paper's ablation through the very same code, from a hub that is a cache on this disk.

Names, repositories, widths, image and context sizes, tokenizers and settings are the paper's, weights are random and
counts are small. The ViT-L/14s are one layer deep in `make test`, because their 24 take minutes a batch on a CPU, and
whole in `make soak`, for which 8 GB of memory and 6 GB of disk are needed.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path

import pytest
import torch
from doubles.fake_teachers import sample, write_pairs

from mobileclip2_lite import recipes
from mobileclip2_lite.captioning.generation import IMAGES
from mobileclip2_lite.captioning.stage import caption
from mobileclip2_lite.models.loaded import PIECE, TEXT_PIECE, usable_precision
from mobileclip2_lite.models.zoo import build, create_model
from mobileclip2_lite.pairs.collect import make_pairs
from mobileclip2_lite.reinforcement.stage import reinforce
from mobileclip2_lite.shards.samples import read_samples
from mobileclip2_lite.training.log import read
from mobileclip2_lite.training.loop import train
from mobileclip2_lite.work.folder import read_manifest

PAPER = recipes.paper_12m()


WHOLE = "whole towers"


def towers(config: dict, depth: str) -> dict:
    """The configuration with towers of one layer, or as it is."""
    config = copy.deepcopy(config)
    for part in ("vision_cfg", "text_cfg", "multimodal_cfg"):
        if part in config and depth != WHOLE:
            config[part]["layers"] = 1
    return config


def put(hub: Path, repository: str, files: dict[str, object]) -> None:
    """A repository in the hub's cache: JSON, or weights."""
    folder = hub / f"models--{repository.replace('/', '--')}"
    (folder / "snapshots" / "abc").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc", "utf-8")
    for name, content in files.items():
        if name.endswith(".json"):
            (folder / "snapshots" / "abc" / name).write_text(json.dumps(content), "utf-8")
        else:
            torch.save(content, folder / "snapshots" / "abc" / name)


@pytest.fixture(params=["towers of one layer", pytest.param(WHOLE, marks=pytest.mark.soak)])
def hub(request, tmp_path, monkeypatch):
    """Both DFN teachers, the captioner: where open_clip and the recipe look for them."""
    import open_clip

    place = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(place))
    names = ("ViT-L-14", "coca_ViT-L-14")
    configs = {name: towers(open_clip.get_model_config(name), request.param) for name in names}
    for name, config in configs.items():
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, config)
    for number, teacher in enumerate(PAPER.reinforce.teachers):
        torch.manual_seed(number)
        name, _, tag = teacher.partition("@")
        published = open_clip.get_pretrained_cfg(name, tag)
        weights = build({**configs[name], "quick_gelu": bool(published.get("quick_gelu"))}).state_dict()
        put(place, published["hf_hub"].rstrip("/"), {"open_clip_pytorch_model.bin": weights})
    [captioner] = PAPER.caption.captioners
    coca = copy.deepcopy(configs["coca_ViT-L-14"])
    for part in ("text_cfg", "multimodal_cfg"):
        coca[part]["context_length"] = 77
    repository = captioner.removeprefix("hf-hub:")
    torch.manual_seed(2)
    put(place, repository, {"config.json": coca, f"{repository.partition('/')[2]}.pt": build(coca).state_dict()})
    return place


@pytest.fixture
def few_at_a_time(monkeypatch):
    """Passes of as many images and texts as a shard has here: they are filled up to this number on any machine."""
    monkeypatch.setitem(PIECE, "cpu", 8)
    monkeypatch.setitem(TEXT_PIECE, "cpu", 8)
    monkeypatch.setitem(IMAGES, "cpu", 4)


@pytest.mark.slow
def test_ten_steps_of_the_papers_recipe_in_small_counts(hub, few_at_a_time, tmp_path):
    tars = write_pairs(tmp_path / "dfn-12m", [[sample(10 * g + i, captions=0) for i in range(4)] for g in range(2)])
    for number, path in enumerate(sorted(tars.glob("*.tar"))):
        path.rename(tars / f"{number:05d}.tar")
    small = {"generate": dataclasses.replace(PAPER.caption.generate, captions=1)}
    pairs = dataclasses.replace(PAPER.pairs, source=str(tars / "{00000..00001}.tar"), count=8, samples_per_shard=4)
    student = dataclasses.replace(
        PAPER.student, model="MobileCLIP2-S0", samples=20, batch_size=2, checkpoint_every=5, log_every=1, workers=0
    )
    assert make_pairs(pairs, tmp_path / "pairs")["samples"] == 8
    written = caption(dataclasses.replace(PAPER.caption, **small), tmp_path / "pairs", tmp_path / "captioned")
    assert list(written["captions"].values()) == [8]
    reinforced = dataclasses.replace(PAPER.reinforce, views=2)
    precision = usable_precision(PAPER.precision, torch.device("cpu"))
    reinforce(reinforced, tmp_path / "captioned", tmp_path / "reinforced", precision=precision)
    cards = {card["name"]: card for card in read_manifest(tmp_path / "reinforced")["teachers"]}
    assert {name: (card["dimension"], card["image_size"]) for name, card in cards.items()} == dict.fromkeys(
        PAPER.reinforce.teachers, (768, 224)
    )
    first = next(read_samples(tmp_path / "reinforced" / "shard-000000.tar"))
    one, other = (first.embeddings[f"image/{name}"] for name in PAPER.reinforce.teachers)
    assert one.shape == other.shape == (2, 768)
    assert (one - other).abs().max() > 0.01, "two teachers"
    out = train(student, tmp_path / "reinforced", tmp_path / "student", seed=0, progress=False)
    lines = read(out / "log.jsonl")
    assert [line["step"] for line in lines] == list(range(1, 11))
    assert any(key.endswith("_captions") for key in lines[0]), "the second batch, of synthetic captions"
    trained = create_model(out).model.state_dict()
    fresh = create_model("MobileCLIP2-S0").model.state_dict()
    assert {name: value.shape for name, value in trained.items()} == {name: v.shape for name, v in fresh.items()}
