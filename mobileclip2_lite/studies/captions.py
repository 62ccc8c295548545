"""What is shown about captions: texts below their image, the next word's probabilities, our results beside the paper's.

Paper: MobileCLIP2 (arXiv 2508.20691) judges captioners by their students (`paper.PAPER`).
Used by notebooks/20_captioner_finetuning.ipynb.
"""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from mobileclip2_lite.reports import figures
from mobileclip2_lite.reports.labels import literal
from mobileclip2_lite.studies.paper import PAPER
from mobileclip2_lite.studies.recorded import MISSING, Ladder, values

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL import Image

    from mobileclip2_lite.models.loaded import LoadedModel

PAPER_EQUAL = 1.0
"""Points by which two of the paper's rows may differ and still count as equal here; it gives few deviations."""
MEASURES = {"zero-shot": ("zero_shot",), "retrieval": ("retrieval_i2t_r1", "retrieval_t2i_r1")}
"""What stands for the paper's ImageNet and Flickr30k columns; the mean where there are two."""

TRUTH = {
    "objects_precision": "objects: true of said (%)",
    "objects_recall": "said of true (%)",
    "colours_precision": "colours: true of said (%)",
    "colours_recall": "said of true (%)",
    "relations_precision": "relations: true of said (%)",
    "relations_recall": "said of true (%)",
    "length": "words",
}
"""Measures of `metrics` that say how true captions are, and what they are called."""
DIVERSITY = {
    "objects_coverage": "objects named by any (%)",
    "unique": "unique (%)",
    "distinct_1": "distinct-1 (%)",
    "distinct_2": "distinct-2 (%)",
    "self_bleu": "self-BLEU (%)",
    "vocabulary": "vocabulary",
    "entropy": "entropy of objects (bits)",
}
"""Those that say how varied they are."""


class Question(NamedTuple):
    """What one change of the captions does to a student."""

    asked: str
    before: str
    """Row of the ladder."""
    after: str
    paper: tuple[str, str, str]
    """Table of `paper.PAPER`, its row before, its row after."""


QUESTIONS = (
    Question(
        "captions beside the alt-text",
        "no captions",
        "+ ensemble",
        ("texts", "real only", "both, losses summed"),
    ),
    Question(
        "fine-tuned captioner for pretrained",
        "captions: pretrained",
        "captions: short",
        ("captions", "DFN-2B, not fine-tuned", "fine-tuned on MSCOCO-38k"),
    ),
    Question(
        "detailed captions for short",
        "captions: short",
        "captions: detailed",
        ("captions", "fine-tuned on MSCOCO-38k", "fine-tuned on DOCCI"),
    ),
    Question(
        "several captioners for one",
        "captions: short",
        "+ ensemble",
        ("captions", "fine-tuned on MSCOCO-38k", "5 models, 2 captions each"),
    ),
)


def measures(rows: Mapping[str, Mapping[str, Any]], columns: Mapping[str, str]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of some measures of `metrics`; `–` where a measure says nothing.

    Args:
        rows: label to what `measure_captions` gives.
        columns: measure to its name; a name with (%) is shown in percent.
    """

    def cell(value: float | None, percent: bool) -> str:
        if value is None:
            return "–"
        return str(value) if isinstance(value, int) else f"{value * (100 if percent else 1):.3g}"

    cells = [[label, *(cell(row.get(k), "(%)" in name) for k, name in columns.items())] for label, row in rows.items()]
    return ["", *columns.values()], cells


def written(
    axes: Axes, picture: Any, texts: Sequence[str], right: Sequence[bool] | None = None, wrap: int = 34
) -> None:
    """A picture, and below it what was written about it.

    Args:
        axes: to draw on.
        picture: uint8 (H, W, 3), a PIL image or a tensor (3, H, W).
        texts: one paragraph each.
        right: whether each is true: ✓ or ✗ stands before it.
        wrap: characters a line.
    """
    signs = ["•"] * len(texts) if right is None else ["✓" if good else "✗" for good in right]
    told = [f"{sign} {text}" for sign, text in zip(signs, texts, strict=True)]
    lines = "\n".join(textwrap.fill(one, wrap, subsequent_indent="   ") for one in told)
    axes.set_axis_off()
    frame = axes.inset_axes((0.0, 0.52, 1.0, 0.48))
    frame.imshow(figures.pixels_of(picture), interpolation="nearest")
    frame.set_axis_off()
    axes.text(0.0, 0.48, literal(lines), va="top", size=7.5, transform=axes.transAxes)


@torch.inference_mode()
def next_words(
    loaded: LoadedModel, picture: Image.Image, text: str, temperature: float = 1.0, most: int = 12
) -> tuple[list[str], list[float]]:
    """The `most` probable tokens after the beginning `text` of a caption, and their probabilities, best first."""
    from mobileclip2_lite.models.coca import decode, image_states, special_tokens, text_states

    start, end, pad = special_tokens(loaded)
    model, tokens = loaded.model, loaded.tokenizer([text] if text else [""])
    tokens = tokens[:, : int((tokens[0] == end).nonzero()[0, 0])]
    tokens = torch.cat([tokens, torch.full_like(tokens[:, :1], pad)], 1)  # the class token looks past one padding
    _, image = image_states(model, loaded.preprocess(picture)[None])
    _, states = text_states(model, tokens)
    logits = decode(model, image, states[:, :-1])[0, -1] @ model.text_decoder.text_projection
    chances, best = (logits / temperature).softmax(-1).topk(most)
    names = {start: "(start)", end: "(end)", pad: "(padding)"}
    spoken = [names.get(token) or loaded.tokenizer.decode([token]).strip() for token in best.tolist()]
    return spoken, chances.tolist()


def nucleus(axes: Axes, words: Sequence[str], chances: Sequence[float], top_p: float) -> None:
    """The next word's probabilities as bars: filled those that top-p sampling draws from, empty the others."""
    before = [sum(chances[:k]) for k in range(len(chances))]
    for place, (chance, more_probable) in enumerate(zip(chances, before, strict=True)):
        inside = more_probable < top_p
        look = {"color": figures.COLOURS["student"]} if inside else {"facecolor": "white", "hatch": "////"}
        axes.barh(place, 100 * chance, 0.75, edgecolor=figures.COLOURS["student" if inside else "chance"], **look)
    axes.set_yticks(range(len(words)), words, size=8)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("probability (%)")


def agreement(ladder: Ladder) -> tuple[list[str], list[list[str]]]:
    """Header and rows: each of `QUESTIONS` answered by the paper and by the recorded runs, in points.

    Ours counts as equal within the standard deviation of the difference over the seeds, the paper's within
    `PAPER_EQUAL` points; the two agree if both are up, both down or both equal.
    """
    rows = []
    for question in QUESTIONS:
        for measure, names in MEASURES.items():
            theirs = _paper_difference(*question.paper, column=1 + list(MEASURES).index(measure))
            before, after = (_seeds(ladder, row, names) for row in (question.before, question.after))
            row = [question.asked, measure, f"{theirs:+.1f}"]
            if not before or not after:
                rows.append([*row, MISSING, ""])
                continue
            ours = statistics.fmean(after) - statistics.fmean(before)
            spread = sum(statistics.stdev(seeds) ** 2 if len(seeds) > 1 else 0.0 for seeds in (before, after)) ** 0.5
            same = _sign(theirs, PAPER_EQUAL) == _sign(ours, spread)
            rows.append([*row, f"{ours:+.1f} ± {spread:.1f}", "yes" if same else "no"])
    return ["change", "measure", "paper", "ours", "agree"], rows


def _paper_difference(table: str, before: str, after: str, column: int) -> float:
    rows = {row[0]: row for row in PAPER[table][1]}
    return rows[after][column] - rows[before][column]


def _seeds(ladder: Ladder, row: str, measures: Sequence[str]) -> list[float]:
    """Percent right, the mean over the measures, a value a seed."""
    each = [values(ladder, row, measure) for measure in measures]
    return [100 * statistics.fmean(found) for found in zip(*each, strict=True)]


def _sign(difference: float, equal: float) -> int:
    return 0 if abs(difference) <= equal else 1 if difference > 0 else -1
