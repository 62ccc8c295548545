"""Settings of the stages that make the data: the embedded world, pairs, filter, captions, views and embeddings.

Field docs give the unit and the source, as in `settings`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AltText:
    """How the embedded world's web describes its pictures: the share of each kind of noise (ours)."""

    mismatch: float = 0.3
    """Share of alt-texts that describe another picture."""
    filename: float = 0.1
    """Share written as a file name (`IMG_2041_red_apple.jpg`)."""
    boilerplate: float = 0.2
    """Share with sales or download talk around the name (`apple vector free download`)."""
    fragment: float = 0.1
    """Share that keeps only one word of a name of several words."""
    listing: float = 0.3
    """Share that names every object of the scene instead of one of them."""
    colour: float = 0.1
    """Share that names the background's colour: the exception, or colour alone would solve the contrast."""


@dataclass(frozen=True)
class World:
    """The embedded world: which names exist and how scenes are drawn and described (ours)."""

    names: int = 120
    """Number of object names, taken from the front of the fixed order of `emoji_world.names()`; 0 for all."""
    image_size: int = 96
    """Side of a rendered scene in pixels; larger than the student's so that crops keep detail."""
    max_objects: int = 3
    """Most objects in one scene (1 to 4)."""
    seed: int = 0
    """Seed of the training stream; test sets do not depend on it."""
    alt_text: AltText = AltText()
    """Noise of the alt-texts."""


@dataclass(frozen=True)
class Pairs:
    """Where image-text pairs come from and how many."""

    source: str = "emoji_world"
    """`emoji_world`, a folder (with a folder a class: `FOLDER?text=folder`), a `.csv`/`.jsonl`/`.parquet` file,
    Karpathy's or COCO's `.json`, WebDataset tars (`x/{00..03}.tar`) or `hf:NAME`."""
    count: int = 8_000
    """Most pairs to take; 0 for all."""
    samples_per_shard: int = 1_000
    """Pairs in one tar."""
    image_key: str | None = None
    """Column with the image; None finds it."""
    text_key: str | None = None
    """Column with the text; None finds it."""
    group: bool = True
    """Rows of one image (one file, or the same bytes in one shard) become one sample with several texts; off: a sample
    a row."""
    upright: bool = False
    """Images that their EXIF turns are stored turned, as PNG of several times the bytes; off: their pixels are taken as
    they lie, as the official trainer does."""


LATER = {"upright": False}
"""Fields of `Pairs` that came after results were recorded: at these values they are part of no key."""


@dataclass(frozen=True)
class Filter:
    """DFN-style filtering: a small CLIP trained on clean pairs scores the web's pairs, and the best are kept."""

    scorer: str = "lite-dfn"
    """Model that scores: any name or folder of `models.zoo`, or an embedded one of `data/`."""
    keep: float = 0.6
    """Share of the pairs to keep, best first; 1 leaves the stage out, 0 keeps by `threshold` (DFN: about 15 %)."""
    threshold: float = 0.0
    """Least cosine of picture and text, where `keep` is 0."""
    batch_size: int = 256
    """Pairs a forward pass; it does not change the result."""


@dataclass(frozen=True)
class Generate:
    """How a captioner writes."""

    captions: int = 5
    """Captions an image (paper: 5)."""
    method: str = "sample"
    """`sample` (paper), `greedy` or `beam`."""
    temperature: float = 1.0
    """Divides the logits before sampling; 0 is `greedy` (paper: not given)."""
    top_p: float = 0.9
    """Sample from the most probable tokens that hold this share of the probability (paper: 0.9); 1 for all."""
    top_k: int = 0
    """Sample from the so many most probable tokens; 0 for all."""
    beams: int = 5
    """Hypotheses of beam search; the best `captions` of them are given."""
    repetition_penalty: float = 1.0
    """Divides the positive and multiplies the negative logits of tokens that were written already; 1 is off."""
    min_length: int = 0
    """Least tokens before the end token."""
    max_length: int = 0
    """Most tokens, start and end included; 0 for the model's context."""


@dataclass(frozen=True)
class Caption:
    """Synthetic captions for a folder of pairs."""

    captioners: tuple[str, ...] = ("lite-captioner-short", "lite-captioner-relational")
    """Captioners: names of `data/captioners/`, or of `models.zoo`; each writes `generate.captions` captions."""
    generate: Generate = Generate()
    """Decoding."""
    batch_size: int = 64
    """Pictures a forward pass; it does not change the result."""
    seed: int = 0
    """Seed of the sampling."""


@dataclass(frozen=True)
class Augment:
    """Strong, replayable augmentation: torchvision's RandomResizedCrop and RandAugment (paper)."""

    scale: tuple[float, float] = (0.08, 1.0)
    """Area of the crop as a share of the source (paper: torchvision's default)."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Aspect ratio of the crop, width / height (paper: torchvision's default)."""
    operations: int = 2
    """RandAugment operations a view; 0 switches it off (paper: 2)."""
    magnitude: int = 9
    """RandAugment magnitude, 0 to 30 (paper: 9)."""
    flip: float = 0.0
    """Probability of a horizontal flip (off)."""
    erase: float = 0.0
    """Probability of random erasing (off)."""


@dataclass(frozen=True)
class Reinforce:
    """What is stored with every pair, once."""

    teachers: tuple[str, ...] = ("lite-teacher-conv", "lite-teacher-se")
    """Teachers: names of `models.teachers`."""
    views: int = 5
    """Stored augmentations an image (paper: 30 for 12M pairs, 2 for 2B; gains saturate at about 5)."""
    augment: Augment = Augment()
    """How views are drawn."""
    storage: str = "bf16"
    """`bf16` (paper), `int8` or `int6` with row scales, or `fp32`."""
    layout: str = "native"
    """`native`, or `datacompdr` for the official layout."""
    batch_size: int = 256
    """Images gathered before the teachers see them; it does not change the result."""
    seed: int = 0
    """Seed of the views; the only randomness of this stage."""
