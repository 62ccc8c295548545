"""PIL's crop and resize compiled by numba: PIL's very pixels, three to four times as fast.

After decoding, PIL's resize is what costs most of a replayed view. Both passes work on whole numbers, as PIL's do, and
on pieces that fit a core's first cache. Takes and gives uint8 pixels (H, W, 3); needs the extra `fast`.
`kernels.trusted` compares it with the installed PIL.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numba import njit
from PIL import Image

compiled = functools.partial(njit, cache=True, nogil=True)
BITS = 22
"""PIL's filter weights are whole numbers of 2^-22."""
ROWS, PLACES = 32, 32
"""Rows, and places in the result, that the horizontal pass works on at a time: what a core's first cache holds."""


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
