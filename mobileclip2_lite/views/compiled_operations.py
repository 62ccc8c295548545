"""RandAugment's operations compiled by numba: PIL's very pixels.

An operation that only maps levels is a table of 256 for each channel, which PIL itself makes from a ramp. Takes and
gives uint8 pixels (S, S, 3); needs the extra `fast`. `kernels.trusted` compares each with the installed PIL.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from PIL import Image

from mobileclip2_lite.views import operations
from mobileclip2_lite.views.compiled_resize import compiled

SHARE = 20165
"""Of 2^19: a product with it is a division by 26 for every number that `_smooth` meets (tested for all of them)."""
TABLES = frozenset(("Brightness", "Contrast", "Posterize", "Solarize", "AutoContrast", "Equalize"))
"""Operations that are a table of 256 levels for each channel."""
RAMP = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, 2)


def apply(pixels: np.ndarray, name: str, magnitude: float) -> np.ndarray:
    """`operations.apply` on contiguous uint8 pixels (S, S, 3); names that have no kernel go through PIL."""
    if name == "Identity":
        return pixels
    if name in TABLES:
        return _looked_up(pixels.reshape(-1), _table(pixels, name, magnitude)).reshape(pixels.shape)
    if name in ("Color", "Sharpness"):
        flat = pixels.reshape(-1)
        other = _grey(flat) if name == "Color" else _smooth(pixels).reshape(-1)
        return _blended(other, flat, np.float32(1.0 + magnitude)).reshape(pixels.shape)
    matrix = operations.matrix(name, magnitude, pixels.shape[1], pixels.shape[0])
    if matrix is None:
        return np.asarray(operations.apply(Image.fromarray(pixels), name, magnitude))
    a, b, c, d, e, f = matrix
    c, f = c + a * 0.5 + b * 0.5, f + d * 0.5 + e * 0.5
    return _moved(pixels, *(math.floor(value * 65536.0 + 0.5) for value in (a, b, c, d, e, f)))


def _table(pixels: np.ndarray, name: str, magnitude: float) -> np.ndarray:
    """An operation's levels, uint8 (768,): what PIL makes of an image with every level once."""
    if name in ("AutoContrast", "Equalize"):
        counts = _histogram(pixels.reshape(-1))
        return _stretched(counts) if name == "AutoContrast" else _equalized(counts)
    if name == "Contrast":
        mean = int(_grey_sum(pixels.reshape(-1)) / (pixels.shape[0] * pixels.shape[1]) + 0.5)
        return _of_ramp(name, magnitude, mean)
    return _of_ramp(name, magnitude, 0)


@functools.lru_cache(maxsize=1024)
def _of_ramp(name: str, magnitude: float, mean: int) -> np.ndarray:
    ramp = Image.fromarray(RAMP)
    if name == "Contrast":
        out = Image.blend(Image.new("RGB", ramp.size, (mean,) * 3), ramp, 1.0 + magnitude)
    else:
        out = operations.apply(ramp, name, magnitude)
    return np.ascontiguousarray(np.asarray(out)[0].T).reshape(-1)


@compiled()
def _looked_up(flat, table):
    out = np.empty_like(flat)
    for x in range(0, len(flat), 3):
        out[x], out[x + 1], out[x + 2] = table[flat[x]], table[256 + flat[x + 1]], table[512 + flat[x + 2]]
    return out


@compiled()
def _histogram(flat):
    """Two counts in turn: neighbours of one level would wait for each other."""
    even, odd = np.zeros(768, np.int64), np.zeros(768, np.int64)
    for x in range(0, len(flat) - 5, 6):
        even[flat[x]] += 1
        even[256 + flat[x + 1]] += 1
        even[512 + flat[x + 2]] += 1
        odd[flat[x + 3]] += 1
        odd[256 + flat[x + 4]] += 1
        odd[512 + flat[x + 5]] += 1
    if len(flat) % 6:
        for channel in range(3):
            odd[256 * channel + flat[len(flat) - 3 + channel]] += 1
    return (even + odd).reshape(3, 256)


@compiled()
def _stretched(histograms):
    """`operations.stretched` as uint8 (768,)."""
    table = np.empty(768, np.uint8)
    for channel in range(3):
        counts, low, high = histograms[channel], 0, 255
        while low < 255 and counts[low] == 0:
            low += 1
        while high > 0 and counts[high] == 0:
            high -= 1
        scale = 255.0 / (high - low) if high > low else 1.0
        offset = -low * scale if high > low else 0.0
        for level in range(256):
            table[256 * channel + level] = min(max(int(level * scale + offset), 0), 255)
    return table


@compiled()
def _equalized(histograms):
    """`operations.equalized` as uint8 (768,)."""
    table = np.empty(768, np.uint8)
    for channel in range(3):
        counts, last = histograms[channel], 255
        while last > 0 and counts[last] == 0:
            last -= 1
        step = (counts.sum() - counts[last]) // 255
        before = step // 2
        for level in range(256):
            table[256 * channel + level] = min(before // step, 255) if step else level
            before += counts[level]
    return table


@compiled()
def _level(flat, x):
    """PIL's grey of the pixel whose red stands at `x`."""
    red, green, blue = np.uint32(flat[x]), np.uint32(flat[x + 1]), np.uint32(flat[x + 2])
    weighted = red * np.uint32(19595) + green * np.uint32(38470) + blue * np.uint32(7471)
    return (weighted + np.uint32(0x8000)) >> np.uint32(16)


@compiled()
def _grey_sum(flat):
    total = 0
    for pixel in range(len(flat) // 3):
        total += np.int64(_level(flat, 3 * pixel))
    return total


@compiled()
def _grey(flat):
    out = np.empty_like(flat)
    for pixel in range(len(flat) // 3):
        x, level = 3 * pixel, _level(flat, 3 * pixel)
        out[x], out[x + 1], out[x + 2] = level, level, level
    return out


@compiled()
def _smooth(pixels):
    """PIL's filter SMOOTH, a centre of 5 among ones over 13; the border stays."""
    out = pixels.copy()
    height, width = pixels.shape[0], pixels.shape[1]
    if height < 3 or width < 3:
        return out
    source, result = pixels.reshape(height, width * 3), out.reshape(height, width * 3)
    sums = np.empty(width * 3, np.uint32)
    for y in range(1, height - 1):
        above, row, below = source[y - 1], source[y], source[y + 1]
        for x in range(width * 3):
            sums[x] = np.uint32(above[x]) + np.uint32(row[x]) + np.uint32(below[x])
        left, middle, right = sums[:-6], sums[3:-3], sums[6:]
        centre, to = row[3:-3], result[y, 3 : width * 3 - 3]
        for x in range(len(to)):
            total = np.uint32(2) * (left[x] + middle[x] + right[x] + np.uint32(4) * np.uint32(centre[x]))
            to[x] = np.uint32((total + np.uint32(13)) * np.uint32(SHARE)) >> np.uint32(19)
    return out


@compiled()
def _blended(first, second, share):
    """PIL's blend of two images: in float32, cut off and not rounded."""
    out = np.empty_like(first)
    for x in range(len(first)):
        value = np.float32(first[x]) + share * np.float32(np.int32(second[x]) - np.int32(first[x]))
        out[x] = np.int32(min(max(value, np.float32(0)), np.float32(255)))
    return out


@compiled()
def _moved(pixels, a, b, c, d, e, f):
    """PIL's affine transform by the nearest pixel, black outside: (x, y) is (ax + by + c, dx + ey + f) / 2^16."""
    height, width = pixels.shape[0], pixels.shape[1]
    out = np.zeros((height, width * 3), np.uint8)
    flat = pixels.reshape(-1)
    for y in range(height):
        to, u, v = out[y], c + b * y, f + e * y
        if d == 0 and a == 1 << 16:  # a whole row moves
            first, last = max(0, -(u >> 16)), min(width, width - (u >> 16))
            if 0 <= v >> 16 < height and first < last:
                start = ((v >> 16) * width + (u >> 16)) * 3
                to[3 * first : 3 * last] = flat[start + 3 * first : start + 3 * last]
            continue
        for x in range(width):
            if 0 <= u < width << 16 and 0 <= v < height << 16:
                start = ((v >> 16) * width + (u >> 16)) * 3
                to[3 * x], to[3 * x + 1], to[3 * x + 2] = flat[start], flat[start + 1], flat[start + 2]
            u, v = u + a, v + d
    return out.reshape(pixels.shape)
