"""What several teachers ask of a student on a batch that the reader edits: weights, logit scales and texts to turn.

Images and texts are embedded once; a turn of a slider costs a softmax and a figure. The static figure above the widget
shows two settings, drawn by the same function, so that it can be read where widgets do not run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mobileclip2_lite.notebook.dials import in_notebook, show_widget
from mobileclip2_lite.reports.figures import figure, heatmap, png
from mobileclip2_lite.reports.labels import literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mobileclip2_lite.models.ensemble import TeacherEnsemble

MOST = 12
"""Texts that a batch may have: more columns cannot be read."""
MOST_LETTERS = 300
"""Of a text: a teacher reads no more of a longer one."""


class Voice(NamedTuple):
    """How a teacher is heard."""

    weight: float
    """Relative to the other teachers' weights."""
    scale: float
    """Logit scale: cosines are multiplied by it before the softmax."""


def read_texts(text: str) -> list[str]:
    """The texts of a batch, one a line, without repeats.

    Raises:
        ValueError: fewer than two, or more than `MOST`, or a longer one than `MOST_LETTERS`; says what to type.
    """
    texts = list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
    if len(texts) < 2:
        raise ValueError("Write two texts or more, one a line: beside no other, any text has a probability of 100 %.")
    if len(texts) > MOST:
        raise ValueError(f"{len(texts)} texts are too many to read: leave {MOST} or fewer, one a line.")
    if (longest := max(map(len, texts))) > MOST_LETTERS:
        raise ValueError(
            f"One text has {longest:,} characters, of which a teacher reads the beginning: leave {MOST_LETTERS} or "
            "fewer, and begin a new line for each text."
        )
    return texts


def blended(cosines: Mapping[str, Any], voices: Mapping[str, Voice]) -> np.ndarray:
    """The teachers' weighted mean of probabilities (images, texts); with equal weights, the library's target.

    A teacher's logit bias is left out: it is the same for all texts, and no softmax over them changes by it.

    Args:
        cosines: (images, texts) of each teacher.
        voices: weight and scale of each; weights need not add up to one.

    Raises:
        ValueError: no weight is above zero.
    """
    total = sum(voice.weight for voice in voices.values())
    if total <= 0:
        raise ValueError("All weights are zero, so nobody is asked: give one teacher a weight above zero.")
    mean = np.zeros(())
    for name, (weight, scale) in voices.items():
        logits = scale * np.asarray(cosines[name], dtype=float)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        mean = mean + weight / total * shares / shares.sum(axis=1, keepdims=True)
    return mean


def said(voices: Mapping[str, Voice]) -> str:
    """The voices in words, a line each."""
    return "\n".join(f"{_short(name)}: weight {one.weight:.1f}, scale {one.scale:.3g}" for name, one in voices.items())


def draw(axes: Axes, target: np.ndarray, texts: Sequence[str], images: Sequence[Any], title: str) -> None:
    """A target as a heatmap, thumbnails left of the rows, and right of them each row's most probable text."""
    from matplotlib.patches import Rectangle

    heatmap(target, [""] * len(images), texts, title, limits=(0, 1), axes=axes, images=images)
    for row, best in enumerate(target.argmax(axis=1)):
        frame = {"fill": False, "edgecolor": "#D55E00", "linewidth": 2}
        axes.add_patch(Rectangle((best - 0.5, row - 0.5), 1, 1, **frame))
        words = f"{target[row, best]:.0%} {literal(_cut(texts[best]))}"
        axes.annotate(words, (1, row), (6, 0), axes.get_yaxis_transform(), "offset points", va="center", size=8)


def panels(
    cosines: Mapping[str, Any], settings: Sequence[Mapping[str, Voice]], texts: Sequence[str], images: Sequence[Any]
) -> Figure:
    """Targets of the same batch at one or more settings, side by side."""
    width, height = 2.8 + 0.44 * len(texts), 1.9 + 0.4 * len(images)
    made, axes = figure(width * len(settings), height, 1, len(settings))
    for cell, voices in zip(np.ravel(axes), settings, strict=True):
        draw(cell, blended(cosines, voices), texts, images, said(voices))
    return made


def targets_box(ensemble: TeacherEnsemble, images: Sequence[Any], texts: Sequence[str]) -> None:
    """Show what an ensemble asks of a student: a static figure, and in a live notebook sliders and lines to edit.

    The static figure has the teachers at their own scales and equal weights, and beside it the same with the first
    teacher's scale divided by ten.

    Args:
        ensemble: one teacher or more.
        images: of the batch, of any form that `encode_images` takes.
        texts: of the batch at first; the reader may write others.

    Raises:
        ValueError: `texts` has fewer than two or more than `MOST` different texts, or there is no image.
    """
    if not len(images):
        raise ValueError("no images to ask about: give at least one")
    texts = read_texts("\n".join(texts))
    cosines = cosines_of(ensemble, images)
    own = {name: Voice(1.0, scale) for name, scale in ensemble.logit_scales.items()}
    first = next(iter(own))
    quiet = {**own, first: Voice(1.0, own[first].scale / 10)}
    static = panels(cosines(texts), [own, quiet], texts, images)
    if not in_notebook():
        return
    from IPython.display import display

    def answer(voices: Mapping[str, Voice], text: str) -> bytes:
        asked = read_texts(text)
        return png(panels(cosines(asked), [voices], asked, images), live=True)

    display(static)
    try:
        show_widget(_widget(answer, own, "\n".join(texts)), "weights and scales to turn, and texts to edit")
    except ImportError:  # the static figure stands there anyway
        return


def cosines_of(ensemble: TeacherEnsemble, images: Sequence[Any]) -> Callable[[Sequence[str]], dict[str, np.ndarray]]:
    """A function from texts to each teacher's cosines (images, texts) that embeds the images and any text once."""
    from mobileclip2_lite.models.loaded import encode_images, encode_texts

    seen = {name: encode_images(ensemble.loaded(name), images).numpy() for name in ensemble.names}
    read: dict[str, dict[str, np.ndarray]] = {name: {} for name in ensemble.names}

    def cosines(texts: Sequence[str]) -> dict[str, np.ndarray]:
        for name, known in read.items():
            if new := [text for text in texts if text not in known]:
                known |= zip(new, encode_texts(ensemble.loaded(name), new).numpy(), strict=True)
        return {name: seen[name] @ np.stack([known[text] for text in texts]).T for name, known in read.items()}

    return cosines


def _short(name: str) -> str:
    return name.removeprefix("lite-teacher-")


def _cut(text: str, width: int = 30) -> str:
    return text if len(text) <= width else text[: width - 1].rstrip() + "…"


def _widget(answer: Callable[[Mapping[str, Voice], str], bytes], own: Mapping[str, Voice], text: str) -> Any:
    """The live part; what cannot be answered is said in words and leaves the last figure as it was."""
    import ipywidgets

    look = {"style": {"description_width": "initial"}, "continuous_update": False}
    sliders = {}
    for name, voice in own.items():
        weight = ipywidgets.FloatSlider(
            voice.weight, min=0, max=1, step=0.1, description=f"{_short(name)}: weight", readout_format=".1f", **look
        )
        scale = ipywidgets.FloatLogSlider(
            voice.scale, min=0, max=2.5, step=0.05, description="logit scale", readout_format=".3g", **look
        )
        sliders[name] = (weight, scale)
    lines = ipywidgets.Textarea(
        text, description="texts, one a line", rows=7, layout=ipywidgets.Layout(width="95%"), **look
    )
    size = ipywidgets.Layout(align_self="flex-start")  # as large as it is, not as the page is wide
    words, view = ipywidgets.Label(), ipywidgets.Image(value=answer(own, text), format="png", layout=size)

    def show(change: dict) -> None:
        voices = {name: Voice(weight.value, scale.value) for name, (weight, scale) in sliders.items()}
        try:
            view.value, words.value = answer(voices, lines.value), ""
        except ValueError as error:
            words.value = str(error)

    for part in (*(one for pair in sliders.values() for one in pair), lines):
        part.observe(show, names="value")
    turned = [ipywidgets.HBox(list(pair)) for pair in sliders.values()]
    hint = ipywidgets.Label("Press Tab, or click beside the texts, and they are asked about.")
    return ipywidgets.VBox([*turned, lines, hint, words, view])
