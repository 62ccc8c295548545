"""A Markdown table, the one way that reports, studies, costs and notebooks write it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown_table(header: Sequence[object], rows: Iterable[Sequence[object]], text_columns: int = 1) -> str:
    """Rows under a header, without a newline at the end.

    Args:
        header: names of the columns.
        rows: as many cells each; a `|` or a line break in a cell stays inside it.
        text_columns: how many columns, from the left, hold text; numbers, in all others, stand on the right.

    Raises:
        ValueError: a row has another number of cells than the header; the message shows the row.
    """
    lines = [_line(header), "|" + "".join("---|" if i < text_columns else "---:|" for i in range(len(header)))]
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"a row of {len(row)} cells in a table of {len(header)} columns: {list(row)}")
        lines.append(_line(row))
    return "\n".join(lines)


def _line(cells: Sequence[object]) -> str:
    texts = [str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells]
    return "|" + "".join(f" {text} |" if text else " |" for text in texts)
