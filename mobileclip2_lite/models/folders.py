"""Where models lie that come with the package or are made by it, and what may be a model's name at all."""

from __future__ import annotations

import os
from pathlib import Path

PHOTO = "photo-teacher-"
"""How the names of photograph teachers begin."""
PHOTO_TEACHERS = tuple(PHOTO + kind for kind in ("names", "vectors", "captions"))
"""All of them; `photo_teachers.KINDS` says how each is made."""
PLACE = "MOBILECLIP2_LITE_MODELS"
"""Environment variable: the folder in which `mobileclip2-lite photo-teachers` keeps what it makes."""


def data_folder() -> Path:
    """The folder with the embedded world's models: inside an installed package, else the repository's `data/`."""
    package = Path(__file__).parents[1]
    inside = package / "data"
    return inside if inside.is_dir() else package.parent / "data"


def photo_folder(name: str) -> Path:
    """Where a photograph teacher lies, made or not: below `MOBILECLIP2_LITE_MODELS`, or in the user's cache."""
    return Path(os.environ.get(PLACE) or Path.home() / ".cache" / "mobileclip2_lite") / name


LONGEST = 4_000
"""Characters of a name or path; longer ones, pasted by mistake, are errors of the operating system."""


def checked_name(name: str | os.PathLike, what: str = "model") -> str:
    """A model's name or path as text.

    Raises:
        ValueError: it is no text, is empty, or longer than any path.
    """
    if not isinstance(name, (str, os.PathLike)) or not 0 < len(text := os.fspath(name)) < LONGEST or not text.strip():
        raise ValueError(f"{what} {repr(name)[:60]} is no name: write a model's name or the path of its folder as text")
    return text
