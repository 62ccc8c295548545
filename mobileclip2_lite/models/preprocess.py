"""What a model does to an image before it sees it, as one value that travels with the model.

A model cannot be used with another's normalisation. The MobileCLIP2 family mixes two: S0, S2 and B take pixels from 0
to 1 as they are (mean 0, std 1), S3, S4 and L-14 OpenAI's mean and std. The arithmetic is that of torchvision's Resize,
CenterCrop, ToTensor, Normalize (tested). Taught by notebooks/50_architecture_and_latency.ipynb.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image

from mobileclip2_lite.views.decoding import as_rgb

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_MODES = ("shortest", "longest", "squash")
_LONG = 4
"""Longer sides a shorter one beyond which an image is cut before it is resized."""
_TALL_FIRST = int(PIL.__version__.split(".")[0]) >= 13
"""Whether PIL resizes a tall image vertically first, where that leaves less to do."""


@dataclass(frozen=True)
class Preprocess:
    """Resize, crop, scale to 0..1, normalise: a PIL image becomes a float32 tensor (3, S, S)."""

    image_size: int
    """Side S in pixels."""
    mean: tuple[float, float, float] = OPENAI_MEAN
    """Mean of each channel, for pixels in 0..1."""
    std: tuple[float, float, float] = OPENAI_STD
    """Standard deviation of each channel, for pixels in 0..1."""
    interpolation: str = "bicubic"
    """`bilinear` or `bicubic`, both with antialiasing."""
    resize_mode: str = "shortest"
    """`shortest`: shorter side to S, centre crop; `longest`: fit, pad with 0; `squash`: distort."""

    def __post_init__(self) -> None:
        if self.interpolation not in _FILTERS or self.resize_mode not in _MODES:
            raise ValueError(
                f"preprocess: interpolation must be one of {sorted(_FILTERS)} and resize_mode one of {_MODES}, "
                f"not {self.interpolation!r} and {self.resize_mode!r}"
            )
        for name in ("mean", "std"):
            value = getattr(self, name)
            value = (value,) * 3 if isinstance(value, (int, float)) else value
            object.__setattr__(self, name, tuple(float(channel) for channel in value))
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(f"preprocess: mean and std need three channels, std above 0: {self.mean}, {self.std}")

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """`image` of any size and mode as float32 (3, S, S), normalised; BadImage if its mode has no RGB."""
        pixels = np.array(self.resize(as_rgb(image)), dtype=np.uint8)
        return self.normalize(torch.from_numpy(pixels).permute(2, 0, 1)[None])[0].contiguous()

    def resize(self, image: Image.Image) -> Image.Image:
        """An RGB image of S x S pixels, not normalised."""
        side, resample = self.image_size, _FILTERS[self.interpolation]
        if self.resize_mode == "squash":
            return image.resize((side, side), resample)
        width, height = image.size
        if self.resize_mode == "shortest":
            short, long = min(width, height), max(width, height)
            scaled = int(side * long / short)
            if scaled > _LONG * side:
                return _centre(image, side, scaled, resample)
            size = (side, scaled) if width <= height else (scaled, side)
        else:
            scale = side / max(width, height)
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = image.resize(size, resample) if size != image.size else image
        left, top = (round((extent - side) / 2.0) for extent in image.size)
        return image.crop((left, top, left + side, top + side))  # beyond the image PIL pads with 0

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 (B, 3, S, S) with values 0..255 as float32, `(x / 255 - mean) / std`, in channels-last layout."""
        images = images.to(torch.float32, memory_format=torch.channels_last, copy=True)
        lines = images.permute(0, 2, 3, 1).flatten(2)  # whole lines: three times as fast as three channels at a time
        mean, std = (torch.tensor(v, device=images.device).repeat(images.shape[3]) for v in (self.mean, self.std))
        lines.div_(255).sub_(mean).div_(std)
        return images

    def to_config(self) -> dict[str, Any]:
        """The `preprocess_cfg` of an open_clip config file."""
        return {
            "size": self.image_size,
            "mean": list(self.mean),
            "std": list(self.std),
            "interpolation": self.interpolation,
            "resize_mode": self.resize_mode,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], **overrides: Any) -> Preprocess:
        """From open_clip's `preprocess_cfg`; `overrides` are fields of this class, None meaning unchanged.

        Raises:
            ValueError: the size is missing or not square, or another value is not one this class knows.
        """
        size = config.get("size")
        if isinstance(size, (list, tuple)):
            if len(set(size)) != 1:
                raise ValueError(f"preprocess: only square inputs are supported, not {size}")
            size = size[0]
        values = {
            "image_size": size,
            **{k: v for k, v in config.items() if k in ("mean", "std", "interpolation", "resize_mode")},
        }
        values.update({key: value for key, value in overrides.items() if value is not None})
        if not values["image_size"]:
            raise ValueError(f"preprocess: the config {config} has no image size")
        return cls(**values)

    def replace(self, **changes: Any) -> Preprocess:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)


def _centre(image: Image.Image, side: int, scaled: int, resample: Image.Resampling) -> Image.Image:
    """The centre of a long image, as if it had been resized to `side` x `scaled` as a whole and cropped then.

    An image of 1 x 65,500 pixels, 100 bytes as PNG, would take 10 GB as a whole. What is cut off lies beyond the
    filter's reach. PIL resizes one side after the other and cuts levels off in between: the order is the whole's.
    """
    tall = image.height > image.width
    short, long, step = min(image.size), max(image.size), max(image.size) / scaled
    first = round((scaled - side) / 2.0) * step
    margin = 3 * max(1.0, step) + 1  # the bicubic filter reaches two pixels, of the result where those are the larger
    low, high = max(0, int(first - margin)), min(long, int(first + side * step + margin) + 1)
    part = image.crop((0, low, short, high) if tall else (low, 0, high, short))
    span = first - low, min(first - low + side * step, high - low)
    box = (0, span[0], short, span[1]) if tall else (span[0], 0, span[1], short)
    if tall and _TALL_FIRST and long > scaled and long - scaled > 2 * (short - side):
        return part.resize((short, side), resample, box).resize((side, side), resample)
    if tall:
        return part.resize((side, part.height), resample).resize((side, side), resample, (0, span[0], side, span[1]))
    return part.resize((side, short), resample, box).resize((side, side), resample)
