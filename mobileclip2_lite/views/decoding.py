"""Pixels from encoded pictures: one decoder for teachers and students, so that both see the same numbers.

Paper: none; the official trainer opens pictures with PIL. JPEG goes through simplejpeg, a quarter faster and equal to
PIL's bit for bit (tested), all else through PIL. Reads bytes, writes nothing. docs/faults.md says what becomes of
broken and odd pictures. Taught by notebooks/00_start_here.ipynb.
"""

from __future__ import annotations

import io
import struct
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image


class BadImage(ValueError):
    """Bytes that do not decode; `reason` is the short word under which the sample is counted."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


def pixels(data: bytes | memoryview, rows: int = 0, header: JpegHeader | None = None) -> np.ndarray:
    """The RGB pixels of an encoded image, uint8 (H, W, 3).

    Pixels are taken as stored: EXIF rotation is not applied (nor is it by the official trainer or open_clip), an
    animation gives its first frame, transparency is dropped, 16-bit grey is scaled to 8 bits.

    Args:
        rows: the first so many rows are enough, and fewer than H may come where that saves decoding (a JPEG's last
            fifth costs a fifth); 0 for all. Damage is then overlooked: only for bytes that are known to be whole.
        header: `jpeg_header(data)`, if it is at hand.

    Raises:
        BadImage: the bytes are empty, no image, cut short, or more pixels than PIL's guard against bombs allows.
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


def decode(data: bytes) -> Image.Image:
    """`pixels` as a PIL picture."""
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
        image = Image.open(io.BytesIO(data))
        if not _small(*image.size):
            raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
        if image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")  # PIL warns otherwise; the colours are the same
        if image.mode.startswith("I"):
            return _grey16(image)
        return image.convert("RGB")
    except Image.DecompressionBombError as error:
        raise BadImage("image_bomb", str(error)) from error
    except Image.UnidentifiedImageError as error:
        raise BadImage("not_an_image", str(error)) from error
    except (OSError, ValueError, SyntaxError, EOFError, struct.error) as error:
        raise BadImage("broken_image", str(error)) from error


def _grey16(image: Image.Image) -> Image.Image:
    """PIL clips 16-bit grey to white; the high byte is the picture."""
    pixels = np.asarray(image).astype(np.int64)
    return Image.fromarray((np.clip(pixels, 0, 65535) >> 8).astype(np.uint8)).convert("RGB")
