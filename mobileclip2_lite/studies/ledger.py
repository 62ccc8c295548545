"""The ledger docs/claims.md: every claim with effect, interval, seeds and verdict, made from recorded lines alone.

    mobileclip2-lite claims

A test makes the page again and compares. Before the claims stands what is left of the headline beside fair baselines;
after them every recorded row, and what clean data entered where.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mobileclip2_lite.studies import clean_data, effects, hills, intervals, recorded
from mobileclip2_lite.studies.claim import MEASURES, Claim
from mobileclip2_lite.studies.claims import CLAIMS
from mobileclip2_lite.studies.effects import law_of, rate
from mobileclip2_lite.studies.questions import STUDIES
from mobileclip2_lite.studies.rows import PRICE, ROWS, SWEEP
from mobileclip2_lite.studies.verdicts import FALSE_SHARE, VERDICTS, Entry, entries
from mobileclip2_lite.work.files import write_atomic
from mobileclip2_lite.work.tables import markdown_table

HOW_JUDGED = f"""\
- **The paper's** is its own effect, in points of ImageNet or Flickr30k, or how many times: its sign is what is
  claimed, its size belongs to its scale. Of what its table does not show, the claim is ours.
- **Retrieval** is R@5, the mean of both directions. R@1 stands in the rows below; it is too near 0 here.
- **No difference**, where that is claimed, is one within two points and within a fifth of what it is compared
  with (two points of 2 % would be everything): the whole interval has to lie within.
- **Intervals** are each claim's own: Student's t over seeds, bootstrap over items; the pictures of a name and
  the captions of a scene count as one item. **Verdicts** are of all claims together: of those that are decided
  about {100 * FALSE_SHARE:.0f} % may be wrong (Benjamini and Hochberg); what is clear only by itself is not decided.
- **Rows that guess** (within three standard errors of chance) decide nothing about each other.
- **To know**: with how many seeds a claim would be decided, in four of five such studies, if its effect and its
  spread are as measured, of which three seeds know little; then what else differs between the rows.
- **Settings**: the control's rate is the best of five, the student's of three, on validation data of a seed that
  no row has (lab_log.md). All rows inherit one of the two; one that wants another rate is undersold."""
"""The rules, in the order in which a reader asks for them."""


def ledger(lines: Sequence[Mapping[str, Any]], found: Sequence[Entry] | None = None) -> str:
    """The text of docs/claims.md; `found` are the entries of `lines`, where they are known already."""
    found = entries(lines) if found is None else found
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
        f"{len(found)} claims: {summary}.",
        "",
        HOW_JUDGED,
        "",
        _table(
            ("claim", "source", "the paper's", "measure", "effect", "seeds", "verdict", "to know"),
            [_claim_row(entry) for entry in found],
        ),
    ]
    out += [
        "",
        *_price(lines),
        *_laws(lines),
        *_hills(lines),
        *_row_table(lines),
        "",
        *clean_data.section(),
        *_symptoms(lines),
    ]
    return "\n".join(out) + "\n"


def measured(claim: Claim) -> str:
    """What a claim looks at, in words."""
    words = {"samples": "samples to that zero-shot", "live": "seconds a sample"}
    if "seconds" in claim.kind:
        return "seconds to that zero-shot"
    return words.get(claim.kind, MEASURES[claim.measure])


def _claim_row(entry: Entry) -> tuple[object, ...]:
    claim, effect = entry.claim, entry.found
    theirs = (
        "" if claim.theirs is None else f"× {claim.theirs:g}" if claim.kind != "difference" else f"{claim.theirs:+.1f}"
    )
    seeds = effect.seeds if effect else ""
    notes = "; ".join(filter(None, (entry.note, claim.note)))
    return claim.text, claim.source, theirs, measured(claim), shown_effect(effect), seeds, entry.verdict, notes


def _price(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Seconds of the data's making, where they are recorded."""
    found = recorded.by_row(lines).get(PRICE, ())
    if not found:
        return []
    stages = ", ".join(f"{name} {np.mean([line['stages'][name] for line in found]):.0f}" for name in found[0]["stages"])
    rates = ", ".join(f"`{row}` {1_000 * rate(row, found):.1f}" for row in found[0]["rates"])
    return [
        "## The price of the data",
        "",
        f"CPU seconds for {found[0]['pairs']:,} pairs, mean of {len(found)}: {stages}; and for 1,000 samples of a",
        f"row's training: {rates} (`{found[0]['command']}`). The time to an accuracy is",
        "samples times that; where a claim counts the price, a row that learns from captions has their seconds added,",
        "one that distils those of reinforcement. Samples to an accuracy are read from the learning curves on the",
        "validation split: the first evaluation that is there, so that a student's factor is too small, if anything.",
        "",
    ]


def _laws(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """The fitted laws with their residuals, and the run that tries each."""
    rows = recorded.by_row(lines)
    out = []
    for claim in (claim for claim in CLAIMS if claim.fitted):
        of = claim.kind.removeprefix("law of ")
        found = law_of([rows.get(row, ()) for row in (*claim.fitted, claim.first)], of)
        if found is not None:
            law = found.law
            rest = ", ".join(f"{100 * value:+.1f}" for value in law.residuals)
            law_of_n = f"{law.floor:.2f} + {law.size:.3g} n^-{law.power:.2f}"
            shares = (f"{100 * (1 - error):.1f}" for error in (found.said, found.measured))
            out.append((of, law_of_n, rest, f"{found.n:,.0f}", *shares))
    if not out:
        return []
    return [
        "## Laws, and the run that tries each",
        "",
        "The student's zero-shot error over n, fitted to the smaller runs' means; the largest run is held back.",
        "",
        _table(("n", "error", "residuals (points)", "tried at", "said (% right)", "measured (% right)"), out),
        "",
    ]


def _hills(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each teacher's accuracy over its logit scale, and where the top lies."""
    found = hills.section(lines)
    if found is None:
        return []
    return [
        "## Where each hill's top lies",
        "",
        f"Zero-shot (% right) of the student of one teacher, {SWEEP:,} samples, over its logit scale. A scale",
        "is not told from the best where the interval of their difference, paired by seed, holds zero. The best is the",
        "highest of these same means, which flatters it.",
        "",
        _table(*found),
        "",
    ]


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    return markdown_table(header, rows, text_columns=len(header))


def _headline(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Student, control and fair baselines side by side, with intervals, and the teachers themselves."""
    rows = recorded.by_row(lines)
    out = [
        "## What is left beside fair baselines",
        "",
        "% right with 95 % intervals. The student's captions and targets come from models that read clean captions, so",
        "plain training on pairs and on those same clean captions stands beside it, and the teachers themselves.",
        "",
    ]
    table: list[Sequence[object]] = []
    for label, row in STUDIES["baselines"].rows.items():
        some = rows.get(row, ())
        found = [_level(some, measure) for measure in MEASURES]
        samples = f"{some[0]['samples']:,}" if some else ""
        table.append((label, samples, *found, len(some) or "not recorded"))
    for card in clean_data.cards("teachers"):
        values = (f"{100 * effects.level(card, measure):.1f}" for measure in MEASURES)
        table.append((f"{card['name']}, a teacher", "", *values, ""))
    return [*out, _table(("", "samples", *MEASURES.values(), "seeds"), table)]


def _level(lines: Sequence[Mapping[str, Any]], measure: str) -> str:
    """A row's mean with its interval."""
    found = effects.standing(lines, measure)
    if found is None:
        return ""
    shown = f"{100 * found.mean:.1f}"
    return shown if found.low is None else f"{shown} ({100 * max(0, found.low):.1f} to {100 * found.high:.1f})"


def shown_effect(effect: intervals.Interval | None) -> str:
    """An effect in points, or how many times, with its interval; empty where there is none."""
    if effect is None:
        return ""
    if effect.times:
        ends = [math.exp(end) for end in (effect.low, effect.high) if end is not None]
        return f"× {math.exp(effect.mean):.2g}" + (f" ({ends[0]:.2g} to {ends[1]:.2g})" if ends else "")
    if effect.low is None or effect.high is None:
        return f"{100 * effect.mean:+.1f}"
    return f"{100 * effect.mean:+.1f} ({100 * effect.low:+.1f} to {100 * effect.high:+.1f})"


def _row_table(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Every recorded row with its means."""
    rows = recorded.by_row(lines)
    header = ["row", "samples", *MEASURES.values(), "seeds", "seconds", "command"]
    table = []
    for row in [row for row in ROWS if row in rows]:
        some = rows[row]
        means = [np.mean([effects.level(line, measure) for line in some]) for measure in MEASURES]
        cells = [row, f"{some[0]['samples']:,}", *(f"{100 * mean:.1f}" for mean in means), str(len(some))]
        cells += [f"{np.mean([line['seconds'] for line in some]):.0f}", f"`{some[0]['command']}`"]
        table.append(cells)
    about = "Seconds are of one thread on a machine that did other work besides."
    return ["## The rows", "", about, "", _table(header, table)]


def _symptoms(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """What `symptoms` recorded, the newest line of a case."""
    found = {line["case"]: line for line in lines if "case" in line}
    if not found:
        return []
    out = [
        "",
        "## Trainings that fail on purpose",
        "",
        f"256 pairs, 25 passes (`{next(iter(found.values()))['command']}`); what they teach stands in",
        "[when_it_does_not_learn.md](when_it_does_not_learn.md).",
        "",
    ]
    header = (
        "case",
        "changed",
        "loss at the end",
        "guessing",
        "logit scale",
        "text cosine",
        "zero-shot (%)",
        "it shows",
    )
    rows = []
    for name, line in found.items():
        changed = ", ".join(f"{key} {value:g}" for key, value in line["changes"].items())
        numbers = (f"{line['loss']:.2f}", f"{line['guessing']:.2f}", f"{line['logit_scale']:.1f}")
        shares = f"{line['same_text']:.2f}", f"{100 * line['zero_shot']:.1f}"
        rows.append((name, changed, *numbers, *shares, line["shows"]))
    return [*out, _table(header, rows)]


def write(path: Path, results: Path) -> list[Entry]:
    """Write the ledger and return its entries."""
    lines = recorded.all_lines(results)
    found = entries(lines)
    write_atomic(path, ledger(lines, found).encode())
    return found
