"""The compiled resize and operations, and which of them give the installed PIL's pixels.

Nothing is taken on trust: `trusted` runs every kernel beside the installed PIL once a process, and what differs by one
level is left to PIL. Differs from PIL in nothing but time; benchmarks/loader.py measures it.
"""

from __future__ import annotations

import functools

import numpy as np
from PIL import Image

from mobileclip2_lite.views import operations
from mobileclip2_lite.views.compiled_operations import apply
from mobileclip2_lite.views.compiled_resize import resize


@functools.cache
def trusted() -> frozenset[str]:
    """What has been seen to give the installed PIL's pixels: `bilinear`, `bicubic`, and names of operations."""
    rng, found = np.random.default_rng(1), set()
    for name, mode in (("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)):
        shapes = ((90, 31), (31, 90), (70, 70), (9, 8), (48, 20), (1, 1), (300, 40))
        images = [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]
        if all(
            np.array_equal(
                resize(pixels, (0, 0, *pixels.shape[1::-1]), 20, name),
                np.asarray(Image.fromarray(pixels).resize((20, 20), mode)),
            )
            for pixels in images
        ):
            found.add(name)
    smooth = np.add.outer(np.arange(40), np.arange(3) * 20)[None] + np.arange(40)[:, None, None]
    images = [smooth.astype(np.uint8), *rng.integers(0, 256, (3, 40, 40, 3), dtype=np.uint8)]
    for name in operations.OPERATIONS:
        magnitudes = (7, 6) if name == "Posterize" else (178.5, 3.0) if name == "Solarize" else (-9.0, 4.0, 0.0)
        if name not in ("Rotate", "Posterize", "Solarize"):
            magnitudes = (-0.27, 0.27, 0.09, 0.9, -0.9, 0.0)
        if all(
            np.array_equal(apply(p, name, m), np.asarray(operations.apply(Image.fromarray(p), name, m)))
            for p in images
            for m in magnitudes
        ):
            found.add(name)
    return frozenset(found)
