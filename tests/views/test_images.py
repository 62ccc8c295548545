"""One reader of images: every form and depth in which users have them, and hostile files, each read or counted."""

from __future__ import annotations

import base64
import io
import random
import struct
import warnings

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from mobileclip2_lite.models.preprocess import Preprocess
from mobileclip2_lite.views import decoding, images
from mobileclip2_lite.views.decoding import BadImage, pixels
from mobileclip2_lite.views.images import image_bytes, read_image

RAMP = np.tile(np.linspace(0, 1, 48), (8, 1))


def encoded(image: Image.Image, form: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def photo(form: str = "JPEG", **options) -> bytes:
    colours = np.random.default_rng(3).integers(0, 255, (20, 24, 3), dtype=np.uint8)
    return encoded(Image.fromarray(colours), form, **options)


def grey(data: bytes) -> np.ndarray:
    found = pixels(data)
    assert np.array_equal(found[..., 0], found[..., 1])
    return found[0, :, 0].astype(int)


DEEP = {
    "float 0 to 1": (RAMP.astype(np.float32), "TIFF"),
    "float 0 to 255": ((255 * RAMP).astype(np.float32), "TIFF"),
    "float of metres": ((9.5 * RAMP).astype(np.float32), "TIFF"),
    "float around 0": ((2 * RAMP - 1).astype(np.float32), "TIFF"),
    "float with holes": (np.where(RAMP > 0.99, np.nan, RAMP).astype(np.float32), "TIFF"),
    "32 bits, 8 used": ((255 * RAMP).astype(np.int32), "TIFF"),
    "32 bits, 20 used": ((2**20 * RAMP).astype(np.int32), "TIFF"),
    "32 bits, below 0": ((3000 * RAMP - 1000).astype(np.int32), "TIFF"),
    "16 bits, 8 used": ((255 * RAMP).astype(np.uint16), "PNG"),
    "16 bits, 10 used": ((1023 * RAMP).astype(np.uint16), "TIFF"),
    "16 bits, 12 used": ((4095 * RAMP).astype(np.uint16), "TIFF"),
    "16 bits, 14 used": ((16383 * RAMP).astype(np.uint16), "PNG"),
    "16 bits": ((65535 * RAMP).astype(np.uint16), "PNG"),
    "a mask of few classes": ((20 * RAMP).astype(np.int32), "TIFF"),
}


@pytest.mark.parametrize("name", DEEP)
def test_deep_pictures_are_scaled_and_never_black(name):
    array, form = DEEP[name]
    found = grey(encoded(Image.fromarray(array), form))
    wanted = np.rint(255 * np.linspace(0, 1, 48))
    seen = slice(None, -1) if name == "float with holes" else slice(None)
    assert np.abs(found - wanted)[seen].max() <= (13 if "mask" in name else 2)


@pytest.mark.parametrize("name", DEEP)
def test_pil_pictures_and_arrays_have_the_pixels_of_the_file(name):
    array, form = DEEP[name]
    picture = Image.fromarray(array)
    file = pixels(encoded(picture, form))
    assert np.array_equal(read_image(picture), file)
    assert np.array_equal(read_image(array), file)
    assert np.array_equal(pixels(image_bytes(picture)), file), "as PNG, too"


@pytest.mark.parametrize(
    ("levels", "kind", "wanted"),
    [
        ([0, 256, 300], np.uint16, [0, 64, 75]),  # a quarter of 10 bits or more: white is 1023
        ([0, 128, 255], np.int32, [0, 128, 255]),
        ([0, 1024, 4095], np.uint16, [0, 64, 255]),
        ([0, 2048, 4100], np.int32, [0, 32, 64]),  # 14 bits
        ([0, 30, 60], np.int32, [0, 128, 255]),  # less than a quarter of 8 bits: the brightest is white
        ([0, 35000, 70000], np.int32, [0, 128, 255]),  # more than 16 bits
        ([-50, 0, 50], np.int32, [0, 128, 255]),
        ([0, 0.125, 0.25], np.float32, [0, 32, 64]),  # a quarter of 1 or more: white is 1
        ([0, 0.1, 0.2], np.float32, [0, 128, 255]),
        ([0, 0.75, 1.5], np.float32, [0, 128, 255]),  # beyond 1, far below 255
        ([0, 50, 100], np.float32, [0, 50, 100]),
    ],
)
def test_what_is_white_in_a_deep_picture(levels, kind, wanted):
    """The rule in `as_rgb`'s words, level by level, at its borders."""
    picture = Image.fromarray(np.array([levels], kind))
    assert np.asarray(decoding.as_rgb(picture))[0, :, 0].tolist() == wanted


def test_unsigned_32_bit_levels_are_not_read_as_negative():
    """PIL hands them on as signed; the tag SampleFormat of a TIFF says what they are."""
    levels = np.array([[0, 2**31, 2**32 - 1]], np.uint32).view(np.int32)
    signed, tag = encoded(Image.fromarray(levels), "TIFF"), struct.pack("<HHI", 339, 3, 1)
    assert signed.count(tag + b"\2\0") == 1
    assert grey(signed.replace(tag + b"\2\0", tag + b"\1\0")).tolist() == [0, 128, 255]


def test_the_high_byte_of_full_16_bits_is_the_picture():
    levels = np.arange(0, 65536, 97).astype(np.uint16)[None]
    assert np.array_equal(grey(encoded(Image.fromarray(levels))), levels[0] >> 8)


def png_of_16_bit_colours(levels: np.ndarray) -> bytes:
    """PIL cannot write it: (H, W, 3) uint16 as PNG."""
    import zlib

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    head = struct.pack(">IIBBBBB", levels.shape[1], levels.shape[0], 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_deep_colours_are_read_or_counted():
    colours = np.repeat((65535 * RAMP)[..., None], 3, axis=2).astype(np.uint16)
    assert pixels(png_of_16_bit_colours(colours)).max() == 255
    for unused in (4, 2):  # 12 and 14 of 16 bits: PIL would give 0 to 15, and 0 to 63
        with pytest.raises(BadImage, match="deep_image"):
            pixels(png_of_16_bit_colours(colours // 2**unused))
    assert pixels(png_of_16_bit_colours(colours // 2)).max() == 127, "a dark picture is a picture"
    assert pixels(png_of_16_bit_colours(0 * colours)).max() == 0, "black is black"


def test_a_picture_without_a_finite_pixel_is_counted():
    with pytest.raises(BadImage, match="no_finite_pixel"):
        pixels(encoded(Image.fromarray(np.full((4, 4), np.nan, np.float32)), "TIFF"))


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\n40 40 moveto showpage\n%%EOF\n"


@pytest.mark.parametrize("data", [POSTSCRIPT, POSTSCRIPT.replace(b"40 40 moveto", b"%%BeginBinary: -20\n" + b"x" * 99)])
def test_postscript_starts_no_program(data, tmp_path, monkeypatch):
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(BadImage, match="not_an_image"):
        pixels(data)
    assert not (tmp_path / "started").exists()


def test_only_named_formats_are_opened():
    assert set(decoding._registered()) <= set(decoding.FORMATS)
    for form in ("PCX", "SGI", "TGA", "PDF", "EPS", "ICNS"):
        with pytest.raises(BadImage):
            pixels(photo(form))
    for form in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "ICO"):
        assert pixels(photo(form)).shape[2] == 3


def test_heic_without_its_decoder_is_named():
    head = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    with pytest.raises(BadImage, match=r"pillow-heif|broken_image"):
        pixels(head + bytes(100))


def test_the_guard_against_bombs_stays_on(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for form in ("JPEG", "PNG", "WEBP", "GIF", "TIFF"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(BadImage, match="image_bomb"):
                pixels(photo(form))


def exif(orientation: int) -> bytes:
    values = Image.Exif()
    values[0x0112], values[0x010E] = orientation, "x" * 30
    return values.tobytes()


KINDS = {form: photo(form) for form in ("PNG", "WEBP", "GIF", "TIFF", "BMP", "JPEG2000", "PPM", "ICO", "JPEG")}
KINDS |= {f"{form} with EXIF": photo(form, exif=exif(6)) for form in ("JPEG", "PNG", "WEBP")}
if "AVIF" in decoding._registered() and "AVIF" in Image.SAVE:
    KINDS["AVIF"] = photo("AVIF")


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(KINDS)), st.integers(0, 2**32), st.integers(1, 12))
def test_damaged_pictures_are_read_or_counted(kind, seed, bytes_changed):
    """Whatever PIL's plugins run into on damaged bytes, the reader gives a picture or says `BadImage`."""
    rng = random.Random(seed)
    data = bytearray(KINDS[kind])
    at = data.find(b"Exif") if rng.random() < 0.5 else -1
    first, last = (at, min(len(data), at + 120)) if at >= 0 else (0, len(data))
    for _ in range(bytes_changed):
        data[rng.randrange(first, last)] = rng.choice((0, 1, 128, 255, rng.randrange(256)))
    data = bytes(data[: rng.randrange(len(data))] if rng.random() < 0.2 else data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            picture = read_image(data, upright=True)
        except BadImage:
            return
        assert picture.mode == "RGB"


def test_pictures_are_turned_upright_for_people_only():
    lying = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3) * 40).convert("RGB")
    for orientation in range(1, 9):
        data = encoded(lying, exif=exif(orientation))
        wanted = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        assert np.array_equal(read_image(data, upright=True), wanted)
        assert np.array_equal(read_image(data), lying)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "MPO"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_stored_pixels_are_the_same_whatever_the_exif_says(form, orientation):
    """PIL turns a TIFF as it reads it, and no other format: here it is turned for people alone, and once."""
    if form not in Image.SAVE:
        pytest.skip(f"this Pillow writes no {form}")
    colours = np.zeros((16, 24, 3), np.uint8)
    colours[:8, :12], colours[:8, 12:], colours[8:, :12] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    data = encoded(Image.fromarray(colours), form, exif=exif(orientation))
    stored, upright = pixels(data).astype(int), np.asarray(read_image(data, upright=True)).astype(int)
    wanted = np.asarray(Image.fromarray(colours).transpose(images._TURNED[orientation]) if orientation > 1 else colours)
    for found, right in ((stored, colours), (upright, wanted)):
        assert found.shape == right.shape
        assert np.abs(found - right).mean() < 20


def test_a_broken_exif_turns_nothing():
    data = encoded(Image.new("RGB", (3, 2)), exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x12\0\x05\xff\xff\xff\xff")
    assert read_image(data, upright=True).size == (3, 2)


def test_every_form_of_one_image(tmp_path, monkeypatch):
    data = photo("PNG")
    wanted = pixels(data)
    file = tmp_path / "some image.png"
    file.write_bytes(data)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    text = base64.b64encode(data).decode()
    forms = [data, bytearray(data), memoryview(data), file, str(file), file.as_uri(), "~/some image.png", text]
    forms += [f"data:image/png;base64,{text}", text.encode(), {"bytes": data, "path": None}, {"path": str(file)}]
    forms += [[data], [None, {"bytes": data}], Image.open(io.BytesIO(data)), wanted, "\n".join((text[:80], text[80:]))]
    of_urls = base64.urlsafe_b64encode(data).decode()
    assert of_urls != text
    forms += [of_urls, of_urls.rstrip("="), text.rstrip("=").encode(), f"data:image/png;base64,{of_urls}"]
    for form in forms:
        assert np.array_equal(read_image(form), wanted), form
        assert np.array_equal(pixels(image_bytes(form)), wanted), form
    assert np.array_equal(read_image("some image.png", folder=tmp_path), wanted)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.png").write_bytes(data)
    assert np.array_equal(read_image("sub\\a.png", folder=tmp_path), wanted)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (None, "no_image"),
        ("", "no_image"),
        ([], "no_image"),
        ({"bytes": None, "path": None}, "no_image"),
        ("gone.png", "no_image"),
        (b"", "empty_image"),
        (b"<html>404</html>", "not_an_image"),
        ("https://e.org/a.png", "image_is_url"),
        ("s3://bucket/a.png", "image_is_url"),
        ([b"a", b"b"], "several_images"),
        (7, "unknown_image_form"),
        (float("nan"), "unknown_image_form"),
        ("a\0b.png", "unreadable_file"),
        (np.zeros((4, 4, 7), np.uint8), "unknown_image_form"),
        (np.zeros((4, 4, 3), np.float32), "unknown_image_form"),
        (np.array(["x"], dtype=object), "no_image"),
    ],
)
def test_what_is_no_image_has_a_reason(image, reason, tmp_path):
    with pytest.raises(BadImage) as caught:
        read_image(image, folder=tmp_path)
    assert caught.value.reason == reason


def test_a_folder_under_an_images_name_is_counted(tmp_path):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(BadImage) as caught:
        read_image(tmp_path / "a.png")
    assert caught.value.reason == "unreadable_file"


@pytest.mark.parametrize("size", [(65_500, 1), (1, 65_500), (6_000, 1), (30_000, 40)])
def test_a_long_picture_costs_no_memory(size):
    resource = pytest.importorskip("resource")
    picture = Image.new("RGB", size, (200, 30, 30))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seen = np.asarray(Preprocess(224).resize(picture))
    assert seen.shape == (224, 224, 3)
    assert (seen == (200, 30, 30)).all()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB; 9.9 GB as a whole


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(161, 700),
    st.integers(1, 32),
    st.booleans(),
    st.sampled_from(["bilinear", "bicubic"]),
)
@example(12, 264, 27, False, "bilinear")  # of few pixels those that round the other way are a larger share
def test_long_pictures_keep_their_pixels(short, long, side, tall, interpolation):
    """The centre alone is what the centre of the whole was, up to rounding: of one pixel in ten at most."""
    size = (short, long) if tall else (long, short)
    array = np.random.default_rng(short * long).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    picture, preprocess = Image.fromarray(array), Preprocess(side, interpolation=interpolation)
    scaled = int(side * max(size) / min(size))
    whole = picture.resize((side, scaled) if tall else (scaled, side), getattr(Image.Resampling, interpolation.upper()))
    left, top = (round((extent - side) / 2.0) for extent in whole.size)
    wanted = np.asarray(whole.crop((left, top, left + side, top + side))).astype(int)
    differences = np.abs(np.asarray(preprocess.resize(picture)) - wanted)
    assert differences.max() <= 2
    assert differences.mean() < 0.1
