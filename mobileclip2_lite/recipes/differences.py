"""In what two recipes differ, field by field, with what the field means."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
from typing import NamedTuple

from mobileclip2_lite.recipes.settings import Recipe
from mobileclip2_lite.work.tables import markdown_table


class Difference(NamedTuple):
    """One setting in which two recipes differ."""

    field: str
    """Where: `student.batch_size`."""
    first: str
    """Its value in the first recipe."""
    second: str
    """Its value in the second."""
    doc: str
    """What the setting is, with unit and source."""


def differences(first: Recipe, second: Recipe, where: str = "") -> list[Difference]:
    """Every setting in which two recipes (or two of their parts, of the same type) differ, in the order of the fields.

    Raises:
        TypeError: the two are not of the same type.
    """
    if type(first) is not type(second):
        raise TypeError(f"cannot compare {type(first).__name__} with {type(second).__name__}")
    docs, rows = field_docs(type(first)), []
    for field in dataclasses.fields(first):
        one, two = getattr(first, field.name), getattr(second, field.name)
        if dataclasses.is_dataclass(one):
            rows += differences(one, two, f"{where}{field.name}.")
        elif one != two:
            rows.append(Difference(where + field.name, _shown(one), _shown(two), docs.get(field.name, "")))
    return rows


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(f"{v[0]} {v[1]:g}" if isinstance(v, tuple) else str(v) for v in value) or "none"
    if isinstance(value, float):
        return min(str(value), f"{value:.3g}", key=len)  # 1 / 30 as 0.0333
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def difference_table(first: Recipe, second: Recipe) -> str:
    """The differences as a Markdown table."""
    rows = ((row.field, row.first, row.second, row.doc) for row in differences(first, second))
    return markdown_table(("setting", first.name, second.name, "what it is"), rows, text_columns=4)


@functools.cache
def field_docs(kind: type) -> dict[str, str]:
    """The string under each field of one of the recipes' dataclasses."""
    body = ast.parse(inspect.getsource(kind)).body[0].body
    return {
        field.target.id: " ".join(doc.value.value.split())
        for field, doc in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(doc, ast.Expr) and isinstance(doc.value, ast.Constant)
    }
