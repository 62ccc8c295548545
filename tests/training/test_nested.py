"""Nested losses: the mean over cuts, and what it buys at few dimensions."""

from __future__ import annotations

import json

import pytest
import torch
from doubles.tiny_training import settings, write_data, write_model
from torch.nn import functional as F

from mobileclip2_lite.evaluation.measures import retrieval
from mobileclip2_lite.training.loop import train
from mobileclip2_lite.training.losses import PairLoss, Rows
from mobileclip2_lite.training.nested import cut, nested_loss


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_the_loss_is_the_mean_over_the_cuts():
    pair, scale = PairLoss(), torch.tensor(10.0)
    image, text = unit(6, 8), unit(6, 8, seed=1)
    found = nested_loss(lambda i, t: pair(i, t, scale), Rows.alone(image), Rows.alone(text), (2, 5))
    by_hand = [
        pair(Rows.alone(F.normalize(image[:, :d], dim=-1)), Rows.alone(F.normalize(text[:, :d], dim=-1)), scale).total
        for d in (8, 2, 5)
    ]
    assert found.total == pytest.approx(sum(by_hand) / 3)
    assert found.parts["contrastive"] == by_hand[0]
    whole = nested_loss(lambda i, t: pair(i, t, scale), Rows.alone(image), Rows.alone(text))
    assert whole.total == by_hand[0]
    for bad in ((8,), (0,), (3, 9)):
        with pytest.raises(ValueError, match="nested="):
            nested_loss(lambda i, t: pair(i, t, scale), Rows.alone(image), Rows.alone(text), bad)


def test_cuts_keep_the_places_of_several_processes():
    every = unit(6, 8)
    rows = cut(Rows(every[2:4], every, 2), 3)
    assert rows.start == 2
    assert torch.equal(rows.local, rows.all[2:4])
    assert torch.allclose(rows.all.norm(dim=1), torch.ones(6))
    alone = cut(Rows.alone(every), 3)
    assert alone.local is alone.all


def test_embeddings_trained_with_it_find_more_at_few_dimensions():
    """Free embeddings learn a teacher's similarities; cut to 4 of 32 dimensions, the nested ones still find."""
    count, size, few = 64, 32, 4
    teacher = unit(count, 24, seed=2)
    pair = PairLoss(["t"], {"t": 10.0}, {"t": 24}, 1.0)
    targets = {"t": Rows.alone(teacher)}
    found = {}
    for nested in ((), (few,)):
        images = torch.nn.Parameter(torch.randn(count, size, generator=torch.Generator().manual_seed(3)))
        texts = torch.nn.Parameter(torch.randn(count, size, generator=torch.Generator().manual_seed(4)))
        optimizer = torch.optim.Adam([images, texts], 0.05)
        for _ in range(200):
            optimizer.zero_grad()
            rows = Rows.alone(F.normalize(images, dim=-1)), Rows.alone(F.normalize(texts, dim=-1))
            loss = nested_loss(lambda i, t: pair(i, t, torch.tensor(10.0), targets, targets), *rows, nested)
            loss.total.backward()
            optimizer.step()
        short = [cut(Rows.alone(F.normalize(one.detach(), dim=-1)), few).local for one in (images, texts)]
        found[nested] = retrieval(*short, torch.arange(count), (1,))["t2i_r1"]
    assert found[(few,)] > found[()] + 0.2


def test_a_training_takes_the_setting(tmp_path):
    """The same training with and without: other losses from the first step on, also with cached gradients."""
    data, model = write_data(tmp_path / "data"), write_model(tmp_path / "model")
    losses = {}
    nested = {"nested": (4, 8)}
    for name, changes in {"whole": {}, "nested": nested, "cached": {**nested, "forward_chunk": 5}}.items():
        out = train(settings(model, samples=32, **changes), data, tmp_path / name, seed=0, progress=False)
        lines = [json.loads(line) for line in (out / "log.jsonl").read_text("utf-8").splitlines()]
        losses[name] = [line["loss"] for line in lines if "loss" in line]
    assert losses["nested"] == pytest.approx(losses["cached"], rel=1e-4)
    assert losses["nested"][0] != pytest.approx(losses["whole"][0], rel=1e-3)
    with pytest.raises(ValueError, match="do not lie between"):
        train(settings(model, nested=(16,)), data, tmp_path / "bad", seed=0, progress=False)
