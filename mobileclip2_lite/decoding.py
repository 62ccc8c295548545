"""Pixels from encoded pictures: one decoder for teachers and students, so that both see the same numbers.

Paper: none; the official trainer opens pictures with PIL. JPEG goes through torchvision's decoder, a quarter faster and
equal to PIL's bit for bit (tested), all else through PIL. Reads bytes, writes nothing. docs/faults.md says what becomes
of broken and odd pictures. Taught by notebooks/00_start_here.ipynb.
"""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Callable

import numpy as np
from PIL import Image


class BadImage(ValueError):
    """Bytes that do not decode; `reason` is the short word under which the sample is counted."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


def pixels(data: bytes | memoryview) -> np.ndarray:
    """The RGB pixels of an encoded image, uint8 (H, W, 3).

    Pixels are taken as stored: EXIF rotation is not applied (nor is it by the official trainer or open_clip), an
    animation gives its first frame, transparency is dropped, 16-bit grey is scaled to 8 bits.

    Raises:
        BadImage: the bytes are empty, no image, cut short, or more pixels than PIL's guard against bombs allows.
    """
    header = jpeg_header(data)
    if header is not None and header[2] in (1, 3) and _small(header[0], header[1]) and (read := _jpeg_decoder()):
        try:
            return read(data)
        except RuntimeError:
            pass  # PIL says what is wrong, or reads what torchvision does not
    return np.asarray(_open(data))


@functools.cache
def _jpeg_decoder() -> Callable[[bytes | memoryview], np.ndarray] | None:
    """torchvision's JPEG decoder; None where torchvision has none (it is to move to another package)."""
    try:
        import torch
        from torchvision.io import ImageReadMode

        operator, mode = torch.ops.image.decode_jpeg, ImageReadMode.RGB.value  # the function around it only warns
    except (ImportError, AttributeError, RuntimeError):
        return None

    def read(data: bytes | memoryview) -> np.ndarray:
        encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        return operator(encoded, mode, False).permute(1, 2, 0).numpy()

    return read


def decode(data: bytes) -> Image.Image:
    """`pixels` as a PIL picture."""
    return Image.fromarray(pixels(data))


def _small(width: int, height: int) -> bool:
    return not Image.MAX_IMAGE_PIXELS or width * height <= Image.MAX_IMAGE_PIXELS


def jpeg_header(data: bytes | memoryview) -> tuple[int, int, int] | None:
    """(width, height, components) of an 8-bit JPEG, None for anything else."""
    if data[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in (0xC0, 0xC1, 0xC2):
            precision, height, width, components = struct.unpack_from(">BHHB", data, at + 4)
            return (width, height, components) if precision == 8 and width and height else None
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
