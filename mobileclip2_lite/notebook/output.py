"""What a cell shows: a bundle of media types or a table in a notebook, plain text elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any


def shell() -> Any | None:
    """The running IPython shell, or None outside of notebooks."""
    return sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None


def show_bundle(bundle: dict[str, Any]) -> None:
    """Show a bundle of media types in a notebook; print its text elsewhere."""
    if shell() is None:
        print(bundle["text/plain"])
        return
    from IPython.display import display

    display(bundle, raw=True)


def say(text: str, plain: str | None = None) -> None:
    """Show a sentence in Markdown; `plain` is printed outside of notebooks (default: the same)."""
    show_bundle({"text/markdown": text, "text/plain": text if plain is None else plain})


def table(header: Sequence[Any], rows: Sequence[Sequence[Any]]) -> None:
    """Show rows under a header as a table; numbers with three significant digits, on the right; words on the left."""
    from mobileclip2_lite.work.tables import columns_of_text, markdown_table

    cells = [[f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    say(markdown_table([str(name) for name in header], cells, columns_of_text(rows)))
