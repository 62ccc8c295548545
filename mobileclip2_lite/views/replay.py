"""Replay a view: the same pixels from the same image and numbers, at any size, wherever it runs.

`replay` refuses an image of another size or hash than the view was drawn for. Resizing is PIL's, compiled by numba
where it is installed, bit for bit. Taught by notebooks/00_start_here.ipynb.
"""

from __future__ import annotations

import functools
import os
from typing import Any

import numpy as np
from PIL import Image

from mobileclip2_lite.views.operations import apply
from mobileclip2_lite.views.view import SourceMismatch, View, pixel_box

RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}


def replay(
    image: Image.Image | np.ndarray,
    view: View,
    size: int,
    interpolation: str = "bilinear",
    on_mismatch: str = "error",
    resampling: str = "pil",
) -> Image.Image:
    """The pixels of `view`: RGB, `size` x `size`. Used by the teachers and by the student's loader alike.

    Args:
        image: the whole source, an image of any mode (`decode`) or uint8 pixels (H, W, 3) (`decoding.pixels`).
        size: side of the result in pixels.
        interpolation: `bilinear`, `bicubic`, `lanczos` or `nearest`, always antialiased.
        on_mismatch: `error`, or `ignore` to take the view relative to an image of another size.
        resampling: `pil`, or `torch` for its four times faster kernel (bilinear, bicubic), which rounds 2-3 % of the
            values to the next level before RandAugment; the official generator and trainer use PIL. With the extra
            `fast` (numba), `pil` gives the same pixels bit for bit, and is nearly as fast.

    Raises:
        SourceMismatch: the image's size is not the view's, and `on_mismatch` is `error`.
        ValueError: the interpolation, resampling or an operation has no such name.
    """
    return Image.fromarray(replay_pixels(image, view, size, interpolation, on_mismatch, resampling))


def replay_pixels(
    image: Image.Image | np.ndarray,
    view: View,
    size: int,
    interpolation: str = "bilinear",
    on_mismatch: str = "error",
    resampling: str = "pil",
    height: int = 0,
) -> np.ndarray:
    """`replay` as uint8 (size, size, 3), not to be written to.

    Args:
        height: of the source, where `image` holds no more than its first rows (`decoding.pixels`); 0 if it is whole.
    """
    if interpolation not in RESAMPLING:
        raise ValueError(f"interpolation {interpolation!r} is not one of {', '.join(RESAMPLING)}")
    if resampling not in ("pil", "torch"):
        raise ValueError(f"resampling {resampling!r} is not pil or torch")
    array = isinstance(image, np.ndarray)
    width, rows = image.shape[1::-1] if array else image.size
    height = height or rows
    if on_mismatch == "error" and view.width and (width, height) != (view.width, view.height):
        raise SourceMismatch(
            f"the view was drawn for {view.width} x {view.height} pixels, the image has {width} x {height}"
        )
    box, (kernels, trusted) = pixel_box(view.crop, width, height), _kernels()
    if resampling == "torch":
        out = _resize_torch(image if array else np.asarray(image.convert("RGB")), box, size, interpolation)
    elif interpolation in trusted and array:
        out = kernels.resize(image, box, size, interpolation)
    else:
        out = _resize_pil(image, box, size, interpolation)
    if view.flip:
        out = np.ascontiguousarray(out[:, ::-1])
    for name, magnitude in view.operations:
        if name in trusted:
            out = kernels.apply(out, name, magnitude)
        else:
            out = np.asarray(apply(Image.fromarray(out), name, magnitude))
    if view.erase is not None:
        left, top, right, bottom = pixel_box(view.erase, size, size)
        out = out.copy()
        out[top:bottom, left:right] = 0
    return out


@functools.cache
def _kernels() -> tuple[Any, frozenset[str]]:
    """The compiled kernels and the names of those that give the installed PIL's pixels; none without numba."""
    if os.environ.get("MOBILECLIP2_LITE_KERNELS") == "0":
        return None, frozenset()
    try:
        from mobileclip2_lite.views import kernels
    except (ImportError, RuntimeError):  # no numba, one for another numpy, or no folder for its cache
        return None, frozenset()
    return kernels, kernels.trusted()


def _resize_pil(
    image: Image.Image | np.ndarray, box: tuple[int, int, int, int], size: int, interpolation: str
) -> np.ndarray:
    """A box of an image at `size` x `size` by PIL."""
    if isinstance(image, np.ndarray):  # only the crop is copied
        crop = Image.fromarray(np.ascontiguousarray(image[box[1] : box[3], box[0] : box[2]]))
    else:
        crop = image.crop(box).convert("RGB")
    return np.asarray(crop.resize((size, size), RESAMPLING[interpolation]))


def _resize_torch(pixels: np.ndarray, box: tuple[int, int, int, int], size: int, interpolation: str) -> np.ndarray:
    """A box of uint8 pixels (H, W, 3) at `size` x `size` by torch's antialiased integer kernel."""
    import torch

    if interpolation not in ("bilinear", "bicubic"):
        raise ValueError(f"resampling 'torch' has bilinear and bicubic, not {interpolation!r}")
    crop = torch.from_numpy(pixels[box[1] : box[3], box[0] : box[2]]).permute(2, 0, 1)[None]
    crop = crop.contiguous(memory_format=torch.channels_last)  # only then is the result channels-last, too
    out = torch.nn.functional.interpolate(crop, (size, size), mode=interpolation, antialias=True)
    return out[0].permute(1, 2, 0).contiguous().numpy()
