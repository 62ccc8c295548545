"""A CLIP by hand, whose right answers are plain to see."""

import types

import numpy as np
import torch

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


class ColourClip(torch.nn.Module):
    """A CLIP by hand: an image is its mean colour, a text the colours that it names."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.eye(3))
        self.batches = []

    def encode_image(self, images, normalize=False):
        assert not self.training
        self.batches.append(len(images))
        features = images.mean(dim=(2, 3)) @ self.weight
        return torch.nn.functional.normalize(features, dim=-1) if normalize else features

    def encode_text(self, tokens, normalize=False):
        self.batches.append(len(tokens))
        features = tokens.float() @ self.weight
        return torch.nn.functional.normalize(features, dim=-1) if normalize else features


def colour_clip():
    preprocess = types.SimpleNamespace(resize=lambda image: image.resize((4, 4)), normalize=lambda batch: batch / 255)

    def tokenizer(texts):
        return torch.tensor([[int(colour in text) for colour in COLOURS] for text in texts]) + 1e-3

    return types.SimpleNamespace(model=ColourClip(), preprocess=preprocess, tokenizer=tokenizer)


def plain(colour, size=8):
    return np.full((size, size, 3), COLOURS[colour], dtype=np.uint8)
