"""The page docs/photographs.md: the study on photographs and the one on forgetting, made from recorded lines alone.

    mobileclip2-lite claims

A test makes the page again and compares. What is not recorded says so. Taught by notebooks/80_your_own_data.ipynb.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from mobileclip2_lite.reports.page import Block, Heading, Text, to_markdown
from mobileclip2_lite.studies import arms, forgetting, photographs, recorded
from mobileclip2_lite.studies.arms import Line
from mobileclip2_lite.work.files import write_atomic

TITLE = "What was measured on photographs"
ABOUT = """\
Made by `mobileclip2-lite claims` from `mobileclip2_lite/studies/results/`; a test makes it again. Percent right, the
mean over seeds; differences are points of percent with 95 % intervals over seeds and test items, paired by both. Seeds
differ in weights and order; pairs and stored views are the same for all, so that an interval says what other trainings
on these pairs would give, not what other pairs would. Each interval stands alone: of twenty that leave zero out, one is
expected to do so by luck, so believe columns that agree before one number. Teachers have seen far more than the pairs
that are listed; a student inherits that, a control does not, which is what is measured."""
PHOTOGRAPHS = {
    "i2t_r1": "image to text, R@1",
    "t2i_r1": "text to image, R@1",
    "i2t_r10": "image to text, R@10",
    "t2i_r10": "text to image, R@10",
    "names_top1": "unseen names, top 1",
    "names_top5": "top 5",
}
"""Measure -> column."""
ORDER = ("teacher", "control", "captions", "reinforced")
"""Of the rows, whenever they were recorded."""
KNOWN = {
    f"{when}_{name}": f"{label}, {world}"
    for when, world in (("old", "old world"), ("new", "new world"))
    for name, label in (
        ("zero_shot", "naming"),
        ("retrieval_i2t_r1", "image to text"),
        ("retrieval_t2i_r1", "text to image"),
    )
}
ELSEWHERE = "python -m mobileclip2_lite.studies.photographs --captions 'hf:lmms-lab/flickr30k?split=test'"


def page(photographs_lines: Sequence[Line], forgetting_lines: Sequence[Line]) -> str:
    """The text of docs/photographs.md."""
    blocks = [Text(ABOUT), *_photographs(photographs_lines), *_forgetting(forgetting_lines)]
    return to_markdown(TITLE, blocks)


def write(path: Path, results: Path) -> None:
    """Write the page."""
    lines = [recorded.read_lines(results / study.FILE) for study in (photographs, forgetting)]
    write_atomic(path, page(*lines).encode())


def _photographs(lines: Sequence[Line]) -> list[Block]:
    lines = sorted(lines, key=lambda line: _place(line["arm"]))
    students = [arm for arm in arms.by_arm(lines) if arm.startswith("reinforced")]
    compared = [(student, control) for student in students for control in ("control", "captions")]
    compared += [("captions", "control"), *zip(students[1:], students, strict=False)]
    recipe = photographs.RECIPE
    return [
        Heading("A student of photographs, and its controls"),
        Text(
            f"Trainings of `{recipe.model}` at {recipe.image_size} pixels, {recipe.samples:,} samples each, "
            "alike but for what they read. `control`: photographs with one human caption. `captions`: the same with "
            "all human captions, in turn. `reinforced`: these and the embeddings of two teachers that were made from "
            "packages (data/README.md), of so many stored views. Measured on photographs that nothing has seen, five "
            "captions each, and on photographs of classes whose names no student has read; the teachers know a "
            "thousand names, these among them, so that for a teacher none is unseen."
        ),
        Text(_counts(lines)),
        arms.table(lines, PHOTOGRAPHS, compared, "photographs"),
        *_commands(lines),
        Text(
            f"The same on a data set of the hub, on a machine with a network: `{ELSEWHERE}`. Any folder, table, tars "
            "or `hf:NAME` with captioned photographs will do."
        ),
    ]


def _place(arm: str) -> tuple[int, int]:
    """Where a row stands: by kind, students by their views."""
    kind = next(k for k, kind in enumerate(ORDER) if arm.startswith(kind))
    views = re.search(r"(\d+) views", arm)
    return kind, int(views[1]) if views else 0


def _counts(lines: Sequence[Line]) -> str:
    if not lines:
        return "Not recorded yet."
    images = lines[-1]["images"]
    named = f" and {images['names']} of unseen names" if "names" in images else ""
    return f"{images['train']:,} photographs to train on, {images['test']} held out with captions{named}."


def _forgetting(lines: Sequence[Line]) -> list[Block]:
    tune = forgetting.TUNE
    pairs = f"{lines[-1]['pairs']} noisy pairs" if lines else "a few hundred noisy pairs"
    return [
        Heading("What fine-tuning on a small set forgets"),
        Text(
            f"`{forgetting.START}` goes on from its weights on {pairs} of a small world of {forgetting.NEW.names} "
            f"names ({tune.samples:,} samples), with the contrast alone (`plain`) or on the same pairs reinforced by "
            "the embedded teachers (`reinforced`: `reinforce`, then `train --start`). The old world is the one that "
            "it knew before."
        ),
        arms.table(
            lines,
            KNOWN,
            [("plain", "before"), ("reinforced", "before"), ("reinforced", "plain")],
            "drawn worlds",
        ),
        *_commands(lines),
    ]


def _commands(lines: Sequence[Line]) -> list[Block]:
    """The commands that made the lines, each once."""
    commands = dict.fromkeys(line["command"] for line in lines)
    return [Text("Made by " + ", ".join(f"`{command}`" for command in commands) + ".")] if commands else []
