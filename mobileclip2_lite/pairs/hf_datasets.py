"""`datasets` as a source of pairs: a hub name, local parquet, a saved data set, or a data set object of the user.

Reads rows with the images still encoded, so that one broken image is one bad row; writes nothing but what `datasets`
itself caches. Taught by notebooks/00_start_here.ipynb.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from mobileclip2_lite.pairs import splits
from mobileclip2_lite.pairs.files import quick_digest
from mobileclip2_lite.pairs.records import (
    IMAGE_COLUMNS,
    TEXT_COLUMNS,
    Record,
    Source,
    drawn_order,
    find_column,
    uid_of,
    user_meta,
)
from mobileclip2_lite.views.images import from_base64, is_url, local_path
from mobileclip2_lite.work.files import canonical, read_object, sha256_bytes
from mobileclip2_lite.work.place import StorePath

_OPTIONS = ("split", "config", "revision", "streaming")


def hub_source(name: str, settings: Any, seed: int) -> Source:
    """`hf:NAME`, or `hf:NAME?split=train&config=C&revision=R&streaming=1`; without a split `train`, or the only one.

    The name is the identity: pin a revision where the data set may change.

    Raises:
        ValueError: an unknown option, or a split that does not exist.
        OSError: the data set cannot be loaded; names it and the cause.
    """
    import datasets

    repository, _, query = name.removeprefix("hf:").partition("?")
    options = {key: values[-1] for key, values in parse_qs(query, keep_blank_values=True).items()}
    if unknown := sorted(set(options) - set(_OPTIONS)):
        raise ValueError(f"{name}: unknown option {unknown[0]!r}; there are {', '.join(_OPTIONS)}")

    def load() -> Any:
        try:
            streaming = options.get("streaming", "0") not in ("", "0", "false")
            loaded = datasets.load_dataset(
                repository, options.get("config"), revision=options.get("revision"), streaming=streaming
            )
        except Exception as error:  # the hub, its cache and each builder raise errors of their own
            raise OSError(
                f"{name} could not be loaded ({type(error).__name__}: {error}). Check name and network; gated data "
                f"needs a login; data on disk is given as a folder or file."
            ) from error
        return _split(loaded, name, options.get("split"))

    return _late(load, {"kind": "hub", "name": name}, settings, seed, name)


def saved_source(folder: Path, settings: Any, seed: int, asked: str | None = None) -> Source:
    """A folder written by `save_to_disk`; of a dict of splits, the one asked for, `train` or the only one."""
    import datasets

    known = [[path.relative_to(folder).as_posix(), quick_digest(path)] for path in sorted(folder.rglob("*.arrow"))]
    identity = {"kind": "saved", "digest": sha256_bytes(canonical(known))}
    notes, where = {}, str(folder)
    if (folder / "dataset_dict.json").is_file():
        there = read_object(folder / "dataset_dict.json").get("splits") or []
        chosen = splits.choose_name(there, asked, where)
        notes = {"split": chosen, "left_out": sorted(set(there) - {chosen})} if len(there) > 1 else {}
    if asked is not None:
        identity["split"] = asked
    source = _late(lambda: _split(datasets.load_from_disk(where), where, asked), identity, settings, seed, where)
    source.notes |= notes
    return source


def parquet_source(folder: Path | StorePath, names: Sequence[str], settings: Any, seed: int) -> Source:
    """Parquet files, in the order of `names`; a column of file names is relative to `folder`.

    Raises:
        ValueError: a file is not readable parquet; names it.
    """
    import pyarrow
    import pyarrow.parquet

    filled = []
    for name in names:
        try:
            filled += [name] * bool(pyarrow.parquet.read_metadata(folder / name).num_rows)
        except (pyarrow.ArrowException, OSError) as error:
            raise ValueError(
                f"{folder / name} is not readable parquet ({error}): copy it again or leave it out"
            ) from error
    if not filled:
        raise ValueError(f"{folder}: the parquet files {list(names)[:3]} have no rows")
    identity = {"kind": "parquet", "files": [[name, quick_digest(folder / name)] for name in names]}

    def load() -> Any:
        import datasets

        try:
            paths = [folder / name for name in filled]  # datasets cannot read a file without rows
            columns = _known(paths)
            features, here = _common_features(paths, columns), [os.fspath(path) for path in paths]
            return datasets.Dataset.from_parquet(here, features=features, columns=columns)
        except (datasets.exceptions.DatasetGenerationError, pyarrow.ArrowException) as error:
            cause = error.__cause__ or error
            raise ValueError(
                f"{folder}: the parquet files {list(names)[:3]} … cannot be read together ({cause})"
            ) from error

    beside = folder if isinstance(folder, Path) else None  # files that rows of a store name are not fetched
    return _late(load, identity, settings, seed, str(folder / names[0]), beside)


def _known(paths: Sequence[Path]) -> list[str] | None:
    """The columns whose types `datasets` has, where the files have others, too (maps); else None, for all."""
    import datasets
    import pyarrow
    import pyarrow.parquet

    fields = {field.name: field for path in paths for field in pyarrow.parquet.read_schema(path)}
    known = []
    for field in fields.values():
        with contextlib.suppress(ValueError, NotImplementedError):
            datasets.Features.from_arrow_schema(pyarrow.schema([field]))
            known.append(field.name)
    return known if len(known) < len(fields) else None


def _common_features(paths: Sequence[Path], columns: Sequence[str] | None) -> Any:
    """What all files hold together, where they differ: a column that is empty in one, or missing, has no type there."""
    import datasets
    import pyarrow
    import pyarrow.parquet

    schemas = [pyarrow.parquet.read_schema(path) for path in paths]
    if columns is not None:
        schemas = [pyarrow.schema([field for field in one if field.name in columns], one.metadata) for one in schemas]
    if columns is None and all(schema.equals(schemas[0]) for schema in schemas):
        return None
    described = next((schema.metadata for schema in schemas if b"huggingface" in (schema.metadata or {})), None)
    common = pyarrow.unify_schemas([schema.remove_metadata() for schema in schemas], promote_options="permissive")
    return datasets.Features.from_arrow_schema(common.with_metadata(described))


def given_source(dataset: Any, settings: Any, seed: int) -> Source:
    """A `datasets.Dataset` or `IterableDataset` that the user made.

    Its identity is its fingerprint; a stream has none and is known by its columns and first rows.

    Raises:
        TypeError: it is something else, a dict of splits for example.
    """
    import datasets

    if isinstance(dataset, (datasets.DatasetDict, datasets.IterableDatasetDict)):
        raise TypeError(f"a dict of splits was given: choose one, dataset[{next(iter(dataset), 'train')!r}]")
    if not isinstance(dataset, (datasets.Dataset, datasets.IterableDataset)):
        raise TypeError(f"a datasets.Dataset is expected, not {type(dataset).__name__}")
    if isinstance(dataset, datasets.Dataset):
        identity = {"kind": "dataset", "fingerprint": dataset._fingerprint, "rows": len(dataset)}
    else:
        digest = hashlib.sha256()
        for row in _undecoded(dataset, None).take(4):
            digest.update(repr(sorted(row.items(), key=lambda item: item[0])).encode("utf-8", "replace"))
        identity = {"kind": "stream", "digest": digest.hexdigest()[:32]}
    return _late(lambda: dataset, identity, settings, seed, "the dataset")


def rows_source(load: Any, identity: dict, settings: Any, seed: int) -> Source:
    """A data set that is made by `load()` only when its rows are wanted, known by `identity`."""
    return _late(load, identity, settings, seed, "the dataset")


def _late(load: Any, identity: dict, settings: Any, seed: int, where: str, folder: Path | None = None) -> Source:
    """A source that loads its data set when the first record is asked for: finished work is found without loading."""

    def records(start: list[int]) -> Iterator[Record]:
        dataset = load()
        columns = dataset.column_names or list(next(iter(dataset), {}))
        image = find_column(columns, settings.image_key or _image_feature(dataset), IMAGE_COLUMNS, "image", where)
        text = find_column(columns, settings.text_key, TEXT_COLUMNS, "text", where)
        for number, key, row in _rows(_undecoded(dataset, image), start[0] if start else 0, settings.count, seed):
            uid = uid_of(row.get("uid"))
            yield Record(
                key=f"row {key}",
                position=[number + 1],
                image=_located(row[image], folder),
                text=row[text],
                uid=uid,
                meta=user_meta(row, without=(image, text, *(("uid",) if uid else ()))),
            )

    return Source(identity, records)


def _rows(dataset: Any, start: int, count: int, seed: int) -> Iterator[tuple[int, int, dict]]:
    """(number in order, row number, row) from `start` on; a stream is read as it comes."""
    import datasets

    if not isinstance(dataset, datasets.Dataset):
        yield from ((start + k, start + k, row) for k, row in enumerate(dataset.skip(start) if start else dataset))
        return
    order = drawn_order(len(dataset), count, seed)
    for k in range(start, len(dataset), 256):  # a column batch at a time costs a tenth of row by row
        wanted = list(islice(order, k, k + 256)) if isinstance(order, range) else order[k : k + 256]
        batch = dataset[wanted]
        for j, row in enumerate(wanted):
            yield k + j, row, {name: values[j] for name, values in batch.items()}


def _image_feature(dataset: Any) -> str | None:
    return next((name for name, kind in (dataset.features or {}).items() if _is_image(kind) or _is_images(kind)), None)


def _is_image(feature: Any) -> bool:
    return type(feature).__name__ == "Image"


def _is_images(feature: Any) -> bool:
    """Whether a column holds a list of images, in any of the ways in which `datasets` has said so."""
    inner = feature[0] if isinstance(feature, list) and feature else getattr(feature, "feature", None)
    return _is_image(inner)


def _undecoded(dataset: Any, image: str | None) -> Any:
    """Rows as plain Python values, the image as it is stored; a transform that the user has set stays."""
    import datasets

    image = image or _image_feature(dataset)
    if isinstance(dataset, datasets.Dataset) and dataset.format["type"] not in (None, "custom"):
        dataset = dataset.with_format(None)
    feature, plain = (dataset.features or {}).get(image), datasets.Image(decode=False)
    if _is_image(feature):
        dataset = dataset.cast_column(image, plain)
    elif _is_images(feature):
        dataset = dataset.cast_column(image, [plain] if isinstance(feature, list) else type(feature)(plain))
    return dataset


def _located(image: Any, folder: Path | None) -> Any:
    """The image, its file's name made relative to `folder`."""
    if isinstance(image, dict) and image.get("bytes") is None and isinstance(image.get("path"), str):
        image = image["path"]
    if (
        not isinstance(image, str)
        or not image.strip()
        or folder is None
        or is_url(image)
        or from_base64(image) is not None
    ):
        return image
    return local_path(image, folder)


def _split(loaded: Any, name: str, asked: str | None = None) -> Any:
    return loaded[splits.choose_name(loaded, asked, name)] if isinstance(loaded, dict) else loaded
