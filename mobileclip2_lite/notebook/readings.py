"""Recorded studies and the ledger's verdicts, each followed by what it says: written from the lines, never by hand.

A notebook that shows a recorded result shows it with `study` or `verdicts`, so that the sentence below a table changes
with the table.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from mobileclip2_lite.notebook.output import say, table

if TYPE_CHECKING:
    from mobileclip2_lite.studies.recorded import Ladder
    from mobileclip2_lite.studies.verdicts import Entry

MEASURES = ("zero_shot", "retrieval_i2t_r1", "retrieval_t2i_r1")
"""What a study's table shows in a notebook."""


class Standing(NamedTuple):
    """A row of a study in one measure."""

    label: str
    mean: float
    deviation: float
    seeds: int


def verdicts(*words: str, results: str | os.PathLike | None = None) -> dict[str, str]:
    """Show the ledger's claims whose text holds one of some words, with effect and verdict, and read them.

    Args:
        words: such as `ensemble`; without any, all claims.
        results: folder of recorded lines; None for the package's own.

    Returns:
        Claim and measure -> verdict: agrees, disagrees, cannot tell, or not tested.

    Raises:
        ValueError: no claim holds any of the words.
    """
    from mobileclip2_lite.studies import claims, recorded, verdicts  # these import torch, which waits for `setup`
    from mobileclip2_lite.studies.ledger import measured, shown_effect

    wanted = [
        claim for claim in claims.CLAIMS if not words or any(word.lower() in claim.text.lower() for word in words)
    ]
    if not wanted:
        raise ValueError(f"no claim of the ledger holds {' or '.join(words)}: see docs/claims.md")
    found = verdicts.entries(recorded.all_lines(recorded.results_folder(results)), wanted)
    rows = []
    for claim, effect, verdict, _, note in found:
        cells = [claim.text, measured(claim), shown_effect(effect), effect.seeds if effect else "", f"**{verdict}**"]
        rows.append([*cells, note])
    table(["claim", "measure", "effect in points (95 % interval)", "seeds", "verdict", "what would decide it"], rows)
    say("\n".join(f"- {sentence}" for sentence in _decided(found)) or "Nothing is decided.")
    named = {f"{entry.claim.text} ({measured(entry.claim)})": entry.verdict for entry in found}
    tally(named)
    return named


READ = 2
"""So many claims that agree are read one by one; of more the clearest is, because the table has them all."""


def _decided(found: Sequence[Entry]) -> list[str]:
    """What disagrees, one by one, and of what agrees the clearest."""
    agreeing = [entry for entry in found if entry.verdict == "agrees"]
    if len(agreeing) > READ:
        clearest = max(agreeing, key=_clearness)
        said = [f"The clearest of {len(agreeing)} that agree: {_read(clearest)}"]
    else:
        said = [_read(entry) for entry in agreeing]
    return said + [_read(entry) for entry in found if entry.verdict == "disagrees"]


def _clearness(entry: Entry) -> float:
    """How many widths of its interval an effect is away from no effect."""
    effect = entry.found
    if effect is None or effect.low is None or effect.high is None or effect.high <= effect.low:
        return 0.0
    return abs(effect.mean) / (effect.high - effect.low)


def _read(entry: Entry) -> str:
    """One decided claim as a sentence."""
    from mobileclip2_lite.studies.ledger import measured, shown_effect

    claim, effect, verdict, *_ = entry
    what = f"“{claim.text}” ({measured(claim)})"
    unit = "" if effect and effect.times else " points"
    size = f"{shown_effect(effect)}{unit} with {effect.seeds} seeds" if effect else ""
    return f"Our measurement **{verdict}** with {what}: {size}."


def tally(found: Mapping[str, str]) -> dict[str, int]:
    """Say how many claims of some `verdicts` agree, disagree, cannot be told and were not tested; returns the counts.

    Raises:
        ValueError: a verdict is none of the ledger's.
    """
    from mobileclip2_lite.studies.verdicts import VERDICTS

    if strange := sorted(set(found.values()) - set(VERDICTS)):
        raise ValueError(f"{', '.join(strange)}: a verdict is one of {', '.join(VERDICTS)}")
    counts = {verdict: sum(one == verdict for one in found.values()) for verdict in VERDICTS}
    say(
        f"Of {len(found)} claims {counts['agrees']} agree with what is claimed, {counts['disagrees']} disagree, "
        f"{counts['cannot tell']} cannot be told with our seeds, and {counts['not tested']} were not tested."
    )
    return counts


def study(name: str, measures: Sequence[str] = MEASURES, results: str | os.PathLike | None = None) -> dict[str, float]:
    """Show the recorded rows of a study as a table, and read it: what is highest, and whether by more than the seeds.

    Args:
        name: of `studies.questions.STUDIES`.
        measures: columns.
        results: folder of recorded lines; None for the package's own.

    Returns:
        Label -> mean of the first measure, of the rows that were recorded.

    Raises:
        KeyError: there is no such study.
    """
    from mobileclip2_lite.reports.numbers import LABELS
    from mobileclip2_lite.studies import recorded
    from mobileclip2_lite.studies.questions import STUDIES

    if name not in STUDIES:
        raise KeyError(f"{name!r} is no study: one of {', '.join(STUDIES)}")
    whole, ladder = STUDIES[name], recorded.read_rows(results)
    missing = [label for label, row in whole.rows.items() if not ladder.get(row)]
    if len(missing) > len(whole.rows) - 2:
        alone = [label for label in whole.rows if label not in missing]
        what = f"Of “{name}” only {alone[0]} is recorded" if alone else f"No line is recorded of “{name}”"
        say(f"{what}, so nothing is compared: `mobileclip2-lite study '{name}' --recipe study --record`.")
        return {}
    there = recorded.there(whole, ladder)
    table(*recorded.study_table(ladder, there, measures))
    ranked = {measure: _standings(ladder, there.rows, measure) for measure in measures}
    sentences = [_highest(LABELS[measure], standings) for measure, standings in ranked.items()]
    if missing:
        sentences.append(f"Not recorded: {', '.join(missing)}.")
    say(" ".join(sentences))
    return {one.label: one.mean for one in ranked[measures[0]]}


def _standings(ladder: Ladder, rows: Mapping[str, str], measure: str) -> list[Standing]:
    """The rows in one measure, the highest first."""
    from mobileclip2_lite.reports.numbers import mean_and_deviation

    found = []
    for label, row in rows.items():
        mean, deviation = mean_and_deviation([line["metrics"] for line in ladder[row]], measure)
        found.append(Standing(label, mean, deviation or 0.0, len(ladder[row])))
    return sorted(found, key=lambda one: -one.mean)


def _highest(measure: str, standings: Sequence[Standing]) -> str:
    """Which row is highest in one measure, and whether it stands out."""
    from mobileclip2_lite.reports.numbers import percent
    from mobileclip2_lite.studies.verdicts import LEAST_SEEDS

    first, second = standings[:2]
    lead = first.mean - second.mean
    said = f"In {measure}, **{first.label}** is highest ({percent(first.mean)} %, {_seeds(first.seeds)})"
    said += f", {100 * lead:.1f} points above {second.label}"
    if min(first.seeds, second.seeds) < LEAST_SEEDS:
        return f"{said}, with too few seeds to rank them."
    within = lead <= first.deviation + second.deviation
    return f"{said}, {'less' if within else 'more'} than the two spread over their seeds."


def _seeds(count: int) -> str:
    return "one seed" if count == 1 else f"{count} seeds"


def temperatures(results: str | os.PathLike | None = None) -> dict[str, float]:
    """Say where each teacher's recorded curve over logit scales is highest, and which scales are not told from it.

    Args:
        results: folder of recorded lines; None for the package's own.

    Returns:
        Teacher -> the best of its recorded scales.
    """
    from mobileclip2_lite.studies import recorded

    best = {}
    for name, search in recorded.searches(recorded.read_rows(results)).items():
        rows = recorded.full_rows(search)
        top = max(rows, key=lambda row: row["mean"])
        near = [row for row in rows if top["mean"] - row["mean"] <= (top["std"] or 0.0) + (row["std"] or 0.0)]
        others = [f"{row['scale']:.3g}" for row in near if row is not top]
        say(
            f"{name}: highest at logit scale **{top['scale']:.3g}** ({100 * top['mean']:.1f} % zero-shot), of "
            f"{len(rows)} scales from {rows[0]['scale']:.3g} to {rows[-1]['scale']:.3g}, "
            f"{_seeds(len(top['values']))} each; within the seeds' spread of it: {', '.join(others) or 'none'}."
        )
        best[name] = top["scale"]
    if not best:
        say("No line is recorded of “temperature”: `mobileclip2-lite study temperature --recipe study --record`.")
    return best


def at_the_top(sweep: Mapping[float, Sequence[float]]) -> list[float]:
    """The settings of a sweep that two standard errors of the difference do not tell from the best, sorted.

    Args:
        sweep: setting -> its result at each seed, the same for all; one seed has no error, so nothing is near it.
    """
    import statistics

    mean = {setting: statistics.fmean(results) for setting, results in sweep.items()}
    square = {k: statistics.variance(some) / len(some) if len(some) > 1 else 0.0 for k, some in sweep.items()}
    best = max(mean, key=mean.__getitem__)
    return sorted(k for k in sweep if mean[best] - mean[k] <= 2 * (square[best] + square[k]) ** 0.5)
