"""RandAugment's operations on PIL images, pixel for pixel torchvision's.

Paper: MobileCLIP (arXiv 2311.17049) section 4.1 uses torchvision's RandAugment. Takes and gives images, reads and
writes no files. Differs from torchvision: shifts are shares of the side, and what PIL does in Python loops is done in
numpy, with equal results (tested). Taught by notebooks/00_start_here.ipynb.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

OPERATIONS = (
    "Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness",
    "Color", "Contrast", "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize",
)  # fmt: skip
"""RandAugment's operations in torchvision's order, which is also the numbering of the official `paug.json`."""


def apply(image: Image.Image, name: str, magnitude: float) -> Image.Image:
    """One RandAugment operation, pixel for pixel torchvision's on PIL images (nearest neighbour, black outside).

    Shifts are shares of the side. Source: torchvision.transforms.autoaugment.
    """
    if name == "Identity":
        return image
    if (moved := matrix(name, magnitude, *image.size)) is not None:
        return image.transform(image.size, Image.Transform.AFFINE, moved)
    if name == "Rotate":
        return image.rotate(magnitude)
    if name == "Contrast":
        return _contrast(image, 1.0 + magnitude)
    if name == "Sharpness":
        return Image.blend(_smooth(image), image, 1.0 + magnitude)
    if name in ("Brightness", "Color"):
        return getattr(ImageEnhance, name)(image).enhance(1.0 + magnitude)
    if name == "Posterize":
        return ImageOps.posterize(image, int(magnitude))
    if name == "Solarize":
        return ImageOps.solarize(image, magnitude)
    if name == "AutoContrast":
        return image.point(stretched(np.array(image.histogram()).reshape(-1, 256)))
    if name == "Equalize":
        return image.point(equalized(np.array(image.histogram()).reshape(-1, 256)))
    raise ValueError(f"operation {name!r} is not one of {', '.join(OPERATIONS)}")


def matrix(name: str, magnitude: float, width: int, height: int) -> tuple[float, ...] | None:
    """PIL's affine matrix of an operation that moves pixels, None for the others and for turns by right angles."""
    if name in ("ShearX", "ShearY"):
        slope = math.tan(math.radians(math.degrees(math.atan(magnitude))))
        return (1, slope, 0, 0, 1, 0) if name == "ShearX" else (1, 0, 0, slope, 1, 0)
    if name == "TranslateX":
        return (1, 0, -shift(magnitude, width), 0, 1, 0)
    if name == "TranslateY":
        return (1, 0, 0, 0, 1, -shift(magnitude, height))
    if name != "Rotate" or not magnitude % 90:
        return None
    angle, x, y = -math.radians(magnitude % 360.0), width / 2, height / 2  # in PIL's own order, for equal rounding
    cos, sin = round(math.cos(angle), 15), round(math.sin(angle), 15)
    back = round(-math.sin(angle), 15)
    return (cos, sin, cos * -x + sin * -y + 0.0 + x, back, cos, back * -x + cos * -y + 0.0 + y)


def shift(share: float, side: int) -> int:
    """A share of the side in whole pixels, towards zero as torchvision does; an epsilon is added against rounding."""
    return int(math.copysign(abs(share) * side + 1e-3, share))


def _contrast(image: Image.Image, factor: float) -> Image.Image:
    """PIL's contrast without its detour through a histogram of Python numbers."""
    grey = np.asarray(image.convert("L"))
    mean = int(int(grey.sum(dtype=np.int64)) / grey.size + 0.5)
    return Image.blend(Image.new("RGB", image.size, (mean,) * 3), image, factor)


def _smooth(image: Image.Image) -> Image.Image:
    """PIL's filter SMOOTH, a centre of 5 among ones over 13, in whole numbers: 13 is odd, so nothing is halfway."""
    pixels = np.array(image)
    if min(pixels.shape[:2]) < 3:
        return Image.fromarray(pixels)
    wide = pixels.astype(np.uint16)
    rows = wide[:-2] + wide[1:-1]
    rows += wide[2:]
    total = rows[:, :-2] + rows[:, 1:-1]
    total += rows[:, 2:]
    total += wide[1:-1, 1:-1] * 4
    total *= 2
    total += 13
    total //= 26
    pixels[1:-1, 1:-1] = total
    return Image.fromarray(pixels)


def stretched(histograms: np.ndarray) -> list[int]:
    """PIL's autocontrast as a table: each band's darkest value to 0, its brightest to 255."""
    levels, table = np.arange(256), []
    for counts in histograms:
        present = counts.nonzero()[0]
        low, high = (int(present[0]), int(present[-1])) if len(present) else (0, 0)
        if high <= low:
            table.append(levels)
        else:
            scale = 255.0 / (high - low)
            table.append(np.clip((levels * scale + -low * scale).astype(int), 0, 255))
    return np.concatenate(table).tolist()


def equalized(histograms: np.ndarray) -> list[int]:
    """PIL's equalize as a table."""
    table = []
    for counts in histograms:
        present = counts[counts > 0]
        step = int(present.sum() - present[-1]) // 255 if len(present) > 1 else 0
        before = np.cumsum(counts) - counts
        table.append((step // 2 + before) // step if step else np.arange(256))
    return np.concatenate(table).tolist()
