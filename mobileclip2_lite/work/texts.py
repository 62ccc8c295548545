"""Texts in every form in which users have them: strings, bytes, lists, strings that are lists, rows of a text's parts.

Paper: none; ours. Pairs and the evaluation of a user's own images take texts through here, so that a text is taken by
both or counted by both under the same word. Reads and writes nothing.
"""

from __future__ import annotations

import ast
import codecs
import json
import math
import unicodedata
from collections.abc import Mapping
from typing import Any

from mobileclip2_lite.work.bad_sample import BadSample

PARTS = ("raw", "text", "caption", "sentence", "txt", "description", "value")
"""Names under which a text stands in a row of its own, as COCO's and Flickr30k's captions do."""


_UNSEEN = {"Cc", "Cf", "Zs", "Zl", "Zp"}
"""Unicode's categories of signs that cannot be seen."""


class NoText(BadSample):
    """What a user gave is no text."""


def texts_of(value: Any) -> list[str]:
    """All texts of a user's value, without the white space around them and without empty ones; at least one.

    Args:
        value: a string, UTF-8 (or UTF-16, with its mark) bytes, a mapping with one of `PARTS`, a list of these, or a
            string that is such a list (`"['a dog', 'a hound']"`, as CSV files and some data sets have them).

    Raises:
        NoText: there is none; `reason` is `no_text` (missing), `empty_text`, `text_not_string` or `text_not_utf8`.
    """
    values = list(value) if isinstance(value, (list, tuple)) or getattr(value, "ndim", 0) else [value]
    present = [one for one in values if not _missing(one)]
    if not present:
        raise NoText("no_text", "the text is missing")
    texts = [text for one in present for text in _strings(one) if not is_blank(text)]
    if not texts:
        raise NoText("empty_text", "the text is empty")
    return texts


def is_blank(text: str) -> bool:
    """Whether a text shows nothing: white space, control characters, signs of no width (U+200B, U+FEFF)."""
    return all(unicodedata.category(sign) in _UNSEEN for sign in text)


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _strings(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        part = next((name for name in PARTS if isinstance(value.get(name), (str, bytes))), None)
        if part is None:
            raise NoText(
                "text_not_string", f"the text is a mapping of {sorted(map(str, value))}: one of {PARTS} is read"
            )
        value = value[part]
    try:
        text = _decoded(value) if isinstance(value, bytes) else value
        if not isinstance(text, str):
            raise NoText("text_not_string", f"the text is of type {type(text).__name__}")
        text.encode()
    except UnicodeError as error:
        raise NoText("text_not_utf8", str(error)) from error
    text = text.strip()
    return _listed(text) or [text]


def _decoded(data: bytes) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16")
    return data.decode("utf-8-sig")


def _listed(text: str) -> list[str]:
    """The texts of a string that is a list of strings, by JSON or by Python; of any other string none."""
    if not (text.startswith(("['", '["')) and text.endswith(("']", '"]'))):
        return []
    for read in (json.loads, ast.literal_eval):
        try:
            values = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(values, list) and values and all(isinstance(one, str) for one in values):
            return [one.strip() for one in values]
    return []
