"""Views: torchvision's pixels, the same at any time, relative to the source, and small."""

from __future__ import annotations

import dataclasses
import io
from collections import Counter

import numpy as np
import pytest
import torch
from doubles.fake_teachers import picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import InterpolationMode, RandAugment, RandomResizedCrop
from torchvision.transforms import functional as F
from torchvision.transforms.autoaugment import _apply_op

from mobileclip2_lite.recipes import Augment
from mobileclip2_lite.views import decoding
from mobileclip2_lite.views.drawing import draw
from mobileclip2_lite.views.operations import OPERATIONS, apply
from mobileclip2_lite.views.replay import replay
from mobileclip2_lite.views.view import pack, pixel_box, unpack
from mobileclip2_lite.work.randomness import rng


def image(number=0, width=90, height=70):
    return Image.open(io.BytesIO(picture(number, width, height, format="PNG")))


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("magnitude", [3, 9, 30])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_operations_are_torchvisions(name, magnitude, sign, seed):
    source = image(seed, 64, 64) if seed else Image.new("RGB", (64, 64), (9, 200, 0))
    magnitudes, signed = RandAugment()._augmentation_space(31, (64, 64))[name]
    value = float(magnitudes[magnitude]) if magnitudes.ndim else 0.0
    value *= sign if signed else 1
    ours = apply(source, name, value / 64 if name.startswith("Translate") else value)
    theirs = _apply_op(source, name, value, InterpolationMode.NEAREST, None)
    assert np.array_equal(np.asarray(ours), np.asarray(theirs))


@pytest.mark.parametrize("name", ["Contrast", "Sharpness", "AutoContrast", "Equalize"])
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (5, 2), (3, 3), (224, 224)])
def test_what_numpy_does_is_what_pil_does(name, size):
    chance = np.random.default_rng(0)
    for low, high in ((0, 256), (100, 103), (7, 8), (0, 2)):
        source = Image.fromarray(chance.integers(low, high, (size[1], size[0], 3), dtype=np.uint8))
        theirs = _apply_op(source, name, 0.27, InterpolationMode.NEAREST, None)
        assert np.array_equal(np.asarray(apply(source, name, 0.27)), np.asarray(theirs))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_replay_is_torchvisions_crop_then_its_operations(interpolation):
    source = image()
    for number in range(20):
        view = draw(rng(number), *source.size, Augment())
        left, top, right, bottom = pixel_box(view.crop, *source.size)
        mode = InterpolationMode(interpolation)
        theirs = F.resized_crop(source, top, left, bottom - top, right - left, [48, 48], mode)
        for name, magnitude in view.operations:
            absolute = magnitude * 48 if name.startswith("Translate") else magnitude
            theirs = _apply_op(theirs, name, absolute, InterpolationMode.NEAREST, None)
        ours = replay(source, view, 48, interpolation)
        assert np.array_equal(np.asarray(ours), np.asarray(theirs))
        from_pixels = replay(np.asarray(source), view, 48, interpolation)
        assert np.array_equal(np.asarray(ours), np.asarray(from_pixels))


def test_drawn_views_have_torchvisions_distribution():
    width, height, count, source = 90, 70, 3000, image()
    torch.manual_seed(0)
    crop = RandomResizedCrop(8)
    theirs = np.array([crop.get_params(source, crop.scale, crop.ratio) for _ in range(count)], float)
    views = [draw(rng("d", i), width, height, Augment()) for i in range(count)]
    boxes = [pixel_box(view.crop, width, height) for view in views]
    ours = np.array([(t, left, b - t, r - left) for left, t, r, b in boxes], float)
    spread = theirs.std(0)
    assert np.all(np.abs(ours.mean(0) - theirs.mean(0)) < 5 * spread / count**0.5)
    assert np.all(np.abs(ours.std(0) / spread - 1) < 0.1)
    chosen = Counter(name for view in views for name, _ in view.operations)
    assert set(chosen) == set(OPERATIONS)
    assert max(chosen.values()) / min(chosen.values()) < 1.4
    magnitudes = {(name, round(value, 4)) for view in views for name, value in view.operations}
    assert ("Rotate", 9.0) in magnitudes
    assert ("Rotate", -9.0) in magnitudes
    assert ("Posterize", 7.0) in magnitudes


def test_a_view_is_the_same_view_at_every_size():
    """A smooth picture replayed large and reduced looks like the picture replayed small."""
    source = image(2, 300, 200)
    for number in range(12):
        view = draw(rng(number), *source.size, Augment())
        if {"Posterize", "Solarize", "Sharpness", "Equalize"} & {name for name, _ in view.operations}:
            continue
        large = replay(source, view, 256).resize((64, 64), Image.Resampling.BOX)
        small = replay(source, view, 64)
        assert np.abs(np.asarray(large, float) - np.asarray(small, float)).mean() < 6


def test_flip_and_erasing_are_off_and_work():
    source = image()
    assert not any(draw(rng(i), 90, 70, Augment()).flip for i in range(50))
    on = Augment(scale=(1, 1), ratio=(90 / 70, 90 / 70), operations=0, flip=1.0, erase=1.0)
    view = draw(rng(0), 90, 70, on)
    plain = dataclasses.replace(view, flip=False, erase=None)
    flipped = np.asarray(replay(source, dataclasses.replace(view, erase=None), 48))
    assert np.array_equal(flipped, np.asarray(replay(source, plain, 48))[:, ::-1])
    erased = np.asarray(replay(source, view, 48))
    black = (erased == 0).all(2)
    left, top, right, bottom = pixel_box(view.erase, 48, 48)
    assert black[top:bottom, left:right].all()


def test_torchs_resampling_is_close_and_the_same_every_time():
    source = np.asarray(image(3, 300, 200))
    view = draw(rng(5), 300, 200, Augment(operations=0))
    exact = np.asarray(replay(source, view, 64, "bilinear"), int)
    quick = np.asarray(replay(source, view, 64, "bilinear", resampling="torch"), int)
    assert np.abs(exact - quick).max() <= 1
    assert np.array_equal(quick, np.asarray(replay(source.copy(), view, 64, "bilinear", resampling="torch")))


def test_unknown_names_are_errors():
    view = draw(rng(0), 90, 70, Augment())
    for bad in ({"interpolation": "cubic"}, {"resampling": "gpu"}):
        with pytest.raises(ValueError, match="is not"):
            replay(image(), view, 32, **bad)
    with pytest.raises(ValueError, match="no views"):
        draw(rng(0), 0, 5, Augment())
    with pytest.raises(ValueError, match="0 to 30"):
        draw(rng(0), 5, 5, Augment(magnitude=31))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(0, 2**30), st.integers(0, 4), st.booleans())
def test_packed_views_come_back_equal_for_any_size(width, height, seed, operations, extras):
    augment = Augment(operations=operations, flip=0.5 * extras, erase=0.5 * extras)
    views = [draw(rng(seed, i), width, height, augment, "hash") for i in range(3)]
    assert unpack(pack(views), width, height, "hash") == views
    assert unpack(pack(views), width, height, "hash", choose=lambda count: count - 1) == views[-1:]


@pytest.mark.parametrize("extras", [0.0, 1.0])
def test_a_view_takes_at_most_forty_bytes(extras):
    views = [draw(rng(i), 500, 375, Augment(flip=extras, erase=extras)) for i in range(30)]
    assert len(pack(views)) / 30 <= 40
    if not extras:
        assert len('{"views":""}' + pack(views[:2])) / 2 <= 40, "with what stands around them, even for two views"


def test_packed_views_that_are_damaged_are_errors():
    packed = pack([draw(rng(0), 50, 50, Augment())])
    for bad in (packed[:-4], packed[:-3], "!" * 8, packed[:5] + "\n" + packed[6:]):
        with pytest.raises(ValueError, match=r"packed|Incorrect|base64"):
            unpack(bad)


def test_jpeg_pixels_are_pils_bit_for_bit():
    source = image(4, 123, 77)
    for save in (
        {},
        {"quality": 30},
        {"progressive": True},
        {"subsampling": 0},
        {"subsampling": 1},
        {"optimize": True},
    ):
        buffer = io.BytesIO()
        source.save(buffer, "JPEG", **save)
        theirs = np.asarray(Image.open(buffer).convert("RGB"))
        assert np.array_equal(decoding.pixels(buffer.getvalue()), theirs)
        assert decoding.jpeg_header(buffer.getvalue())[:3] == (123, 77, 3)
    buffer = io.BytesIO()
    source.convert("L").save(buffer, "JPEG")
    assert np.array_equal(decoding.pixels(buffer.getvalue()), np.asarray(Image.open(buffer).convert("RGB")))


@pytest.mark.parametrize(
    "save",
    [
        *({"subsampling": subsampling} for subsampling in (0, 1, 2)),
        {"restart_marker_rows": 1},
        {"restart_marker_blocks": 3},
        {"mode": "L"},
    ],
    ids=str,
)
def test_first_rows_of_a_jpeg_are_those_of_the_whole(save, capfd):
    save = dict(save)
    source, buffer = image(5, 61, 150).convert(save.pop("mode", "RGB")), io.BytesIO()
    source.save(buffer, "JPEG", **save)
    whole, fewer = np.asarray(Image.open(buffer).convert("RGB")), 0
    for rows in range(1, 151):
        first = decoding.pixels(buffer.getvalue(), rows)
        assert rows <= len(first) <= rows + 32
        assert np.array_equal(first[:rows], whole[:rows]), rows
        fewer += len(first) < 150
    assert fewer > 100, "decoding ended early"
    assert capfd.readouterr() == ("", ""), "libjpeg does not complain on the terminal"
