"""A small captioner whose captions differ, images for it, and the cases whose answers by others' code are recorded."""

from __future__ import annotations

import numpy as np
import torch

from mobileclip2_lite.models.loaded import LoadedModel
from mobileclip2_lite.models.preprocess import Preprocess
from mobileclip2_lite.models.tokenizer import prefix_tokenizer
from mobileclip2_lite.models.zoo import build

CONTEXT, VOCABULARY, SIZE = 24, 600, 16
GREEDY_CASES = [(seed, end, length) for seed, end in ((3, 2.0), (5, 1.5)) for length in (9, CONTEXT)]
"""Seed of the weights, likelihood of the end token, length."""
WARPS = [(0.7, 0), (1.0, 7), (1.0, 1), (2.0, 9)]
"""Temperature and top-k (0: all)."""
COCO_CASES = {
    "captions of three images": (
        ["a red dog on green grass", "two blue cats", "a small boat in the water near the large boat"],
        [
            ["a red dog sits on the grass", "there is a dog on green grass", "a dog"],
            ["two blue cats sit side by side", "blue cats", "cats and a dog"],
            ["a small boat near a large boat", "two boats in the water", "a boat on the water"],
        ],
    ),
    "words that repeat": (
        ["the the the cat the cat", "a a b a b"],
        [["the cat", "the cat is here and the cat is there"], ["a b a b", "b a"]],
    ),
    "one that shares nothing": (["x y z w v", "a dog"], [["a red dog"], ["a dog", "the dog"]]),
    "equal to a reference": (
        ["a red apple above a dog", "a blue car to the left of a tree"],
        [["a red apple above a dog", "an apple"], ["a blue car to the left of a tree", "a car and a tree"]],
    ),
}
"""Captions, one an image, and each image's references."""


def small_coca(seed: int = 0, end: float = 0.0, **text: bool) -> LoadedModel:
    """An open_clip CoCa of the official layout, tiny, whose captions differ; `end` makes the end token likelier."""
    torch.manual_seed(seed)
    shared = {"context_length": CONTEXT, "vocab_size": VOCABULARY, "width": 32, "layers": 2}
    vision = {"image_size": SIZE, "layers": 1, "width": 32, "patch_size": 8, "head_width": 16}
    config = {
        "embed_dim": 32,
        "vision_cfg": {**vision, "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
        "text_cfg": {**shared, "heads": 2, "embed_cls": True, "output_tokens": True, **text},
        "multimodal_cfg": {**shared, "heads": 4},
        "custom_text": True,
    }
    model = build(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "visual.conv1" not in name:
                parameter.normal_(std=1.0 if "embedding" in name else 1.5 * parameter.shape[-1] ** -0.5)
        model.text_decoder.text_projection.normal_(std=0.5)
        model.text_decoder.text_projection[:, VOCABULARY - 1] *= 1 + end
    preprocess = Preprocess(SIZE, (0, 0, 0), (0.3, 0.3, 0.3), "bilinear")
    return LoadedModel(model, preprocess, prefix_tokenizer(VOCABULARY, CONTEXT))


def pictures(count: int, size: int = SIZE) -> torch.Tensor:
    """uint8 pictures, each of a colour of its own with some noise."""
    chance = np.random.default_rng(0)
    colours = chance.integers(0, 200, (count, 3, 1, 1))
    return torch.from_numpy((colours + chance.integers(0, 56, (count, 3, size, size))).astype(np.uint8))


def warped() -> torch.Tensor:
    """Logits (6, 40)."""
    return torch.randn(6, 40, generator=torch.Generator().manual_seed(0))


def penalised() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (6, 40) and the tokens written so far (6, 9)."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, 40, generator=generator), torch.randint(1, 39, (6, 9), generator=generator)
