"""Rows of CSV, TSV, JSON, JSON Lines and parquet tables, each with its line or with what is wrong with it.

A bad row costs itself and no other: a quote that nothing closes does not take the lines behind it. Reads the user's
files and writes nothing. Taught by notebooks/00_start_here.ipynb.
"""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from mobileclip2_lite.pairs.caption_objects import rows_of
from mobileclip2_lite.pairs.records import IMAGE_COLUMNS, TEXT_COLUMNS
from mobileclip2_lite.views.decoding import SUFFIXES
from mobileclip2_lite.work.kinds import HEAD, kind_in_truth

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
"""Ends of file names that are tables wherever they lie; `.json` and `.parquet` are, where they are named."""
_LONGEST = 1 << 30
"""Characters of one field: an image as base64 is far longer than the csv module's 131,072."""
_LINES = 1_000
"""Lines that a quoted text may go over."""
_Row = dict | str


def read_rows(path: Path, keys: Sequence[str | None] = ()) -> Iterator[tuple[int, _Row]]:
    """(line, row) of a table, or (line, what is wrong with it).

    Args:
        keys: columns that the user asked for; they help to find the delimiter.

    Raises:
        ValueError: the table is empty, its header cannot be read, or not one row can.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        rows = _parquet_rows(path)
    else:
        rows = _csv_rows(path, keys) if suffix in (".csv", ".tsv", ".txt") else _json_rows(path)
    with open(path, "rb") as file:
        other = kind_in_truth(file.read(HEAD)) if suffix != ".parquet" else ""
    if other:
        raise ValueError(f"{path} is no table but {other}")
    first_bad, good, empty = None, False, True
    for line, row in rows:
        empty = False
        good = good or isinstance(row, dict)
        first_bad = first_bad or (None if good else f"line {line}: {row}")
        yield line, row
    if empty:
        raise ValueError(f"{path} has no rows: add one an image, below the header")
    if not good:
        raise ValueError(f"{path} has no row that can be read; the first is {first_bad}")


def is_table(path: Path) -> bool:
    """Whether a `.txt` is a table of images and texts, as Flickr8k's `captions.txt`: its first line names both."""
    head = [line for _, line in islice(_lines(path), 20)]
    try:
        names = {name.strip().lower() for name in _header(path, head, ())[1]} if head else set()
    except ValueError:
        return False
    return bool(names & set(IMAGE_COLUMNS)) and bool(names & set(TEXT_COLUMNS))


def encoding_of(path: Path) -> str:
    """UTF-16 by its mark or its zero bytes, else UTF-8: what is not passes as lone surrogates and is counted later."""
    with open(path, "rb") as file:
        head = file.read(400)
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    for zeros, encoding in ((head[1::2], "utf-16-le"), (head[::2], "utf-16-be")):
        if len(zeros) > 3 and zeros.count(0) > 0.8 * len(zeros):
            return encoding
    return "utf-8-sig"


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    encoding = encoding_of(path)
    errors = "surrogateescape" if encoding == "utf-8-sig" else "replace"
    with open(path, encoding=encoding, errors=errors, newline="") as file:
        yield from enumerate(file, 1)


def _csv_rows(path: Path, keys: Sequence[str | None]) -> Iterator[tuple[int, _Row]]:
    lines = _lines(path)
    head = [line for _, line in islice(_lines(path), 20)]
    while head and _says_nothing(head[0]):
        head = head[1:]
        next(lines)
    if not head:
        return
    delimiter, header, spaced = _header(path, head, keys)
    _once(path, header, keys)
    next(lines)
    waiting: list[tuple[int, str]] = []
    shapes: list[set] = [set() for _ in header]
    while entry := (waiting.pop(0) if waiting else next(lines, None)):
        line, text = entry
        fields, ahead = _fields(text, delimiter, spaced), []
        while fields is None and len(ahead) < _LINES:  # a quote is open: the text may go on in the next line
            following = waiting.pop(0) if waiting else next(lines, None)
            if following is None or _is_row(following[1], delimiter, spaced, shapes):
                ahead += [following] if following else []
                break
            ahead.append(following)
            fields = _fields("".join((text, *(more for _, more in ahead))), delimiter, spaced)
        if fields is None or isinstance(fields, str):
            waiting[:0] = ahead
            yield line, fields or "a quote that nothing closes: put a second one at the text's end, or double it"
        elif any(fields[len(header) :]):  # delimiters at the end of a line are overlooked
            waiting[:0] = ahead
            yield (
                line,
                f"{len(fields)} fields, the header has {len(header)}: a text with {delimiter!r} needs quotes around it",
            )
        elif fields:
            for shape, value in zip(shapes, fields, strict=False):
                shape.add(_shape(value))
            yield line, {**dict.fromkeys(header), **dict(zip(header, fields, strict=False))}


def _says_nothing(line: str) -> bool:
    """Whether a line before the header is empty, or Excel's `sep=;`."""
    line = line.strip("\0 \t\r\n").lower()
    return not line or (line.startswith("sep=") and len(line) <= 5)


def _fields(text: str, delimiter: str, spaced: bool) -> list[str] | str | None:
    """The fields of a row; None if a quote is open at its end, or what is wrong."""
    before = csv.field_size_limit(_LONGEST)
    try:
        rows = list(csv.reader([text], delimiter=delimiter, strict=True, skipinitialspace=spaced))
    except csv.Error as error:
        if "unexpected end of data" in str(error):
            return None
        return f"{error}: a quote within quotes is written twice" if "expected after" in str(error) else str(error)
    finally:
        csv.field_size_limit(before)
    return rows[0] if rows else []


def _is_row(text: str, delimiter: str, spaced: bool, shapes: Sequence[set]) -> bool:
    """Whether a line within quotes looks like a row of its own: as many fields, of the kinds seen before."""
    fields = _fields(text, delimiter, spaced)
    if not isinstance(fields, list) and text.count('"') % 2:  # a row whose own quote is open
        fields = text.split(delimiter)
    if not isinstance(fields, list) or len(fields) != len(shapes) or len(fields) < 2:
        return False
    kinds = [_shape(value) for value in fields]
    known = any(seen - {None} for seen in shapes)
    alike = any(kind is not None and kind in seen for kind, seen in zip(kinds, shapes, strict=True))
    return alike or (not known and any(kind not in (None, "number") for kind in kinds))


def _shape(value: str) -> str | None:
    """What a field is, as far as it tells a row from a sentence: an image's name, a URL or a number."""
    value = value.strip().lower()
    if "://" in value:
        return "url"
    if value.endswith(SUFFIXES):
        return "image"
    return "number" if value.isdigit() else None


def _header(path: Path, head: Sequence[str], keys: Sequence[str | None]) -> tuple[str, list[str], bool]:
    """Delimiter, names of the columns, and whether a space follows each delimiter.

    The delimiter is the one that gives a column for the image and one for the text; if none does, the one that splits
    the first rows into as many fields as the header.
    """
    candidates = "\t,;|" if path.suffix.lower() == ".tsv" else ",;\t|"
    ranked, open_quote = [], False
    for place, delimiter in enumerate(candidates):
        names = _fields(head[0], delimiter, False)
        if not isinstance(names, list):
            open_quote = True
            continue
        spaced = len(names) > 1 and all(name.startswith(" ") for name in names[1:])
        lowered = {name.strip().lower() for name in names}
        wanted = [
            ({key.lower()} if key else set(known))
            for key, known in zip((*keys, None, None), (IMAGE_COLUMNS, TEXT_COLUMNS), strict=False)
        ]
        right = sum(bool(lowered & some) for some in wanted)
        rows = [_fields(text, delimiter, spaced) for text in head[1:]]
        even = sum(isinstance(row, list) and len(row) == len(names) for row in rows) if len(names) > 1 else 0
        ranked.append((right, even, -place, delimiter, [name.strip() if spaced else name for name in names], spaced))
    if not ranked or (open_quote and len(max(ranked)[4]) == 1):
        raise ValueError(f"{path}: a quote in the header is not closed: mend the first line, {head[0].strip()[:80]!r}")
    return max(ranked)[3:]


def _once(path: Path, header: Sequence[str], keys: Sequence[str | None]) -> None:
    """Refuse a header in which the column of the image or of the text stands twice: one would hide the other.

    Raises:
        ValueError: it does; names the column.
    """
    lowered = [name.strip().lower() for name in header]
    for asked, known in zip((*keys, None, None), (IMAGE_COLUMNS, TEXT_COLUMNS), strict=False):
        taken = header.index(asked) if asked in header else -1
        taken = next((lowered.index(name) for name in known if name in lowered), -1) if asked is None else taken
        if taken >= 0 and header.count(header[taken]) > 1:
            raise ValueError(f"{path} has several columns called {header[taken]!r}: name each of them otherwise")


def _json_rows(path: Path) -> Iterator[tuple[int, _Row]]:
    first = next((text for _, text in _lines(path) if text.strip()), "")
    if first.lstrip("\ufeff").lstrip().startswith("[") or path.suffix.lower() == ".json":
        whole = "".join(text for _, text in _lines(path))
        try:
            rows = json.loads(whole)
        except (ValueError, RecursionError):
            rows = None  # lines, then, each of them to be judged alone
        if isinstance(rows, dict):
            if (found := rows_of(rows)) is None:
                raise ValueError(
                    f"{path} is one object with {list(rows)[:6]}, neither Karpathy's nor COCO's captions: write a list "
                    "of rows, or one row a line"
                )
            yield from enumerate(found, 1)
            return
        if isinstance(rows, list) and (path.suffix.lower() == ".json" or len(rows) != 1 or isinstance(rows[0], dict)):
            yield from ((number, _object(row)) for number, row in enumerate(rows, 1))
            return
    listed = first.strip() == "["  # a list that is no JSON as a whole, a row a line
    for line, text in _lines(path):
        text = text.strip()
        if not text or (listed and text in ("[", "]")):
            continue
        try:
            row = json.loads(text.removesuffix(","))
        except (ValueError, RecursionError) as error:
            yield line, f"not JSON: {error}"
            continue
        yield line, _object(row)


def _object(row: object) -> _Row:
    return row if isinstance(row, dict) else f"a {type(row).__name__}, not an object"


def _parquet_rows(path: Path) -> Iterator[tuple[int, _Row]]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} is not readable parquet ({error}): copy it again or leave it out") from error
    with file:
        number = 0
        for batch in file.iter_batches(1_024):
            for row in batch.to_pylist():
                number += 1
                yield number, row
