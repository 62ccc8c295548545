"""What clean data each embedded model saw, from its card: a section of docs/claims.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mobileclip2_lite.work.tables import markdown_table


def section() -> list[str]:
    """What clean data each embedded model saw, from the cards."""
    out = [
        "## What clean data entered where",
        "",
        "A student sees none of it, but its targets and synthetic captions come from models that did.",
        "",
    ]
    found = [card for kind in ("captioners", "scorers", "teachers") for card in cards(kind)]
    header = ("model", "clean captions that it was trained on", "wording")
    return [
        *out,
        markdown_table(header, [(card["name"], _clean(card), _wording(card)) for card in found], text_columns=3),
    ]


def cards(kind: str) -> list[dict[str, Any]]:
    """The cards of the models that were trained in the embedded world."""
    from mobileclip2_lite.models.embedded import data_folder

    paths = sorted((data_folder() / kind).glob("lite-*/card.json"))
    return [json.loads(path.read_text("utf-8")) for path in paths]


def _clean(card: Mapping[str, Any]) -> str:
    if "captions" in card:  # a teacher
        parts = [card, *([card["start"]] if isinstance(card.get("start"), dict) else [])]
        seen = sum(part["samples"] for part in parts)
        return f"{100 * card['captions']:.0f} % of {seen:,} scenes, each seen once"
    if "scenes" in card:  # the scorer
        return f"{card['scenes']:,} annotated scenes, {', '.join(card['styles'])}"
    return card["data"] if "annotated" in card.get("data", "") else "none"


def _wording(card: Mapping[str, Any]) -> str:
    if card.get("worded"):
        return f"plain, then {100 * card['worded']:.0f} % learned"
    return card.get("wording", "plain")
