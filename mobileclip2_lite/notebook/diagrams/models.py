"""What models are and what they are asked: two towers, targets, distillation, a captioner, a block that folds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mobileclip2_lite.notebook.diagrams.strokes import INK, arrow, box, canvas
from mobileclip2_lite.reports.figures import COLOURS, figure, pixels_of
from mobileclip2_lite.reports.labels import shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def two_towers(
    images: Sequence[Any] | None = None, texts: Sequence[str] = ("a red dog", "a boat", "an onion"),
    matrix: Any = None,
) -> Figure:  # fmt: skip
    """CLIP: two towers give unit vectors; a batch of B pairs gives a B x B matrix of cosines, its diagonal the truth.

    Args:
        images: B images to show at the rows' ends; None draws plain squares.
        texts: B texts.
        matrix: B x B cosines to write into the cells; None leaves them empty.
    """
    count = len(texts)
    made, axes = canvas(8.6, 0.7 * count + 1.5, "A batch of B pairs, two towers, B x B cosines")
    top = 0.7 * count + 0.2
    axes.text(0.55, top + 0.15, "images", ha="center", size=9, color=INK)
    for row in range(count):
        y = top - 0.7 * (row + 1) + 0.08
        if images is not None:
            axes.imshow(pixels_of(images[row]), extent=(0.3, 0.84, y, y + 0.54), aspect="auto", zorder=3)
        else:
            box(axes, 0.3, y, 0.54, 0.54, f"image {row + 1}", size=7)
        arrow(axes, (0.9, y + 0.27), (1.28, y + 0.27))
    box(axes, 1.3, 0.3, 1.25, top - 0.4, "image\ntower", "student", model=True)
    left, side = 3.15, 0.7
    for row in range(count):
        y = top - 0.7 * (row + 1) + 0.02
        arrow(axes, (2.6, y + 0.35), (left - 0.04, y + 0.35))
        for column in range(count):
            right = row == column
            value = "" if matrix is None else f"{float(np.asarray(matrix)[row][column]):.2f}"
            box(
                axes,
                left + side * column,
                y,
                side - 0.06,
                side - 0.06,
                value,
                "teacher" if right else "data",
                strong=right,
            )
    width = side * count
    box(axes, left + width + 0.45, 0.3, 1.1, top - 0.4, "text\ntower", "student", model=True)
    for row, text in enumerate(texts):
        y = top - 0.7 * (row + 1) + 0.35
        axes.text(left + width + 2.0, y, text, va="center", size=9, color=INK)
        arrow(axes, (left + width + 1.94, y), (left + width + 1.58, y))
    arrow(axes, (left + width + 0.42, top / 2), (left + width + 0.02, top / 2), "")
    axes.text(
        left + width / 2,
        0.02,
        "row softmax: which text?   column softmax: which image?",
        ha="center",
        size=8,
        color=INK,
    )
    axes.set_ylim(-0.05, top + 0.5)
    axes.set_xlim(0, 8.6)
    axes.set_aspect("equal")
    return made


def targets(names: Sequence[str], soft: Sequence[float], right: int = 0) -> Figure:
    """What a pair asks of the student: one-hot (this text and no other) against a teacher's soft target.

    Args:
        names: the texts of the row.
        soft: the teacher's probabilities.
        right: place of the pair's own text.
    """
    made, axes = figure(8.2, 0.36 * len(names) + 1.2, 1, 2)
    hard = [float(index == right) for index in range(len(names))]
    for cell, values, title, role in (
        (axes[0, 0], hard, "one-hot: this pair only", "control"),
        (axes[0, 1], soft, "a teacher: also what is alike", "teacher"),
    ):
        cell.barh(range(len(names)), values, color=COLOURS[role], edgecolor="white")
        cell.set_xlim(0, 1)
        cell.set_yticks(range(len(names)), [shortened(name, 44) for name in names], size=8)
        cell.invert_yaxis()
        cell.set_xlabel("probability")
        cell.set_title(title, loc="left", size=10, weight="bold")
    axes[0, 1].set_yticks([])
    return made


def distillation() -> Figure:
    """One batch through teachers (stored) and student (learning): the losses that meet."""
    made, axes = canvas(8.8, 2.9, "Distillation from stored embeddings")
    box(axes, 0.1, 1.05, 1.2, 0.8, "one stored view,\none text")
    box(axes, 1.9, 0.3, 1.5, 0.7, "student's\ntwo towers", "student", model=True)
    box(axes, 1.9, 1.85, 1.5, 0.7, "teachers' rows,\nread from the shard", "teacher")
    arrow(axes, (1.34, 1.3), (1.88, 0.75))
    arrow(axes, (1.34, 1.6), (1.88, 2.1), dashed=True)
    box(axes, 4.1, 0.3, 1.55, 0.7, "softmax at the\nstudent's scale t", "student")
    box(axes, 4.1, 1.85, 1.55, 0.7, "softmax at each\nteacher's scale", "teacher")
    arrow(axes, (3.44, 0.65), (4.08, 0.65), "cosines")
    arrow(axes, (3.44, 2.2), (4.08, 2.2), "cosines")
    box(axes, 6.4, 1.05, 1.1, 0.8, "KL both ways:\nlambda", "ours", strong=True)
    arrow(axes, (5.69, 0.75), (6.38, 1.25))
    arrow(axes, (5.69, 2.1), (6.38, 1.65))
    box(axes, 6.4, 0.1, 1.1, 0.6, "one-hot:\n1 - lambda", "control")
    arrow(axes, (5.69, 0.55), (6.38, 0.4))
    arrow(axes, (7.54, 1.45), (8.2, 1.15))
    arrow(axes, (7.54, 0.4), (8.2, 0.8))
    axes.text(8.3, 0.97, "loss", va="center", size=11, weight="bold", color=INK)
    return made


def coca() -> Figure:
    """A captioner: a CLIP whose text tower goes on into a decoder that looks at the image."""
    made, axes = canvas(8.8, 2.7, "CoCa: a CLIP that can also write")
    box(axes, 0.1, 0.4, 0.9, 0.8, "image")
    box(axes, 1.5, 0.35, 1.4, 0.9, "image tower", "student", model=True)
    arrow(axes, (1.04, 0.8), (1.48, 0.8))
    box(axes, 0.1, 1.65, 0.9, 0.8, "“a red\ndog”")
    box(axes, 1.5, 1.6, 1.4, 0.9, "text tower,\nlooks back only", "student", model=True)
    arrow(axes, (1.04, 2.05), (1.48, 2.05))
    box(axes, 3.5, 0.95, 1.3, 0.95, "contrast:\nwhich text\nfor which image", "ours")
    arrow(axes, (2.94, 1.05), (3.48, 1.25), "", INK)
    arrow(axes, (2.94, 1.8), (3.48, 1.6), "", INK)
    box(axes, 5.5, 0.35, 1.5, 2.15, "decoder:\nevery layer also\nlooks at the\nimage's tokens", "teacher", model=True)
    arrow(axes, (2.94, 0.55), (5.48, 0.55), "image tokens", above=False)
    arrow(axes, (2.94, 2.3), (5.48, 2.3), "states of the words so far")
    box(axes, 7.5, 1.05, 1.15, 0.8, "next word:\n“dog” 62 %", "ours", strong=True)
    arrow(axes, (7.04, 1.45), (7.48, 1.45))
    return made


def repmixer() -> Figure:
    """A MobileOne / RepMixer block: branches while it learns, one convolution when it is used."""
    made, axes = canvas(9.4, 2.9, "Trained with branches, used with one convolution: the same function")
    axes.text(2.0, 2.72, "while it learns", ha="center", size=9, weight="bold", color=INK)
    box(axes, 0.05, 1.1, 0.6, 0.5, "x")
    for y, text in ((1.95, "3x3 conv → norm"), (1.1, "1x1 conv → norm"), (0.25, "norm (identity)")):
        box(axes, 1.2, y, 1.55, 0.55, text, "student")
        arrow(axes, (0.68, 1.35), (1.18, y + 0.27))
        arrow(axes, (2.79, y + 0.27), (3.27, 1.38))
    box(axes, 3.3, 1.12, 0.5, 0.5, "+")
    arrow(axes, (3.84, 1.37), (4.3, 1.37))
    arrow(axes, (4.7, 1.37), (6.2, 1.37), "fold: kernels\nand norms add up")
    axes.text(7.8, 2.72, "when it is used", ha="center", size=9, weight="bold", color=INK)
    box(axes, 6.4, 1.1, 0.5, 0.5, "x")
    box(axes, 7.35, 1.05, 1.3, 0.6, "one 3x3 conv", "student", strong=True)
    arrow(axes, (6.94, 1.35), (7.33, 1.35))
    arrow(axes, (8.69, 1.35), (9.2, 1.35))
    return made
