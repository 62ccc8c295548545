"""Folders and tables as sources of pairs: a text beside each image, or rows of a table.

Beside `cat.jpg` a text may be `cat.txt`, `cat.caption` or the caption in `cat.json` (img2dataset). Reads the user's
files and writes nothing. Nested folders and links to folders are followed; names that begin with a dot are not looked
at. Taught by notebooks/00_start_here.ipynb.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mobileclip2_lite.pairs import splits
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
from mobileclip2_lite.pairs.tables import read_rows
from mobileclip2_lite.views.decoding import SUFFIXES
from mobileclip2_lite.views.images import from_base64, is_url, local_path
from mobileclip2_lite.work.files import canonical, sha256_bytes, sha256_file
from mobileclip2_lite.work.place import StorePath

BESIDE = (".txt", ".caption")
"""Ends of the names of files that hold the text of an image."""


def quick_digest(path: Path | StorePath) -> str:
    """A hash of a large file's size, beginning, middle and end: hardly any other content has the same."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    starts = (0, max(0, size // 2 - 32768), max(0, size - 65536))
    if isinstance(path, StorePath):  # these parts alone: the whole file is fetched when its turn comes
        for start in starts:
            digest.update(path.store.read(start, min(size, start + 65536)))
        return digest.hexdigest()[:32]
    with open(path, "rb") as file:
        for start in starts:
            file.seek(start)
            digest.update(file.read(65536))
    return digest.hexdigest()[:32]


def has_texts(folder: Path, names: Sequence[str], text_key: str | None) -> bool:
    """Whether a folder's images have their texts beside them."""
    images = [name for name in names if name.lower().endswith(SUFFIXES)]
    stems = {os.path.splitext(name)[0] for name in images} | set(images)
    if any(name.lower().endswith(BESIDE) and os.path.splitext(name)[0] in stems for name in names):
        return True
    told = (name for name in names if name.lower().endswith(".json") and os.path.splitext(name)[0] in stems)
    return any(_text_name(_object(folder / name), text_key) for name, _ in zip(told, range(100), strict=False))


def beside_source(folder: Path, names: Sequence[str], settings: Any, seed: int) -> Source:
    """Images with a text of the same name beside each: `.txt` before `.caption` before the caption in `.json`.

    `cat.jpg.txt` is the text of `cat.jpg`, too, where there is no `cat.txt`.
    """
    images = [name for name in names if Path(name).suffix.lower() in SUFFIXES]
    texts = {name for name in names if name.lower().endswith(BESIDE)}
    by_stem = {os.path.splitext(name)[0]: name for name in sorted(texts, key=_preferred, reverse=True)}
    bare = {os.path.splitext(name)[0] for name in images} - set(by_stem)
    by_stem |= {
        os.path.splitext(n)[0]: n for n in names if n.lower().endswith(".json") and os.path.splitext(n)[0] in bare
    }
    items: list[tuple[str, str | None]] = [
        (name, by_stem.get(os.path.splitext(name)[0]) or by_stem.get(name)) for name in images
    ]
    used = {text for _, text in items if text}
    items += [
        (name, name) for name in sorted(texts - {os.path.splitext(n)[0] + e for n in used for e in BESIDE} - used)
    ]
    texts |= used
    known = [[name, _size(folder / name)] for name in images]
    known += [[name, sha256_file(folder / name) if (folder / name).is_file() else None] for name in sorted(texts)]
    order = drawn_order(len(items), settings.count, seed)

    def records(start: list[int]) -> Iterator[Record]:
        for k in range(start[0] if start else 0, len(items)):
            name, text = items[order[k]]
            yield _beside_record(folder, name, text, [k + 1], settings.text_key)

    identity = {"kind": "folder", "files": len(items), "digest": sha256_bytes(canonical(known))}
    return Source(identity, records, len(items), ignored(names, {*images, *texts}))


def _preferred(name: str) -> tuple[int, str]:
    return BESIDE.index(os.path.splitext(name)[1].lower()), name


def _beside_record(folder: Path, name: str, text: str | None, position: list[int], text_key: str | None) -> Record:
    record = Record(key=name, position=position, image=folder / name, name=name)
    if text is None:
        record.problem, record.detail = "no_text", f"no {os.path.splitext(name)[0]}.txt beside it"
    elif text == name:
        record.problem, record.detail = "no_image", "a text without an image beside it"
    else:
        try:
            record.text = (folder / text).read_bytes()
        except OSError as error:
            record.problem, record.detail = "unreadable_file", f"{text}: {error.strerror or error}"
        if not record.problem and text.lower().endswith(".json"):
            _take_json(record, text, _object(folder / text), text_key)
    return record


def _take_json(record: Record, name: str, row: Mapping | str, text_key: str | None) -> None:
    """Text, uid and the rest from the `.json` beside an image."""
    if isinstance(row, str):
        record.problem, record.detail = "bad_json", f"{name}: {row}"
        return
    column = _text_name(row, text_key)
    record.text = row.get(column)
    record.uid = uid_of(row.get("uid"))
    record.meta = user_meta(row, without=(column, "schema", *(("uid",) if record.uid else ())))
    if record.text is None:
        record.detail = f"{name} holds no caption; it has {list(row)}"


def _text_name(row: Mapping | str, text_key: str | None) -> str | None:
    """The key of an object that holds a text."""
    if isinstance(row, str):
        return None
    return next((name for name in ([text_key] if text_key else TEXT_COLUMNS) if row.get(name) is not None), None)


def _object(path: Path) -> Mapping | str:
    """The JSON object of a file, or what is wrong with it."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        return str(getattr(error, "strerror", None) or error)
    return value if isinstance(value, dict) else f"a {type(value).__name__}, not an object"


def table_source(
    folder: Path, tables: Sequence[str], names: Sequence[str] | None, settings: Any, seed: int, asked: str | None = None
) -> Source:
    """Rows of one table or several, each of which names its images relative to its own folder.

    Args:
        names: the other files of the folder: images that no row names are counted; None does not look.
        asked: the split to take, where a column `split` or the images' folders name several.
    """
    items: list[tuple[str, str, dict | str, tuple[str, str] | None]] = []  # key, image, row or what is wrong, columns
    known, listed, elsewhere = [], set(), None if names is None else _by_base(names)
    for table in tables:
        known.append([table, sha256_file(folder / table)])
        rows = list(read_rows(folder / table, (settings.image_key, settings.text_key)))
        columns = _columns([row for _, row in rows if isinstance(row, dict)], settings, folder / table)
        for line, row in rows:
            name = _image_name(folder, table, _lone(row.get(columns[0]))) if isinstance(row, dict) else ""
            if name and elsewhere != {} and not os.path.lexists(folder / name):  # Flickr8k: the images lie in Images/
                elsewhere = _by_base(_near(folder)) if elsewhere is None else elsewhere
                name = elsewhere.get(Path(name).name) or name
            items.append((f"{table}:{line}", name, row, columns))
            listed.add(name)
    of = [_row_split(name, row) for _, name, row, _ in items]
    kinds = [type(row).__name__ for _, _, row, _ in items]  # a bad row is a string
    chosen, notes = splits.choose(of, asked, str(folder / tables[0]), kinds)
    items = [items[k] for k in chosen]
    images = [name for name in names or () if Path(name).suffix.lower() in SUFFIXES]
    unlisted = [name for name in images if name not in listed]
    items += [(name, name, "", None) for name in unlisted]
    known += [[name, _size(folder / name)] for name in sorted({*(name for _, name, _, _ in items)} - {""})]
    groups = _groups([name for _, name, _, _ in items], settings.group)
    order = [k for group in drawn_order(len(groups), settings.count, seed) for k in groups[group]]

    def records(start: list[int]) -> Iterator[Record]:
        for k in range(start[0] if start else 0, len(items)):
            yield _row_record(folder, *items[order[k]], [k + 1])

    identity = {"kind": "table", "rows": len(items), "digest": sha256_bytes(canonical(known))}
    return Source(identity, records, len(groups), ignored(names or (), {*images, *tables}) | notes)


def _by_base(names: Sequence[str]) -> dict[str, str]:
    """The images whose own name, without its folders, no other has."""
    images = [name for name in names if name.lower().endswith(SUFFIXES)]
    counts = Counter(Path(name).name for name in images)
    return {Path(name).name: name for name in images if counts[Path(name).name] == 1 and "/" in name}


def _near(folder: Path) -> list[str]:
    """The files in a table's neighbour folders, as paths from its own: below it, and beside COCO's `annotations`."""
    homes = {"": folder} | ({"../": folder.parent} if folder.name == "annotations" else {})
    found = []
    for start, home in homes.items():
        for place in sorted(home.iterdir()):
            if not place.name.startswith(".") and place.is_dir():
                with contextlib.suppress(PermissionError):  # not the user's to read
                    found += [f"{start}{place.name}/{name}" for name in sorted(os.listdir(place))]
    return found


def _row_split(name: str, row: dict | str) -> str | None:
    """The split of a table's row, by its column `split` or its image's folder."""
    if isinstance(row, str):
        return None
    return splits.named(row.get("split")) or (splits.split_of(name) if name and not is_url(name) else None)


def _lone(image: Any) -> Any:
    """The image in a list of one, and the path in a row of `datasets.Image` without bytes."""
    if isinstance(image, list) and len(image) == 1 and not isinstance(image[0], (int, list)):
        image = image[0]
    if isinstance(image, dict) and image.get("bytes") is None and isinstance(image.get("path"), str):
        image = image["path"]
    return image


def _image_name(folder: Path, table: str, image: Any) -> str:
    """The image's file below `folder`, or where else it lies; empty if it is no file name."""
    if not isinstance(image, str) or not image.strip() or from_base64(image) is not None:
        return ""
    beside = Path(table).parent
    if "\\" in image or image.startswith("~") or image.lower().startswith("file://"):
        found = local_path(image, folder / beside)
        return (found.relative_to(folder) if found.is_relative_to(folder) else found).as_posix()
    return (beside / image).as_posix()


def _groups(names: Sequence[str], together: bool) -> list[list[int]]:
    """The rows of each image, in the order of its first; a row without a name, or every row, stands alone."""
    groups: dict[object, list[int]] = {}
    for row, name in enumerate(names):
        groups.setdefault(name if together and name else row, []).append(row)
    return list(groups.values())


def _columns(rows: list[dict], settings: Any, path: Path) -> tuple[str, str]:
    """Image and text column, among those of all rows: in JSON Lines one row may lack what others have."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return (
        find_column(names, settings.image_key, IMAGE_COLUMNS, "image", str(path)),
        find_column(names, settings.text_key, TEXT_COLUMNS, "text", str(path)),
    )


def _row_record(
    folder: Path, key: str, name: str, row: dict | str, columns: tuple[str, str] | None, position: list[int]
) -> Record:
    record = Record(key=key, position=position)
    if columns is None:
        record.problem, record.detail = "no_text", "no row of the table names this image"
        return record
    if isinstance(row, str):
        record.problem, record.detail = "bad_row", row
        return record
    column, text = columns
    image = _lone(row.get(column))
    record.text = row.get(text)
    record.name = f"{image}\n{record.text}"  # one image may have several rows, each with another caption
    record.uid = uid_of(row.get("uid"))
    record.meta = user_meta(row, without=(column, text, *(("uid",) if record.uid else ())))
    if image is None or (isinstance(image, str) and not image.strip()):
        record.problem, record.detail = "no_image", f"column {column!r} is empty"
    elif isinstance(image, str) and is_url(image):
        record.problem, record.detail = "image_is_url", f"{image}: download it first, with img2dataset for example"
    elif name:
        record.image = folder / name
        record.meta |= {"file": str(image)}
    elif isinstance(image, (int, float)):
        record.problem, record.detail = "no_image", f"column {column!r} holds {image!r}, which is no file name"
    else:
        record.image = image  # bytes, base64, or a row of datasets.Image
    return record


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except (OSError, ValueError):  # a name with a NUL is a ValueError
        return None


def ignored(names: Sequence[str], used: set[str]) -> dict:
    """The manifest's note on files that are neither image nor text."""
    suffixes = Counter(Path(name).suffix.lower() or "(none)" for name in names if name not in used)
    return {"ignored_files": dict(sorted(suffixes.items()))} if suffixes else {}
