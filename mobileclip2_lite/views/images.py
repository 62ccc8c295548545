"""Images in every form in which users have them: bytes, files, base64, rows of `datasets`, PIL images, arrays.

Every command that takes a user's image takes it through here, so that the same image is used by all, or counted by all
under the same word. docs/faults.md has the forms and the words. Taught by notebooks/00_start_here.ipynb.
"""

from __future__ import annotations

import base64
import binascii
import io
import os
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from mobileclip2_lite.views.decoding import BadImage, as_rgb, decode, format_of, orientation_of
from mobileclip2_lite.work.backends import StoreError
from mobileclip2_lite.work.files import sha256_bytes
from mobileclip2_lite.work.place import StorePath

_BASE64 = ("/9j/", "iVBORw0KGgo", "UklGR", "R0lGOD", "SUkqA", "TU0AK", "Qk", "AAAA")
"""How JPEG, PNG, WebP, GIF, TIFF, BMP and the formats in ISO boxes (AVIF, HEIC, JPEG 2000) begin in base64."""
_URL_SAFE = str.maketrans("-_", "+/")
_UNTOUCHED = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp"}
_TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns an image upright, by the orientation in its EXIF."""


def read_image(image: Any, folder: str | os.PathLike | None = None, upright: bool = False) -> Image.Image:
    """An image in any of a user's forms as an RGB image.

    Args:
        image: encoded bytes, a file's name, `file://` or `data:` URL, base64, a row of `datasets.Image` (`bytes`,
            `path`), a list with one of these, a PIL image of any mode, or an array (H, W), (H, W, 1), (H, W, 3) or
            (H, W, 4), uint8 or deeper.
        folder: what file names are relative to.
        upright: turn it as its EXIF says (for people; training takes pixels as stored). An EXIF that cannot be read
            turns nothing.

    Raises:
        BadImage: it cannot be read; `reason` is the word under which it is counted: that of `image_bytes` or
            `decoding.pixels`.
    """
    image = _single(image)
    if isinstance(image, np.ndarray):
        return as_rgb(_from_array(image))
    if isinstance(image, Image.Image):
        return _as_rgb(image)
    data = image_bytes(image, folder)
    return _upright(decode(data), data) if upright else decode(data)


def image_bytes(image: Any, folder: str | os.PathLike | None = None) -> bytes:
    """An image in any of a user's forms as encoded bytes; PIL images and arrays become PNG.

    Raises:
        BadImage: `no_image` (missing, or a file that does not exist), `several_images`, `image_is_url`,
            `unreadable_file`, `unknown_image_form`, or a PIL image that cannot be read.
    """
    image = _single(image)
    if image is None or (isinstance(image, str) and not image.strip()):
        raise BadImage("no_image", "the image is missing")
    if isinstance(image, (bytes, bytearray, memoryview)):
        data = bytes(image)
        return from_base64(data) or data
    if isinstance(image, str):
        if (data := from_base64(image)) is not None:
            return data
        if is_url(image):
            raise BadImage("image_is_url", f"{image[:200]}: download it first, with img2dataset for example")
    if isinstance(image, StorePath):
        return _file_bytes(image)
    if isinstance(image, (str, os.PathLike)):
        return _file_bytes(local_path(image, folder))
    if isinstance(image, np.ndarray):
        image = _from_array(image)
    if isinstance(image, Image.Image):
        return to_png(image if image.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") else _as_rgb(image))
    raise BadImage("unknown_image_form", f"a {type(image).__name__}; bytes, a file name or a PIL.Image is expected")


def storable(data: bytes, upright: bool = False) -> tuple[bytes, str, tuple[int, int], dict]:
    """What is kept of an encoded image: bytes, extension, (width, height), and notes if the bytes had to change.

    JPEG, PNG and WebP stay untouched; any other format becomes PNG of the same RGB.

    Args:
        upright: an image that its EXIF turns becomes PNG, too, of its turned pixels; the note `turned` holds the EXIF's
            number.

    Raises:
        BadImage: it does not decode as a whole.
    """
    pixels = decode(data)  # whole, as it will be read later: half an image is found here
    form = format_of(data)
    if upright and (orientation := orientation_of(data)) in _TURNED:
        pixels = _upright(pixels, data)
        notes = {"original_format": form, "original_sha256": sha256_bytes(data), "turned": orientation}
        return to_png(pixels), "png", pixels.size, notes
    if form in _UNTOUCHED:
        return data, _UNTOUCHED[form], pixels.size, {}
    return to_png(pixels), "png", pixels.size, {"original_format": form, "original_sha256": sha256_bytes(data)}


def is_url(name: str) -> bool:
    """Whether a name is one of something that does not lie on this machine."""
    return "://" in name and not name.lower().startswith("file://")


def local_path(name: str | os.PathLike, folder: str | os.PathLike | None = None) -> Path:
    """The file that a user's name means: `~` and `file://` mean what they say, and `\\` is Windows' slash."""
    text = os.fspath(name)
    if text.lower().startswith("file://"):
        text = urllib.request.url2pathname(urlsplit(text).path)
    if text.startswith(("~/", "~\\")):  # `~x.jpg` is a file's name like any other
        text = os.path.expanduser(text)
    path = Path(folder or "", text)
    if "\\" in text and os.sep == "/" and not os.path.lexists(path):
        return Path(folder or "", text.replace("\\", "/"))
    return path


def from_base64(text: str | bytes) -> bytes | None:
    """The bytes behind a `data:` URL or the base64 of an image; None for any other text.

    In the alphabet for URLs, too (`-` and `_` for `+` and `/`), with or without the padding at the end.
    """
    head = (text[:16].decode("latin-1") if isinstance(text, bytes) else text[:16]).translate(_URL_SAFE)
    linked = head.lower().startswith("data:")
    if not linked and (len(text) < 64 or not head.startswith(_BASE64)):
        return None
    if isinstance(text, bytes):  # only now: most bytes are an image's own
        text = text.decode("latin-1")
    text = "".join((text.partition(",")[2] if linked else text).split()).translate(_URL_SAFE).rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):  # ValueError: letters that are not ASCII
        return None


def to_png(image: Image.Image) -> bytes:
    """A PIL image as PNG, always the same bytes for the same image."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def _single(image: Any) -> Any:
    """The image in a list of one, and the bytes or the path in the undecoded form of `datasets.Image`.

    Numbers in lists are bytes, or the levels of an array.
    """
    if isinstance(image, (list, tuple)) and image and isinstance(image[0], (int, list)):
        return _from_numbers(image)
    if isinstance(image, (list, tuple)) or (isinstance(image, np.ndarray) and image.dtype == object):
        images = [one for one in image if one is not None]
        if len(images) > 1:
            raise BadImage("several_images", f"a list of {len(images)} images: make a row of each first")
        image = images[0] if images else None
    if isinstance(image, Mapping) and ("bytes" in image or "path" in image):
        return image.get("bytes") if image.get("bytes") is not None else image.get("path")
    return image


def _from_numbers(numbers: list | tuple) -> bytes | np.ndarray:
    try:
        return bytes(numbers) if isinstance(numbers[0], int) else np.array(numbers, dtype=np.uint8)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadImage("unknown_image_form", f"a list of {len(numbers)}: {error}") from error


def _file_bytes(path: Path | StorePath) -> bytes:
    try:
        return path.read_bytes()
    except StoreError:  # says nothing of the image
        raise
    except FileNotFoundError as error:
        raise BadImage("no_image", f"{path.name} does not exist") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise BadImage("unreadable_file", f"{getattr(error, 'strerror', None) or error}") from error


def _as_rgb(image: Image.Image) -> Image.Image:
    """A PIL image as RGB; one that was opened and not yet read may turn out to be broken."""
    try:
        return as_rgb(image)
    except BadImage:
        raise
    except Exception as error:  # on damaged bytes PIL's plugins raise whatever their code runs into
        raise BadImage("broken_image", str(error) or type(error).__name__) from error


def _from_array(array: np.ndarray) -> Image.Image:
    """An array as a PIL image of the mode that holds it."""
    array = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    if array.dtype in (np.float64, np.float16):
        array = array.astype(np.float32)
    elif array.dtype in (np.int64, np.uint32, np.int16):
        array = array.astype(np.int32)
    elif array.dtype == bool:
        array = array.astype(np.uint8) * 255
    if array.ndim == 3 and array.dtype != np.uint8:
        raise BadImage("unknown_image_form", f"an array of {array.dtype} {array.shape}: give colours as uint8")
    try:
        return Image.fromarray(array)
    except (TypeError, ValueError) as error:
        raise BadImage("unknown_image_form", f"an array of {array.dtype} {array.shape}: {error}") from error


def _upright(image: Image.Image, data: bytes) -> Image.Image:
    turn = _TURNED.get(orientation_of(data))
    return image if turn is None else image.transpose(turn)
