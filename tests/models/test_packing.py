"""Packed texts give the features and gradients of open_clip's text tower."""

from __future__ import annotations

import pytest
import torch

from mobileclip2_lite.models.packing import ROUNDED, by_length, encode_packed, encode_text, is_packable
from mobileclip2_lite.models.zoo import create_model

TEXTS = [
    "dog",
    "no! a dog!",
    "a red apple and a blue car to the left of a very small green house",
    "a cat",
    "",
    "two words",
]


@pytest.fixture(scope="module")
def loaded():
    torch.manual_seed(0)
    return create_model("lite-mci-s")


@pytest.mark.parametrize("pool", ["argmax", "eos"])
def test_packed_texts_are_the_same(loaded, pool, monkeypatch):
    model, tokens = loaded.model, loaded.tokenizer(TEXTS)
    assert is_packable(model)
    monkeypatch.setattr(model.text, "pool_type", pool)
    monkeypatch.setattr(model.text, "eos_id", int(tokens.max()))
    weights = torch.randn(len(TEXTS), 128)
    found = []
    for encode in (model.encode_text, lambda rows: encode_packed(model, rows)):
        model.zero_grad()
        features = encode(tokens)
        (features * weights).sum().backward()
        found.append((features, {name: p.grad.clone() for name, p in model.text.named_parameters()}))
    (plain, gradients), (packed, others) = found
    assert torch.allclose(packed, plain, atol=1e-5)
    for name, gradient in gradients.items():
        assert (others[name] - gradient).norm() <= 1e-4 * gradient.norm() + 1e-6, name
    unit = encode_packed(model, tokens, normalize=True)
    assert torch.allclose(unit, model.encode_text(tokens, normalize=True), atol=1e-6)


def test_groups_hold_each_text_once_and_little_padding(loaded):
    tokens = loaded.tokenizer(TEXTS)
    order, groups = by_length(tokens)
    assert sorted(order.tolist()) == list(range(len(TEXTS)))
    rows = [row for group in groups for row in group]
    for place, row in zip(order.tolist(), rows, strict=True):
        assert torch.equal(row, tokens[place, : len(row)])
        assert not tokens[place, len(row) :].any()
        assert len(row) - int((row != 0).sum()) < ROUNDED


def test_towers_that_see_later_tokens_are_encoded_as_ever():
    model = create_model("lite-coca").model  # its class token sees all others
    assert not is_packable(model)
    tokens = torch.tensor([[1, 5, 2, 0], [1, 2, 0, 0]])
    assert torch.equal(encode_text(model, tokens, normalize=True), model.encode_text(tokens, normalize=True))
