"""A Markdown table, the one way that reports, studies, costs and notebooks write it, and its place in a page."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from numbers import Real

SILENT = ("", "-", "–", "—")
"""Cells that say nothing about their column."""


def markdown_table(
    header: Sequence[object], rows: Iterable[Sequence[object]], text_columns: int | Collection[int] = 1
) -> str:
    """Rows under a header, without a newline at the end.

    Args:
        header: names of the columns.
        rows: as many cells each; a `|` or a line break in a cell stays inside it.
        text_columns: how many columns, from the left, hold text, or the indices of those that do; numbers, in all
            others, stand on the right. `columns_of_text` finds them.

    Raises:
        ValueError: a row has another number of cells than the header; the message shows the row.
    """
    left = range(text_columns) if isinstance(text_columns, int) else text_columns
    lines = [_line(header), "|" + "".join("---|" if i in left else "---:|" for i in range(len(header)))]
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"a row of {len(row)} cells in a table of {len(header)} columns: {list(row)}")
        lines.append(_line(row))
    return "\n".join(lines)


def between_marks(text: str, begin: str, end: str, inside: str, missing: str) -> str:
    """A text with what stands between its two marks replaced; the marks and all around them stay.

    Raises:
        ValueError: the marks are not there; says `missing`.
    """
    before, opened, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (opened and closed):
        raise ValueError(missing)
    return f"{before}{begin}\n{inside}\n{end}{after}"


def columns_of_text(rows: Sequence[Sequence[object]]) -> list[int]:
    """Indices of the columns that hold a word; text of digits without letters (`1,024`, `78.5 ± 0.3`) is a number."""
    return [index for index, cells in enumerate(zip(*rows, strict=False)) if any(map(_is_text, cells))]


def _is_text(cell: object) -> bool:
    """Whether a cell is a word, a truth value included, and neither number nor gap."""
    if isinstance(cell, str):
        text = cell.strip("*` ")  # marks of bold and code
        number = any(map(str.isdigit, text)) and not any(map(str.isalpha, text))
        return text not in SILENT and not number
    return cell is not None and (isinstance(cell, bool) or not isinstance(cell, Real))


def _line(cells: Sequence[object]) -> str:
    texts = [str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells]
    return "|" + "".join(f" {text} |" if text else " |" for text in texts)
