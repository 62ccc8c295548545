"""Search a folder of images by text, by image or by both: what people want such models for.

Reads images below a folder and the ONNX files of export.py; writes an index beside them (or elsewhere), see
`index_parts`. Indexing takes all cores, embeds only new and changed files, and can be killed at any moment; a search
over tens of thousands of images is one product of a matrix with a vector. What could not be read is counted by reason.
The paper has no such program. Gives up: approximate search, which pays from millions of images on.
Taught by notebooks/60_deploy.ipynb.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mobileclip2_lite import recipes
from mobileclip2_lite.deployment.embedding import embedded, in_parts
from mobileclip2_lite.deployment.image_files import Entry, Unread, find_images, images_folder, open_image
from mobileclip2_lite.deployment.index_parts import NEEDS_DISK, read_parts, tidy, write_part
from mobileclip2_lite.deployment.near_duplicates import groups, usual
from mobileclip2_lite.deployment.runtime import Exported, load_exported
from mobileclip2_lite.deployment.towers import exported_folder
from mobileclip2_lite.models.loaded import first_dimensions
from mobileclip2_lite.views.decoding import BadImage
from mobileclip2_lite.work import cache
from mobileclip2_lite.work.files import sha256_bytes
from mobileclip2_lite.work.place import StorePath, on_disk

INDEX = ".mobileclip2-index"
"""Name of the index folder within the searched folder, if no other is named."""
NEGATIVE = 0.5
"""Weight of what shall not be found, beside 1 for what shall."""
BATCH = 32
"""Images a forward pass."""
FEW = 10
"""Images below which a folder may well hold copies alone."""


@dataclass(frozen=True)
class Hit:
    """One found image."""

    path: Path | StorePath
    """The image file."""
    score: float
    """Cosine between the query and the image, -1 to 1."""


@dataclass
class Index:
    """Unit features of the images of one folder by one model."""

    folder: Path | StorePath
    """The searched folder."""
    model: Exported
    """Embeds queries."""
    entries: list[Entry]
    """Indexed images, sorted by name."""
    features: np.ndarray
    """float32 (images, D), row for row the entries'."""
    embedded: int = 0
    """Images embedded by this call; the others were known."""
    removed: int = 0
    """Known images that vanished or changed."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Files that could not be read, by reason."""
    unread: list[tuple[str, str]] = field(default_factory=list)
    """Their names and reasons."""

    def query(
        self,
        text: str | Sequence[str] | None = None,
        image: Any = None,
        without: str | Sequence[str] = (),
        dimensions: int | None = None,
    ) -> np.ndarray:
        """The unit vector (D,) that is looked for: the sum of what shall be found, less half of what shall not.

        Args:
            text: one or several texts.
            image: one or several images (PIL or paths).
            without: texts that shall not fit.
            dimensions: take only the first so many dimensions (for models trained with a nested loss).

        Raises:
            ValueError: neither text nor image is given.
            BadImage: an image cannot be read; names it.
        """
        texts, images = _several(text), _several(image)
        if not texts and not images:
            raise ValueError("search needs a text, an image, or both")
        wanted = [self.model.embed_texts(texts)] if texts else []
        if images:
            opened = [_opened(one) if isinstance(one, (str, os.PathLike)) else one for one in images]
            wanted.append(self.model.embed_images(opened))
        query = np.concatenate([_kept(one, dimensions) for one in wanted]).mean(axis=0)
        if unwanted := _several(without):
            query = query - NEGATIVE * _kept(self.model.embed_texts(unwanted), dimensions).mean(axis=0)
        return query / max(float(np.linalg.norm(query)), 1e-12)

    def search(
        self,
        text: str | Sequence[str] | None = None,
        image: Any = None,
        top: int = 10,
        without: str | Sequence[str] = (),
        dimensions: int | None = None,
    ) -> list[Hit]:
        """The `top` images nearest to a text, to an image, or to both; arguments and errors as `query` has them."""
        query = self.query(text, image, without, dimensions)
        if not self.entries:
            return []
        scores = _kept(self.features, dimensions) @ query
        first = np.argpartition(-scores, top - 1)[:top] if 0 < top < len(scores) else np.arange(len(scores))
        best = first[np.lexsort((first, -scores[first]))][:top]
        return [Hit(self.folder / self.entries[row].name, float(scores[row])) for row in best]

    def duplicates(self, least: float = 0.95, block: int = 2_048) -> list[list[Path | StorePath]]:
        """Groups of images that are the same, as `near_duplicates` finds them."""
        return [
            [self.folder / entry.name for entry in one] for one in groups(self.entries, self.features, least, block)
        ]

    def too_alike(self, least: float) -> str:
        """Why `least` tells no copies by this model, for which any two images of the folder are alike; else ""."""
        if len(self.entries) < FEW or (between := usual(self.features)) < least:
            return ""
        return (
            f"half of all pairs of these images have a cosine of {between:.3f} or more by this model, so {least:g} "
            "tells no copies from others: take one far nearer to 1, or a model that knows such images"
        )


def _opened(image: str | os.PathLike) -> Any:
    try:
        return open_image(image)
    except BadImage as error:
        raise BadImage(error.reason, error.detail, os.fspath(image)) from error


def _kept(features: np.ndarray, dimensions: int | None) -> np.ndarray:
    return features if dimensions is None else first_dimensions(features, dimensions)


def _several(value: Any) -> list[Any]:
    """One, several or none, as a list without empty texts."""
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return [one for one in values if one is not None and not (isinstance(one, str) and not one.strip())]


def build_index(
    folder: str | os.PathLike,
    model: Exported,
    index: str | os.PathLike | None = None,
    *,
    batch_size: int = BATCH,
    workers: int = 0,
    progress: bool = False,
) -> Index:
    """Bring the index of a folder up to date and return it.

    Args:
        folder: searched with everything below it; hidden files and folders are left out. A store's images are read
            from there one by one.
        model: exported towers (`runtime.load_exported`, best with one thread a worker: `threads=1`).
        index: where the index lies; None puts it into the folder itself (`INDEX`), a store's into the cache of this
            machine.
        batch_size: images a forward pass.
        workers: threads that read and embed side by side; 0 takes one a core.
        progress: show a bar.

    Raises:
        FileNotFoundError: there is no such folder.
        OSError: the index cannot be written; name another place.
    """
    folder, place = _places(folder, index)
    return _brought_up_to_date(folder, place, model, batch_size, workers, progress)


def _brought_up_to_date(
    folder: Path | StorePath, home: Path, model: Exported, batch_size: int, workers: int, progress: bool
) -> Index:
    """`build_index` of a folder that is there, whose index lies in `home`."""
    from tqdm.auto import tqdm

    place = home / model.key[:16]
    with _writing(place):
        place.mkdir(parents=True, exist_ok=True)
    dropped = Unread()
    present = find_images(folder, dropped)
    stored = read_parts(place)
    known = dict(zip(stored.entries, range(len(stored.entries)), strict=True))
    new = [entry for entry in present if entry not in known]
    result = Index(folder, model, [], np.zeros((0, 0), np.float32))
    result.removed = len(known.keys() - set(present))
    with _writing(place), tqdm(total=len(new), desc="index", unit="image", disable=not progress) as bar:
        for entries, features in in_parts(embedded(folder, model, new, batch_size, workers, dropped, bar.update)):
            write_part(place, entries, features)
            result.embedded += len(entries)
    if result.embedded:
        stored = read_parts(place)
        known = dict(zip(stored.entries, range(len(stored.entries)), strict=True))
    result.entries = [entry for entry in present if entry in known]
    rows = [known[entry] for entry in result.entries]
    whole = rows == list(range(len(stored.entries)))
    result.features = stored.features if whole or not rows else stored.features[rows]
    with _writing(place):
        tidy(place, stored, result.entries, result.features)
    result.dropped, result.unread = dict(dropped), sorted(dropped.files)
    return result


def _places(folder: str | os.PathLike, index: str | os.PathLike | None) -> tuple[Path | StorePath, Path]:
    """The folder that is searched, which is there, and where its index lies, on this disk."""
    folder = images_folder(folder)
    if index is not None:
        return folder, on_disk(index, NEEDS_DISK)
    if isinstance(folder, Path):
        return folder, folder / INDEX
    return folder, cache.made_folder("indexes", sha256_bytes(str(folder).encode())[:24])


@contextlib.contextmanager
def _writing(place: Path) -> Iterator[None]:
    """Where `place` may not be written, or cannot be a folder, the error says what to do."""
    try:
        yield
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise _refused(place, error) from error
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.ENOSPC):
            raise
        raise _refused(place, error) from error


def _refused(place: Path, error: OSError) -> OSError:
    return OSError(f"{place} can't be written ({error}): name another place for the index (index=, --index)")


def search_folder(
    folder: str | os.PathLike,
    text: str | Sequence[str] | None = None,
    image: Any = None,
    *,
    without: str | Sequence[str] = (),
    model: str | None = None,
    pretrained: str | None = None,
    index: str | os.PathLike | None = None,
    top: int = 10,
    progress: bool = True,
) -> tuple[list[Hit], Index]:
    """Everything in one call: export the model once, bring the index up to date, search.

    Args:
        folder, text, image, without, index, top: as `build_index` and `Index.search` take them.
        model: a folder written by `export_onnx`, a teacher of the embedded world (None takes its last one), or anything
            for `create_model`; it is exported into the index folder once for each file of weights.
        pretrained: as `create_model` takes it.
        progress: show a bar.

    Raises:
        ValueError: the model has no trained weights, or there is neither text nor image.
        FileNotFoundError: there is no such folder.
    """
    if not _several(text) and not _several(image):
        raise ValueError("search needs a text, an image, or both")
    found = open_index(folder, model, pretrained, index, progress=progress)
    return found.search(text, image, top, without), found


def open_index(
    folder: str | os.PathLike,
    model: str | None = None,
    pretrained: str | None = None,
    index: str | os.PathLike | None = None,
    *,
    progress: bool = True,
) -> Index:
    """The index of a folder, brought up to date, with its model; arguments and errors as `search_folder` has them."""
    folder, place = _places(folder, index)
    model = model or recipes.Reinforce().teachers[-1]
    with _writing(place):
        towers = exported_folder(model, place, pretrained)
    return _brought_up_to_date(folder, place, load_exported(towers, threads=1), BATCH, 0, progress)
