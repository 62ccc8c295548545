"""PIL's resize and RandAugment's operations compiled by numba: PIL's very pixels, three to four times as fast.

MobileCLIP's stored views are replayed once a sample and epoch, and after decoding PIL's resize is what costs most.
Takes and gives uint8 pixels (H, W, 3), reads and writes no files; needs the extra `fast`. Nothing is taken on trust:
`trusted` runs every kernel beside the installed PIL once a process, and what differs by one level is left to PIL.
Differs from PIL in nothing but time; benchmarks/loader.py measures it.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numba import njit
from PIL import Image

from mobileclip2_lite.views import operations

compiled = functools.partial(njit, cache=True, nogil=True)
BITS = 22
"""PIL's filter weights are whole numbers of 2^-22."""
ROWS, PLACES = 32, 32
"""Rows, and places in the result, that the horizontal pass works on at a time: what a core's first cache holds."""
SHARE = 20165
"""Of 2^19: a product with it is a division by 26 for every number that `_smooth` meets (tested for all of them)."""
TABLES = frozenset(("Brightness", "Contrast", "Posterize", "Solarize", "AutoContrast", "Equalize"))
"""Operations that are a table of 256 levels for each channel."""
RAMP = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, 2)


def resize(pixels: np.ndarray, box: tuple[int, int, int, int], size: int, interpolation: str) -> np.ndarray:
    """A box (left, top, right, bottom) of uint8 pixels (H, W, 3) at `size` x `size`, as PIL crops and resizes it.

    Args:
        interpolation: `bilinear` or `bicubic`.

    Source: Pillow's Resample.c; since version 13 it resizes vertically first where that leaves less to do.
    """
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    flat = np.ascontiguousarray(pixels).reshape(len(pixels), -1)
    across, down = (_kept_weights(length, size, interpolation == "bicubic") for length in (width, height))
    if _tall_first() and height > size and height - size > 2 * (width - size):
        between = _down(flat, top, 3 * left, 3 * width, *down)
        return _across(between, 0, 0, size, width, *across).reshape(size, size, 3)
    between = _across(flat, top, 3 * left, height, width, *across)
    return _down(between, 0, 0, 3 * size, *down).reshape(size, size, 3)


@functools.cache
def _tall_first() -> bool:
    """Whether the installed PIL resizes a tall image vertically first."""
    tall = np.random.default_rng(0).integers(0, 256, (90, 30, 3), dtype=np.uint8)
    down = _down(tall.reshape(90, -1), 0, 0, 90, *_weights(90, 20, True))
    ours = _across(down, 0, 0, 20, 30, *_weights(30, 20, True)).reshape(20, 20, 3)
    return np.array_equal(ours, np.asarray(Image.fromarray(tall).resize((20, 20), Image.Resampling.BICUBIC)))


@functools.lru_cache(maxsize=1024)
def _kept_weights(length: int, size: int, cubic: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`_weights`, of which crops of one size take the same: about 8 kB each."""
    return _weights(length, size, cubic)


@compiled()
def _weights(length: int, size: int, cubic: bool):
    """First pixel, number of pixels and their weights (2^-22) for each of `size` places over `length` pixels."""
    scale = length / size
    stretch = max(scale, 1.0)
    support = (2.0 if cubic else 1.0) * stretch
    most = math.ceil(support) * 2 + 1
    first, count = np.zeros(size, np.int64), np.zeros(size, np.int64)
    table, row = np.zeros((size, most), np.int32), np.zeros(most)
    inverse = 1.0 / stretch
    for place in range(size):
        centre = (place + 0.5) * scale
        low = max(int(centre - support + 0.5), 0)
        number = min(int(centre + support + 0.5), length) - low
        total = 0.0
        for i in range(number):
            x = abs((i + low - centre + 0.5) * inverse)
            if not cubic:
                row[i] = 1.0 - x if x < 1.0 else 0.0
            elif x < 1.0:
                row[i] = (1.5 * x - 2.5) * x * x + 1
            else:
                row[i] = (((x - 5) * x + 8) * x - 4) * -0.5 if x < 2.0 else 0.0
            total += row[i]
        for i in range(number):
            weight = (row[i] / total if total != 0.0 else row[i]) * (1 << BITS)
            table[place, i] = int(weight - 0.5) if weight < 0 else int(weight + 0.5)
        first[place], count[place] = low, number
    return first, count, table


@compiled(inline="always")
def _mix(source, top, left, weights, count, line, out):
    """Weighted sum of `count` rows from `top` on; four at a time, so that `line` is fetched and put back less often."""
    width = len(line)
    for x in range(width):
        line[x] = 1 << (BITS - 1)
    i = 0
    while i + 4 <= count:
        w0, w1, w2, w3 = weights[i], weights[i + 1], weights[i + 2], weights[i + 3]
        r0, r1 = source[top + i, left : left + width], source[top + i + 1, left : left + width]
        r2, r3 = source[top + i + 2, left : left + width], source[top + i + 3, left : left + width]
        for x in range(width):
            line[x] += w0 * np.int32(r0[x]) + w1 * np.int32(r1[x]) + w2 * np.int32(r2[x]) + w3 * np.int32(r3[x])
        i += 4
    while i < count:
        weight, row = weights[i], source[top + i, left : left + width]
        for x in range(width):
            line[x] += weight * np.int32(row[x])
        i += 1
    for x in range(width):
        out[x] = min(max(line[x] >> BITS, 0), 255)


@compiled()
def _down(source, top, left, width, first, count, table):
    """The vertical pass over `width` bytes from `left` on."""
    size = len(first)
    out, line = np.empty((size, width), np.uint8), np.empty(width, np.int32)
    for place in range(size):
        _mix(source, top + first[place], left, table[place], count[place], line, out[place])
    return out


@compiled()
def _across(source, top, left, height, width, first, count, table):
    """The horizontal pass: a block of pixels at a time on its side, so that it, too, sums whole lines."""
    size = len(first)
    out = np.empty((height, 3 * size), np.uint8)
    turned, done = np.zeros((width, 3 * ROWS), np.uint8), np.empty((PLACES, 3 * ROWS), np.uint8)
    line = np.empty(3 * ROWS, np.int32)
    for start in range(0, height, ROWS):
        rows = min(ROWS, height - start)
        for begin in range(0, size, PLACES):
            end = min(begin + PLACES, size)
            low, high = first[begin], first[end - 1] + count[end - 1]
            for r in range(rows):
                row = source[top + start + r, left + 3 * low : left + 3 * high]
                for x in range(high - low):
                    to = turned[x]
                    to[r], to[ROWS + r], to[2 * ROWS + r] = row[3 * x], row[3 * x + 1], row[3 * x + 2]
            for place in range(begin, end):
                _mix(turned, first[place] - low, 0, table[place], count[place], line, done[place - begin])
            for r in range(rows):
                row = out[start + r, 3 * begin : 3 * end]
                for x in range(end - begin):
                    column = done[x]
                    row[3 * x], row[3 * x + 1], row[3 * x + 2] = column[r], column[ROWS + r], column[2 * ROWS + r]
    return out


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


@functools.cache
def trusted() -> frozenset[str]:
    """What has been seen to give the installed PIL's pixels: `bilinear`, `bicubic`, and names of operations."""
    chance, found = np.random.default_rng(1), set()
    for name, mode in (("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)):
        shapes = ((90, 31), (31, 90), (70, 70), (9, 8), (48, 20), (1, 1), (300, 40))
        images = [chance.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]
        if all(
            np.array_equal(
                resize(pixels, (0, 0, *pixels.shape[1::-1]), 20, name),
                np.asarray(Image.fromarray(pixels).resize((20, 20), mode)),
            )
            for pixels in images
        ):
            found.add(name)
    smooth = np.add.outer(np.arange(40), np.arange(3) * 20)[None] + np.arange(40)[:, None, None]
    images = [smooth.astype(np.uint8), *chance.integers(0, 256, (3, 40, 40, 3), dtype=np.uint8)]
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
