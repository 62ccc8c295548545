"""The ledger docs/claims.md: every claim with effect, interval, seeds and verdict, made from recorded lines alone.

    mobileclip2-lite claims

A test makes the page again and compares. Before the claims stands what is left of the headline beside fair baselines;
after them every recorded row, and what clean data entered where.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mobileclip2_lite.studies import intervals, recorded
from mobileclip2_lite.studies.claims import GROUPS, MEASURES, Entry, entries, hits_by_seed
from mobileclip2_lite.studies.rows import ROWS, STUDIES

VERDICTS = ("agrees", "disagrees", "cannot tell", "not tested")


def ledger(lines: Sequence[Mapping[str, Any]]) -> str:
    """The text of docs/claims.md."""
    found = entries(lines)
    counts = {verdict: sum(entry.verdict == verdict for entry in found) for verdict in VERDICTS}
    summary = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    out = [
        "# What the papers claim, and what was measured here",
        "",
        "Made by `mobileclip2-lite claims` from `mobileclip2_lite/studies/results/`; a test makes it again. Measured",
        "on the test split of the embedded world, which no search saw, with captions in a wording that no model was",
        "trained on. Effects are points of percent with 95 % intervals over seeds and test items, paired by seed;",
        "every seed has pairs, views, captions and weights of its own. Fewer than three seeds are never agreement.",
        "",
        *_headline(lines),
        "",
        "## The claims",
        "",
        f"{len(found)} claims: {summary}. Where no difference is claimed, one within two points counts as none.",
        "",
        "| claim | source | measure | effect | seeds | verdict |",
        "|---|---|---|---|---|---|",
    ]
    for claim, effect, verdict, _ in found:
        out.append(
            f"| {claim.text} | {claim.source} | {MEASURES[claim.measure]} | {shown_effect(effect)} | "
            f"{effect.seeds if effect else ''} | {verdict} |"
        )
    out += ["", *_row_table(lines), "", *_clean_data()]
    return "\n".join(out) + "\n"


def _headline(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Student, control and fair baselines side by side, with intervals, and the teachers themselves."""
    rows = recorded.by_row(lines)
    out = [
        "## What is left beside fair baselines",
        "",
        "% right with 95 % intervals. The student's captions and targets come from models that read clean captions, so",
        "plain training on pairs and on those same clean captions stands beside it, and the teachers themselves.",
        "",
        "| | samples | " + " | ".join(MEASURES.values()) + " | seeds |",
        "|---|" + "---|" * (len(MEASURES) + 2),
    ]
    for label, row in STUDIES["baselines"].rows.items():
        some = rows.get(row, ())
        found = [_level(some, measure) for measure in MEASURES]
        samples = f"{some[0]['samples']:,}" if some else ""
        out.append(f"| {label} | {samples} | {' | '.join(found)} | {len(some) or 'not recorded'} |")
    for card in _cards("teachers"):
        values = " | ".join(f"{100 * card['metrics'][measure]:.1f}" for measure in MEASURES)
        out.append(f"| {card['name']}, a teacher | | {values} | |")
    return out


def _level(lines: Sequence[Mapping[str, Any]], measure: str) -> str:
    """A row's mean with its interval."""
    hits = hits_by_seed(lines, measure)
    if not hits:
        return ""
    found = intervals.interval(np.stack(list(hits.values())), GROUPS.get(measure, 1))
    shown = f"{100 * found.mean:.1f}"
    return shown if found.low is None else f"{shown} ({100 * max(0, found.low):.1f} to {100 * found.high:.1f})"


def shown_effect(effect: intervals.Interval | None) -> str:
    """An effect in points with its interval, empty where there is none."""
    if effect is None:
        return ""
    if effect.low is None or effect.high is None:
        return f"{100 * effect.mean:+.1f}"
    return f"{100 * effect.mean:+.1f} ({100 * effect.low:+.1f} to {100 * effect.high:+.1f})"


def _row_table(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Every recorded row with its means."""
    rows = recorded.by_row(lines)
    header = ["row", "samples", *MEASURES.values(), "seeds", "CPU seconds", "command"]
    out = ["## The rows", "", "| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for row in [row for row in ROWS if row in rows]:
        some = rows[row]
        means = [np.mean([line["metrics"][measure] for line in some]) for measure in MEASURES]
        cells = [row, f"{some[0]['samples']:,}", *(f"{100 * mean:.1f}" for mean in means), str(len(some))]
        cells += [f"{np.mean([line['seconds'] for line in some]):.0f}", f"`{some[0]['command']}`"]
        out.append("| " + " | ".join(cells) + " |")
    return out


def _clean_data() -> list[str]:
    """What clean data each embedded model saw, from the cards."""
    out = [
        "## What clean data entered where",
        "",
        "A student sees none of it, but its targets and synthetic captions come from models that did.",
        "",
        "| model | clean captions that it was trained on | wording |",
        "|---|---|---|",
    ]
    for card in (card for kind in ("captioners", "scorers", "teachers") for card in _cards(kind)):
        out.append(f"| {card['name']} | {_clean(card)} | {_wording(card)} |")
    return out


def _cards(kind: str) -> list[dict[str, Any]]:
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


def write(path: Path, results: Path) -> list[Entry]:
    """Write the ledger and return its entries."""
    lines = recorded.all_lines(results)
    path.write_text(ledger(lines), "utf-8")
    return entries(lines)
