"""Pixels from encoded pictures: one decoder for teachers and students, so that both see the same numbers.

Paper: none; the official trainer opens pictures with PIL. JPEG goes through simplejpeg, a quarter faster and equal to
PIL's bit for bit (tested), all else through PIL. Reads bytes, writes nothing. docs/faults.md says what becomes of
broken and odd pictures. Only the formats named here are opened: PIL's other plugins read formats that nobody trains on,
and one of them starts a program (Ghostscript). Taught by notebooks/00_start_here.ipynb.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import struct
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image

from mobileclip2_lite.work.bad_sample import BadSample
from mobileclip2_lite.work.kinds import kind_in_truth

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF", "HEIF", "ICO", "QOI")
"""PIL's names of the formats that are opened, whatever a file's own name says."""
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".jpe", ".jfif", ".ppm", ".pgm")
SUFFIXES += (".avif", ".heic", ".heif", ".jp2", ".j2k", ".pnm", ".pbm", ".dib", ".ico", ".qoi", ".apng")
"""Ends of file names that are taken for images, in every command."""
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"hevc": "HEIC", b"mif1": "HEIC"}
_REMEDY = {"AVIF": "install Pillow 11.3 or newer", "HEIC": "pip install pillow-heif"}
_ORIENTATION = 0x0112
"""The tag of EXIF and TIFF that says how a picture is to be turned."""
_TURNED_BACK = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""What gives back the stored pixels of a picture that was turned upright."""
_DEPTHS = (8, 10, 12, 14, 16)
"""Bits that grey levels are stored with, in files of 16 bits and more."""


class BadImage(BadSample):
    """Bytes that do not decode."""

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.reason, self.detail) if part)


def pixels(data: bytes | memoryview, rows: int = 0, header: JpegHeader | None = None) -> np.ndarray:
    """The RGB pixels of an encoded image, uint8 (H, W, 3).

    Pixels are taken as stored: EXIF rotation is not applied (nor is it by the official trainer or open_clip), an
    animation gives its first frame, transparency is dropped, deep grey is scaled to 8 bits (`as_rgb`).

    Args:
        rows: the first so many rows are enough, and fewer than H may come where that saves decoding (a JPEG's last
            fifth costs a fifth); 0 for all. Damage is then overlooked: only for bytes that are known to be whole.
        header: `jpeg_header(data)`, if it is at hand.

    Raises:
        BadImage: the bytes are empty, no image, cut short, or more pixels than PIL's guard against bombs allows;
            nothing else, whatever the bytes are.
    """
    header = header or jpeg_header(data)
    if header is not None and header.components in (1, 3) and _small(header.width, header.height):
        try:
            return _jpeg_pixels(data, header, rows)
        except ValueError:
            pass  # PIL says what is wrong, or reads what simplejpeg does not
    return np.asarray(_open(data))


def _jpeg_pixels(data: bytes | memoryview, header: JpegHeader, rows: int) -> np.ndarray:
    """A JPEG's pixels, or its first rows: the decoder stops at the height that the header gives.

    One row of blocks more than asked for: the last pixels of a picture have their colour from one side only.
    """
    height = (-(-rows // header.block_rows) + 1) * header.block_rows if rows and header.block_rows else header.height
    if height >= header.height:
        return simplejpeg.decode_jpeg(data, "RGB")
    lower = bytearray(data)
    lower[header.height_at : header.height_at + 2] = height.to_bytes(2, "big")
    return simplejpeg.decode_jpeg(lower, "RGB", strict=False)  # strict, the data behind the last row would be an error


def decode(data: bytes | memoryview) -> Image.Image:
    """`pixels` as a PIL picture; raises as `pixels`."""
    return Image.fromarray(pixels(data))


def _small(width: int, height: int) -> bool:
    return not Image.MAX_IMAGE_PIXELS or width * height <= Image.MAX_IMAGE_PIXELS


class JpegHeader(NamedTuple):
    """What a JPEG says of itself before its pixels."""

    width: int
    height: int
    components: int
    height_at: int
    """Where the height's two bytes stand."""
    block_rows: int
    """Pixel rows that are coded together; 0 if the picture comes in scans of growing detail (progressive)."""


def jpeg_header(data: bytes | memoryview) -> JpegHeader | None:
    """The header of an 8-bit JPEG, None for anything else."""
    if data[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in (0xC0, 0xC1, 0xC2):
            precision, height, width, components = struct.unpack_from(">BHHB", data, at + 4)
            sampling = bytes(data[at + 11 : at + 10 + 3 * components : 3])
            if precision != 8 or not width or not height or not sampling:
                return None
            block_rows = 8 * max(factor & 15 for factor in sampling) if marker != 0xC2 else 0
            return JpegHeader(width, height, components, at + 5, block_rows)
        if marker == 0xFF:
            at += 1
        elif marker in (0x01, *range(0xD0, 0xD9)):
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _open(data: bytes | memoryview) -> Image.Image:
    """An encoded image as RGB, by PIL; raises as `pixels`."""
    if not data:
        raise BadImage("empty_image", "0 bytes")
    try:
        with Image.open(io.BytesIO(data), formats=_registered()) as image:
            if not _small(*image.size):
                raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
            return as_rgb(image)
    except BadImage:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
        raise BadImage("image_bomb", str(error)) from error
    except Image.UnidentifiedImageError as error:
        raise _unidentified(data) from error
    except Exception as error:  # on damaged bytes PIL's plugins raise whatever their code runs into
        raise BadImage("broken_image", str(error) or type(error).__name__) from error


def format_of(data: bytes) -> str:
    """PIL's name of the format of bytes that `pixels` has read."""
    with Image.open(io.BytesIO(data), formats=_registered()) as image:
        return image.format or ""


def orientation_of(data: bytes) -> int:
    """The orientation (1 to 8) in an image's EXIF; 1 (upright) if there is none, or it cannot be read."""
    try:
        with Image.open(io.BytesIO(data), formats=_registered()) as image:
            return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # PIL's reader of EXIF raises whatever its code runs into; such an EXIF turns nothing
        return 1


@functools.cache
def _registered() -> list[str]:
    """`FORMATS` as far as this PIL, and pillow-heif where it is installed, can open them."""
    with contextlib.suppress(ImportError):
        importlib.import_module("pillow_heif").register_heif_opener()
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _unidentified(data: bytes | memoryview) -> BadImage:
    """What the bytes are, if no format fits; without PIL's words, which hold an address and so differ in every run."""
    name = _BRANDS.get(bytes(data[8:12])) if bytes(data[4:8]) == b"ftyp" else None
    if name:
        return BadImage("unsupported_format", f"{name}: {_REMEDY[name]}, or turn such files into JPEG first")
    if other := kind_in_truth(data):
        return BadImage("not_an_image", f"it is {other}")
    return BadImage(
        "not_an_image", f"{len(data)} bytes, the first are {bytes(data[:8])!r}: name a JPEG, PNG or WebP file"
    )


def as_rgb(image: Image.Image) -> Image.Image:
    """A PIL picture of any mode as RGB, as it is stored; more than 8 bits are scaled, where PIL would clip them.

    16-bit, 32-bit and float grey: white is the smallest of 1 (floats only) and 2^8 - 1, 2^10 - 1, 2^12 - 1, 2^14 - 1,
    2^16 - 1 that no pixel exceeds. Where the brightest pixel has less than a quarter of that, or more than all of them,
    it is white itself; where levels are negative, the darkest pixel is black.

    Raises:
        BadImage: the picture has no finite pixel, a mode that has no RGB, or 16 bits a channel of which PIL keeps none.
    """
    tags = getattr(image, "tag_v2", {})
    orientation = tags.get(_ORIENTATION, 1)
    rgb = _rgb(image)
    turned = orientation in _TURNED_BACK and _ORIENTATION not in tags  # PIL does so with TIFF alone, as it reads it
    return rgb.transpose(_TURNED_BACK[orientation]) if turned else rgb


def _rgb(image: Image.Image) -> Image.Image:
    """`as_rgb`, a TIFF as PIL turns it."""
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_grey8(_levels(image))).convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")  # PIL has no other way from there
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # PIL warns otherwise; the colours are the same
    bits = _channel_bits(image)  # before the pixels are read: then PIL forgets it
    try:
        rgb = image.convert("RGB")
    except ValueError as error:
        raise BadImage("unsupported_format", f"mode {image.mode}: {error}") from error
    if bits == 16 and 0 < max(high for _, high in rgb.getextrema()) < 64:
        raise BadImage("deep_image", "16 bits a channel of which fewer are used: scale it to 8 bits first")
    return rgb


def _channel_bits(image: Image.Image) -> int:
    """16 for a colour picture that is stored with 16 bits a channel, of which PIL keeps the higher 8."""
    return 16 if any(";16" in repr(tile[3]) for tile in getattr(image, "tile", ())) else 8


def _levels(image: Image.Image) -> np.ndarray:
    """The grey levels as numbers (H, W); PIL reads unsigned 32-bit TIFF as signed."""
    levels = np.asarray(image)
    if levels.dtype == np.int32 and image.format == "TIFF" and image.tag_v2.get(339, (1,))[0] == 1:
        levels = levels.view(np.uint32)
    return levels


def _grey8(levels: np.ndarray) -> np.ndarray:
    """Grey levels of any type as uint8; the rule stands in `as_rgb`. What is not finite becomes black."""
    finite = np.isfinite(levels)
    if not finite.any():
        raise BadImage("no_finite_pixel", f"{levels.size} pixels, all of them infinite or not numbers")
    low, high = levels[finite].min().item(), levels[finite].max().item()
    whole = levels.dtype.kind in "iu"
    bits = next((bits for bits in _DEPTHS if high <= 2**bits - 1), None)
    if low >= 0 and bits is not None and high >= 2**bits // 4:
        if whole:
            return (levels.astype(np.int64) >> (bits - 8)).astype(np.uint8)
        low, high = 0.0, 2.0**bits - 1
    elif low >= 0:
        low, high = 0.0, 1.0 if not whole and 0.25 <= high <= 1 else high
    scaled = (np.where(finite, levels, low).astype(np.float64) - low) / ((high - low) or 1.0)
    return np.clip(np.rint(255 * scaled), 0, 255).astype(np.uint8)
