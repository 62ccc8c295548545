"""Draw a view: RandomResizedCrop, then RandAugment, with torchvision's operations and ranges.

MobileCLIP (arXiv 2311.17049) section 4.1, "strong augmentation"; flip and erasing are options that are off.
Taught by notebooks/00_start_here.ipynb.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from mobileclip2_lite.views.operations import OPERATIONS
from mobileclip2_lite.views.view import SIGNED, View

if TYPE_CHECKING:
    from mobileclip2_lite.recipes import Augment

TRANSLATE = 150.0 / 331.0
"""Largest shift of RandAugment, as a share of the side (torchvision)."""


def draw(rng: np.random.Generator, width: int, height: int, augment: Augment, sha256: str = "") -> View:
    """A random view of an image of `width` x `height` pixels.

    Args:
        rng: the only source of chance (`work.randomness.rng(seed, "views", uid)`); views of an image come in a row.
        augment: ranges (`recipes.Augment`).
        sha256: hash of the image's bytes, kept with the view.

    Raises:
        ValueError: width or height is below one pixel, or the magnitude is outside 0 to 30.

    Source: torchvision's RandomResizedCrop and RandAugment, whose distributions this follows.
    """
    if width < 1 or height < 1:
        raise ValueError(f"an image of {width} x {height} pixels has no views")
    if not 0 <= augment.magnitude <= 30:
        raise ValueError(f"Augment.magnitude is {augment.magnitude}, RandAugment takes 0 to 30")
    left, top, right, bottom = _crop(rng, width, height, augment)
    operations = tuple(_operation(rng, augment.magnitude) for _ in range(augment.operations))
    flip = bool(augment.flip and rng.random() < augment.flip)
    erase = _erase(rng) if augment.erase and rng.random() < augment.erase else None
    crop = (left / width, top / height, right / width, bottom / height)
    return View(crop, operations, flip, erase, width, height, sha256)


def _crop(rng: np.random.Generator, width: int, height: int, augment: Augment) -> tuple[int, int, int, int]:
    """torchvision's RandomResizedCrop in whole source pixels: ten tries, then the largest centred crop allowed."""
    low, high = augment.ratio
    for _ in range(10):
        area = width * height * rng.uniform(*augment.scale)
        ratio = math.exp(rng.uniform(math.log(low), math.log(high)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            return left, top, left + w, top + h
    w, h = width, height
    if width / height < low:
        h = min(height, max(1, round(width / low)))
    elif width / height > high:
        w = min(width, max(1, round(height * high)))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def _operation(rng: np.random.Generator, magnitude: int) -> tuple[str, float]:
    """One RandAugment operation of `magnitude` out of 30, with a random sign where the operation has one."""
    name = OPERATIONS[int(rng.integers(len(OPERATIONS)))]
    share = magnitude / 30
    value = {
        "ShearX": 0.3 * share,
        "ShearY": 0.3 * share,
        "TranslateX": TRANSLATE * share,
        "TranslateY": TRANSLATE * share,
        "Rotate": 30.0 * share,
        "Brightness": 0.9 * share,
        "Color": 0.9 * share,
        "Contrast": 0.9 * share,
        "Sharpness": 0.9 * share,
        "Posterize": 8 - round(magnitude / 7.5),
        "Solarize": 255.0 * (1 - share),
    }.get(name, 0.0)
    if name in SIGNED and rng.integers(2):
        value = -value
    return name, float(np.float32(value))


def _erase(rng: np.random.Generator) -> tuple[float, float, float, float]:
    """torchvision's RandomErasing box (2-33 % of the area, ratio 0.3-3.3), in 255ths of the side: it is stored so."""
    for _ in range(10):
        area, ratio = rng.uniform(0.02, 0.33), math.exp(rng.uniform(math.log(0.3), math.log(3.3)))
        w, h = round(255 * math.sqrt(area * ratio)), round(255 * math.sqrt(area / ratio))
        if 0 < w < 255 and 0 < h < 255:
            left, top = int(rng.integers(256 - w)), int(rng.integers(256 - h))
            return left / 255, top / 255, (left + w) / 255, (top + h) / 255
    return 0.25, 0.25, 0.75, 0.75
