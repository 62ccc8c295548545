"""Where models lie that come with the package or are made by it."""

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
