"""A zero-shot playground: type names, choose or upload an image, and see how probable a model finds each name.

The static figure above the widget shows the first answer, so that it can be read where widgets do not run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mobileclip2_lite.notebook.dials import in_notebook, show_widget
from mobileclip2_lite.reports.figures import figure, pixels_of, png
from mobileclip2_lite.reports.labels import shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mobileclip2_lite.models.loaded import LoadedModel

MOST = 12
"""Names that are drawn, the most probable first."""
MOST_NAMES = 150
"""Names that may be typed: more are not answered within half a second."""
MOST_LETTERS = 100
"""Of a name: a model reads no more of a longer one."""
SIDE = 320
"""Pixels of the longer side of the image that is shown."""
KEPT = 1024
"""Pixels of the longer side that an uploaded image is reduced to: no tower sees more, and large ones take seconds."""


def read_names(text: str) -> list[str]:
    """The names in a line, without repeats.

    Raises:
        ValueError: fewer than two names, or more than `MOST_NAMES`, or a longer one than `MOST_LETTERS`; says how to
            type them.
    """
    names = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if len(names) < 2:
        raise ValueError("Type two names or more, with commas between them: a model chooses among what it is given.")
    if len(names) > MOST_NAMES:
        raise ValueError(f"{len(names):,} names are too many to ask about at once: leave {MOST_NAMES} or fewer.")
    if (longest := max(map(len, names))) > MOST_LETTERS:
        raise ValueError(
            f"One name has {longest:,} characters, of which a model reads the first few: leave {MOST_LETTERS} or "
            "fewer, and put commas between names."
        )
    return names


def uploaded(data: bytes) -> Any:
    """An uploaded image, upright, and reduced to `KEPT` pixels where it is larger.

    Raises:
        ValueError: the bytes are no image; says which files are.
    """
    from mobileclip2_lite.views.decoding import BadImage
    from mobileclip2_lite.views.images import read_image

    try:
        image = read_image(data, upright=True)
    except BadImage as error:
        raise ValueError(f"That file cannot be read ({error}): choose a JPEG, PNG or WebP file.") from error
    image.thumbnail((KEPT, KEPT))
    return image


def answers_of(loaded: LoadedModel, templates: Sequence[Any]) -> Callable[[Any, Sequence[str]], list[float]]:
    """A function from an image and names to how probable a model finds each, at the scale that it has learned.

    It embeds each name once, and an image once while it stays the same.
    """
    import torch

    from mobileclip2_lite.evaluation.measures import zero_shot_classifier
    from mobileclip2_lite.models.loaded import encode_images

    known: dict[str, Any] = {}
    looked_at: list[Any] = [None, None]  # the last image and its feature

    def answer(image: Any, names: Sequence[str]) -> list[float]:
        if new := [name for name in names if name not in known]:
            known.update(zip(new, zero_shot_classifier(loaded, new, templates), strict=True))
        if looked_at[0] is not image:
            looked_at[:] = [image, encode_images(loaded, [image])[0]]
        cosines = torch.stack([known[name] for name in names]) @ looked_at[1]
        return (loaded.model.logit_scale.detach().exp().cpu() * cosines).softmax(dim=0).tolist()

    return answer


def drawn(image: Any, names: Sequence[str], shares: Sequence[float]) -> Figure:
    """The image and the names' probabilities beside it, the most probable first."""
    from mobileclip2_lite.views.images import read_image

    order = sorted(range(len(names)), key=lambda place: -shares[place])[:MOST]
    made, axes = figure(6.4, max(2.0, 0.28 * len(order) + 0.9), 1, 2)
    left, right = axes[0]
    small = read_image(image).copy()
    small.thumbnail((SIDE, SIDE))  # drawing millions of pixels takes seconds
    left.imshow(pixels_of(small))
    left.set_axis_off()
    right.barh(range(len(order)), [100 * shares[place] for place in order], color="#0072B2")
    right.set_yticks(range(len(order)), [shortened(names[place], 30) for place in order])
    right.invert_yaxis()
    right.set(xlabel="probability (%)", xlim=(0, 100))
    return made


def naming_box(loaded: LoadedModel, images: Sequence[Any], text: str, templates: Sequence[Any]) -> None:
    """Show the playground: a line for names, an image to choose or upload, and the model's answer.

    Args:
        loaded: a model with preprocess and tokenizer.
        images: what can be chosen, PIL images or uint8 arrays (H, W, 3).
        text: the first names, with commas between them.
        templates: prompts.

    Raises:
        ValueError: `text` has fewer than two names, or there is no image.
    """
    if not len(images):
        raise ValueError("no images to choose from: give at least one")

    shares = answers_of(loaded, templates)

    def answer(image: Any, line: str) -> bytes:
        names = read_names(line)
        return png(drawn(image, names, shares(image, names)), live=True)

    names = read_names(text)
    static = drawn(images[0], names, shares(images[0], names))
    if not in_notebook():
        return
    from IPython.display import display

    display(static)
    try:
        show_widget(_widget(answer, images, text), "a line to type names into")
    except ImportError:  # the static figure stands there anyway
        return


def _widget(answer: Callable[[Any, str], bytes], images: Sequence[Any], text: str) -> Any:
    """The live part; what cannot be answered is said in words and leaves the last figure as it was."""
    import ipywidgets

    wide, described = ipywidgets.Layout(width="95%"), {"description_width": "initial"}
    line = ipywidgets.Text(text, description="names", continuous_update=False, layout=wide, style=described)
    which = ipywidgets.IntSlider(0, 0, len(images) - 1, description="image", style=described)
    upload = ipywidgets.FileUpload(accept="image/*", description="your own image", layout={"width": "auto"})
    size = ipywidgets.Layout(align_self="flex-start")  # as large as it is, not as the page is wide
    said, view = ipywidgets.Label(), ipywidgets.Image(value=answer(images[0], text), format="png", layout=size)
    chosen = {"image": images[0]}

    def show() -> None:
        try:
            view.value, said.value = answer(chosen["image"], line.value), ""
        except ValueError as error:
            said.value = str(error)

    def choose(change: dict) -> None:
        chosen["image"] = images[change["new"]]
        show()

    def take(change: dict) -> None:
        try:
            for file in change["new"]:
                chosen["image"] = uploaded(bytes(file["content"]))
        except ValueError as error:
            said.value = str(error)
            return
        show()

    line.observe(lambda change: show(), names="value")
    which.observe(choose, names="value")
    upload.observe(take, names="value")
    return ipywidgets.VBox([line, ipywidgets.HBox([which, upload]), said, view])
