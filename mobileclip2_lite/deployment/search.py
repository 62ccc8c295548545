"""Search a folder of images by text or by image with exported towers: what people want such models for.

Reads images below a folder and the ONNX files of export.py; writes an index beside them (or elsewhere):
`<index>/<model key>/part-000000.safetensors`, each with the unit features of some images and their names, sizes and
times. Indexing is incremental (only new or changed files are embedded, vanished ones leave) and can be killed at any
moment: a part counts once it is renamed into place. Features of different models never meet, each has its own folder.
The paper has no such program. Taught by notebooks/60_deploy.ipynb.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mobileclip2_lite import recipes
from mobileclip2_lite.deployment.runtime import Exported
from mobileclip2_lite.work.files import write_atomic

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""Files that count as images."""
INDEX = ".mobileclip2-index"
"""Name of the index folder within the searched folder, if no other is named."""
PART = 512
"""Images a part: at most so many are embedded again after a kill."""


@dataclass(frozen=True)
class Hit:
    """One found image."""

    path: Path
    """The image file."""
    score: float
    """Cosine between the query and the image, -1 to 1."""


@dataclass(frozen=True)
class Entry:
    """What tells whether a file is still the indexed one."""

    name: str
    """Path below the searched folder, with forward slashes."""
    size: int
    """Bytes."""
    changed: int
    """Modification time, nanoseconds."""


@dataclass
class Index:
    """Unit features of the images of one folder by one model."""

    folder: Path
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

    def search(self, text: str | None = None, image: Any = None, top: int = 10) -> list[Hit]:
        """The `top` images nearest to a text, to an image (PIL or a path), or to both (the mean of their features).

        Raises:
            ValueError: neither text nor image is given.
        """
        queries = []
        if text is not None:
            queries.append(self.model.embed_texts([text]))
        if image is not None:
            queries.append(self.model.embed_images([_open(image) if isinstance(image, (str, os.PathLike)) else image]))
        if not queries:
            raise ValueError("search needs a text, an image, or both")
        if not self.entries:
            return []
        scores = self.features @ np.mean(np.concatenate(queries), axis=0)
        best = np.argsort(-scores, kind="stable")[:top]
        return [Hit(self.folder / self.entries[row].name, float(scores[row])) for row in best]


def build_index(
    folder: str | os.PathLike,
    model: Exported,
    index: str | os.PathLike | None = None,
    *,
    batch_size: int = 32,
    progress: bool = False,
) -> Index:
    """Bring the index of a folder up to date and return it.

    Args:
        folder: searched with everything below it; hidden files and folders are left out.
        model: exported towers (`exported.load_exported`).
        index: where the index lies; None puts it into the folder itself (`INDEX`).
        batch_size: images a forward pass.
        progress: show a bar.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    from tqdm.auto import tqdm

    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder")
    place = Path(index if index is not None else folder / INDEX) / model.key[:16]
    place.mkdir(parents=True, exist_ok=True)
    known = dict(_read_parts(place))
    present = dict.fromkeys(sorted(_images(folder), key=lambda entry: entry.name))
    result = Index(folder, model, [], np.zeros((0, 0), np.float32))
    result.removed = sum(entry not in present for entry in known)
    dropped = Counter()
    new = [entry for entry in present if entry not in known]
    with tqdm(total=len(new), desc="index", unit="image", disable=not progress) as bar:
        for start in range(0, len(new), PART):
            part = _embed(folder, model, new[start : start + PART], batch_size, dropped, bar)
            if part:
                _write_part(place, part)
                known.update(part)
                result.embedded += len(part)
    kept = {entry: known[entry] for entry in present if entry in known}
    if len(list(place.glob("part-*.safetensors"))) > 1 or len(kept) < len(known):
        _compact(place, kept)
    result.entries = list(kept)
    result.features = np.stack(list(kept.values())) if kept else result.features
    result.dropped = dict(dropped)
    return result


def _images(folder: Path) -> Iterator[Entry]:
    """The image files below a folder."""
    for here, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if name.startswith(".") or Path(name).suffix.lower() not in SUFFIXES:
                continue
            path = Path(here) / name
            status = path.stat()
            yield Entry(path.relative_to(folder).as_posix(), status.st_size, status.st_mtime_ns)


def _open(path: str | os.PathLike) -> Any:
    """An RGB image, turned as its EXIF says."""
    from PIL import Image, ImageOps

    with Image.open(path) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def _embed(
    folder: Path, model: Exported, entries: Sequence[Entry], batch_size: int, dropped: Counter, bar: Any
) -> dict[Entry, np.ndarray]:
    """Features of some files; those that can't be read are counted by reason."""
    out: dict[Entry, np.ndarray] = {}
    for start in range(0, len(entries), batch_size):
        batch = entries[start : start + batch_size]
        images = []
        for entry in batch:
            try:
                images.append((entry, _open(folder / entry.name)))
            except (OSError, ValueError, SyntaxError, _bomb()) as error:
                dropped[f"{type(error).__name__}: {_reason(error)}"] += 1
        if images:
            features = model.embed_images([image for _, image in images]).astype(np.float32)
            out.update({entry: row for (entry, _), row in zip(images, features, strict=True)})
        bar.update(len(batch))
    return out


def _bomb() -> type[Exception]:
    """PIL's refusal of pictures so large that they must be an attack; it stays on."""
    from PIL import Image

    return Image.DecompressionBombError


def _reason(error: Exception) -> str:
    """The error without the file's name, so that equal reasons are counted together."""
    return str(error).split(" '")[0].split(" <")[0][:60]


def _read_parts(place: Path) -> Iterator[tuple[Entry, np.ndarray]]:
    """All finished parts in the order they were written; a broken part is as if it had never been."""
    from safetensors import SafetensorError, safe_open

    for path in sorted(place.glob("part-*.safetensors")):
        try:
            with safe_open(path, "numpy") as file:
                entries = [Entry(*row) for row in json.loads(file.metadata()["entries"])]
                yield from zip(entries, file.get_tensor("features"), strict=True)
        except (SafetensorError, KeyError, TypeError, ValueError):
            path.unlink()


def _write_part(place: Path, part: dict[Entry, np.ndarray], number: int | None = None) -> Path:
    from safetensors.numpy import save

    if number is None:
        taken = [int(path.stem.split("-")[1]) for path in place.glob("part-*.safetensors")]
        number = max(taken, default=-1) + 1
    path = place / f"part-{number:06d}.safetensors"
    entries = json.dumps([[entry.name, entry.size, entry.changed] for entry in part])
    write_atomic(path, save({"features": np.stack(list(part.values()))}, metadata={"entries": entries}))
    return path


def _compact(place: Path, kept: dict[Entry, np.ndarray]) -> None:
    """One part instead of many: the new one is written before the old ones go, so that a kill loses nothing."""
    old = sorted(place.glob("part-*.safetensors"))
    if kept:
        _write_part(place, kept)
    for path in old:
        path.unlink()


def search_folder(
    folder: str | os.PathLike,
    text: str | None = None,
    image: str | os.PathLike | None = None,
    *,
    model: str | None = None,
    pretrained: str | None = None,
    index: str | os.PathLike | None = None,
    top: int = 10,
    progress: bool = True,
) -> tuple[list[Hit], Index]:
    """Everything in one call: export the model once, bring the index up to date, search.

    Args:
        folder, text, image, index, top: as `build_index` and `Index.search` take them.
        model: a folder written by `export_onnx`, a teacher of the embedded world (None takes its last one), or anything
            for `create_model`; it is exported into the index folder once for each file of weights.
        pretrained: as `create_model` takes it.
        progress: show a bar.

    Raises:
        ValueError: the model has no trained weights, or there is neither text nor image.
        FileNotFoundError: there is no such folder.
    """
    if text is None and image is None:
        raise ValueError("search needs a text, an image, or both")
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"{folder} is not a folder: name the folder that holds the pictures")
    place = Path(index if index is not None else Path(folder) / INDEX)
    model = model or recipes.Reinforce().teachers[-1]
    found = build_index(folder, exported_towers(model, place, pretrained), place, progress=progress)
    return found.search(text, image, top), found


def exported_towers(model: str, place: Path, pretrained: str | None = None) -> Exported:
    """The towers of a model: read where they are exported, else exported below `place` first."""
    from mobileclip2_lite.deployment.export import export_onnx
    from mobileclip2_lite.deployment.runtime import load_exported
    from mobileclip2_lite.models.embedded import data_folder
    from mobileclip2_lite.models.resolve import resolve
    from mobileclip2_lite.models.zoo import create_model
    from mobileclip2_lite.work.files import sha256_file

    if (Path(model) / "image.onnx").is_file():
        return load_exported(model)
    embedded = data_folder() / "teachers" / model
    name = str(embedded) if pretrained is None and embedded.is_dir() else model
    source = resolve(name, pretrained)
    if source.weights is None:
        raise ValueError(f"{model} has no trained weights: name a tag with pretrained, a folder or a file")
    towers = place / f"towers-{sha256_file(source.weights)[:16]}"
    if not (towers / "export.json").is_file():  # written last
        export_onnx(create_model(name, pretrained), towers, name=model)
    return load_exported(towers)


def widget(index: Index, text: str = "", top: int = 8, side: int = 110) -> Any:
    """A text box with the found images below it, for notebooks (needs ipywidgets).

    Args:
        index: what is searched.
        text: the first query.
        top: images shown.
        side: of a thumbnail, in pixels.
    """
    import io

    import ipywidgets

    box = ipywidgets.Text(value=text, placeholder="what to look for", continuous_update=False)
    shown = ipywidgets.HBox(layout=ipywidgets.Layout(flex_flow="row wrap"))

    def thumbnail(hit: Hit) -> Any:
        picture, data = _open(hit.path), io.BytesIO()
        picture.thumbnail((side, side))
        picture.save(data, "PNG")
        label = ipywidgets.Label(f"{hit.score:.2f}  {hit.path.name[:18]}")
        return ipywidgets.VBox([ipywidgets.Image(value=data.getvalue(), format="png"), label])

    def update(change: dict | None = None) -> None:
        hits = index.search(box.value, top=top) if box.value.strip() else []
        shown.children = [thumbnail(hit) for hit in hits]

    box.observe(update, names="value")
    update()
    return ipywidgets.VBox([box, shown])
