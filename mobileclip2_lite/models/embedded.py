"""The embedded models of `data/`, and the one place that loads a model for a stage: trained, or refused."""

from __future__ import annotations

import os
from pathlib import Path

from mobileclip2_lite.models.hub import HUB

PHOTO = "photo-teacher-"
"""How the names of photograph teachers begin."""
PLACE = "MOBILECLIP2_LITE_MODELS"
"""Environment variable: the folder in which `mobileclip2-lite photo-teachers` keeps what it makes."""


def check_trained(name: str, what: str) -> None:
    """Refuse the bare name of an architecture, which would do its work with random weights and without a word.

    Raises:
        ValueError: `name` is neither a path nor a hub's, has no `@TAG`, and is none of the embedded models.
    """
    known = name.startswith(("lite-teacher-", "lite-captioner-", "lite-dfn", PHOTO, HUB, "local-dir:"))
    if not known and "@" not in name and not Path(name).exists():
        raise ValueError(
            f"{what} {name!r} names an architecture, whose weights would be random: give a folder, `MODEL@TAG` "
            "(`ViT-B-32@openai`), `hf-hub:OWNER/NAME`, or an embedded model of data/"
        )


def data_folder() -> Path:
    """The folder with the embedded world's models: inside an installed package, else the repository's `data/`."""
    package = Path(__file__).parents[1]
    inside = package / "data"
    return inside if inside.is_dir() else package.parent / "data"


def photo_folder(name: str) -> Path:
    """Where a photograph teacher lies, made or not: below `MOBILECLIP2_LITE_MODELS`, or in the user's cache."""
    return Path(os.environ.get(PLACE) or Path.home() / ".cache" / "mobileclip2_lite") / name
