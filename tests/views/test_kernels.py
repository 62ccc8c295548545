"""Compiled kernels: PIL's pixels bit for bit, at odd sizes too, and left to PIL where they are not."""

from __future__ import annotations

import dataclasses
import io
import os
import subprocess
import sys

import numpy as np
import pytest
from doubles.fake_teachers import picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mobileclip2_lite.recipes import Augment
from mobileclip2_lite.views import operations, replay
from mobileclip2_lite.views.drawing import draw
from mobileclip2_lite.views.replay import replay_pixels
from mobileclip2_lite.work.randomness import rng

kernels = pytest.importorskip("mobileclip2_lite.views.kernels", reason="the extra `fast` (numba) is not installed")
compiled_operations = pytest.importorskip("mobileclip2_lite.views.compiled_operations")
MODES = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def noise(seed: int, width: int, height: int) -> np.ndarray:
    """Pixels without any order: every rounding shows."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("interpolation", MODES)
@settings(max_examples=80, deadline=None)
@given(
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    size=st.integers(1, 120),
    seed=st.integers(0, 2**30),
    extreme=st.booleans(),
)
def test_resize_is_pils(interpolation, width, height, size, seed, extreme):
    pixels = noise(seed, width, height)
    if extreme:  # overshoots of the bicubic filter are cut off
        pixels = np.where(pixels > 127, 255, 0).astype(np.uint8)
    chance = rng("box", seed)
    left, top = int(chance.integers(width)), int(chance.integers(height))
    box = (left, top, int(chance.integers(left + 1, width + 1)), int(chance.integers(top + 1, height + 1)))
    theirs = Image.fromarray(pixels).crop(box).resize((size, size), MODES[interpolation])
    assert np.array_equal(kernels.resize(pixels, box, size, interpolation), np.asarray(theirs))


@pytest.mark.parametrize("name", operations.OPERATIONS)
@settings(max_examples=25, deadline=None)
@given(side=st.sampled_from([1, 2, 3, 5, 48, 64, 97]), seed=st.integers(0, 2**30), share=st.floats(-1, 1))
def test_operations_are_pils(name, side, seed, share):
    scales = {"Rotate": 45, "Posterize": 0, "Solarize": 0, "AutoContrast": 0, "Equalize": 0, "Identity": 0}
    magnitude = float(np.float32(share * scales.get(name, 0.9)))
    magnitude += {"Posterize": round(6 + 2 * share), "Solarize": 128 * (share + 1)}.get(name, 0)
    low = np.array([0, 90, 250])[seed % 3]  # dark, few levels, and bright with few levels
    pixels = np.clip(noise(seed, side, side) // (1 + 20 * (low > 0)) + low, 0, 255).astype(np.uint8)
    theirs = np.asarray(operations.apply(Image.fromarray(pixels), name, magnitude))
    assert np.array_equal(kernels.apply(pixels, name, magnitude), theirs)


def test_the_division_of_the_smoothing_filter_is_exact_for_all_its_sums():
    sums = np.arange(2 * 13 * 255 + 1, dtype=np.uint32)
    ours = (sums + np.uint32(13)) * np.uint32(compiled_operations.SHARE) >> np.uint32(19)
    assert np.array_equal(ours, (sums + 13) // 26)


def test_everything_is_trusted_with_the_pillow_that_is_installed():
    assert kernels.trusted() == {*MODES, *operations.OPERATIONS}


@pytest.mark.parametrize("interpolation", MODES)
def test_replay_is_the_same_with_kernels_and_without(interpolation, monkeypatch):
    source = np.asarray(Image.open(io.BytesIO(picture(5, 211, 157, format="PNG"))).convert("RGB"))
    wild = dataclasses.replace(Augment(), magnitude=30, flip=0.5, erase=0.5)
    views = [draw(rng(number), 211, 157, wild if number % 2 else Augment()) for number in range(60)]
    quick = [replay_pixels(source, view, 64, interpolation) for view in views]
    monkeypatch.setattr(replay, "_kernels", lambda: (None, frozenset()))
    for view, pixels in zip(views, quick, strict=True):
        assert np.array_equal(pixels, replay_pixels(source, view, 64, interpolation)), view


def test_a_kernel_that_differs_by_one_level_is_left_to_pil(monkeypatch):
    wrong = kernels.resize
    monkeypatch.setattr(kernels, "resize", lambda *given: wrong(*given) ^ np.uint8(given[3] == "bicubic"))
    assert kernels.trusted.__wrapped__() == {"bilinear", *operations.OPERATIONS}


def test_without_numba_pil_does_the_work():
    """In a process of its own, since an import happens once."""
    program = (
        "import sys; sys.modules['numba'] = None\n"
        "from mobileclip2_lite.views import replay, view; import numpy as np\n"
        "assert replay._kernels() == (None, frozenset())\n"
        "one = view.View((0.0, 0.0, 1.0, 1.0), (('Equalize', 0.0),))\n"
        "print(replay.replay_pixels(np.zeros((7, 9, 3), np.uint8), one, 4).shape)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=dict(os.environ))
    assert done.stdout == "(4, 4, 3)\n", done.stderr
