"""What is written about a scene: alt-text as the web writes it, and clean captions as a person would.

Alt-text names one of the objects or only a word of it, is a file name or a sales talk, and in about three of ten cases
belongs to another image (`recipes.AltText` holds the rates). Clean captions come in the styles `short` (like COCO),
`relational` and `detailed` (like DOCCI). Names carry the captions: background and place are the exception, or they
alone would solve the contrast and zero-shot would learn nothing.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import numpy as np

from mobileclip2_lite.emoji_world.scenes import Scene, Thing, scene
from mobileclip2_lite.recipes import World
from mobileclip2_lite.work.randomness import rng

STYLES = ("short", "relational", "detailed")
"""Styles of clean captions."""

FIVE = (("short", 0), ("short", 1), ("relational", 0), ("relational", 1), ("detailed", 0))
"""Style and variant of the five captions that a test scene has, as many as COCO's images have."""

TEMPLATES = ("{}", "a {}", "a picture of a {}", "an emoji of a {}", "a photo of one {}")
"""Prompts of zero-shot classification; the embeddings of all are averaged."""

_BOILERPLATE = (
    "{} vector free download",
    "buy {} online, best price",
    "{} stock image royalty free",
    "{} sticker - free shipping",
    "cute {} clipart png",
    "{} | shop now",
    "top 10 {} wallpapers",
    "{} icon pack",
)
_PLAIN = ("{}", "a {}", "{} picture", "photo of a {}", "the {}", "my {}", "one {}", "a {} emoji")
_OPENINGS = ("", "", "a picture of ", "there is ", "here you see ", "an image of ")


_PLURAL = re.compile(r"[^suio]s$")


def article(words: str) -> str:
    """`words` with its indefinite article; plurals (`jeans`, `yellow beans`) go without."""
    if _PLURAL.search(words):
        return words
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def phrase(thing: Thing) -> str:
    """The name of an object with its tint: `blue dog`."""
    return f"{thing.tint} {thing.name}" if thing.tint else thing.name


def _pick(draw: np.random.Generator, options: tuple | list):
    return options[draw.integers(len(options))]


def listed(parts: Sequence[str]) -> str:
    """Parts as a list in words: `a, b and c`."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _shuffled(draw: np.random.Generator, things: tuple[Thing, ...]) -> list[Thing]:
    return [things[k] for k in draw.permutation(len(things))]


def alt_text(picture: Scene, world: World, split: str = "train") -> str:
    """The text that the embedded web gives to `picture`, with the noise of `world.alt_text`."""
    noise = world.alt_text
    draw = rng("alt-text", world.seed, picture.uid)
    if draw.random() < noise.mismatch:  # the text of another image of the same web
        picture = scene(world, f"{split}-elsewhere", int(draw.integers(2**40)))
    sizes = np.array([thing.size for thing in picture.things])
    main = picture.things[draw.choice(len(sizes), p=sizes / sizes.sum())]
    words = phrase(main) if draw.random() < 0.5 else main.name
    kind = draw.random()
    if kind < noise.filename:
        end = _pick(draw, ("jpg", "png", "jpeg"))
        return (
            f"{_pick(draw, ('IMG', 'DSC', 'img', 'final'))}_{draw.integers(10, 9999)}_{words.replace(' ', '_')}.{end}"
        )
    kind -= noise.filename
    if kind < noise.boilerplate:
        return _pick(draw, _BOILERPLATE).format(words)
    kind -= noise.boilerplate
    if kind < noise.fragment:
        return _pick(draw, _PLAIN).format(_pick(draw, main.name.split()))
    kind -= noise.fragment
    if kind < noise.listing:
        text = listed([phrase(t) if draw.random() < 0.5 else t.name for t in _shuffled(draw, picture.things)])
    else:
        text = _pick(draw, _PLAIN).format(words)
    if draw.random() < noise.colour:
        text += f" on {picture.background.colour}"
    return text


def fits(text: str, picture: Scene) -> bool:
    """Whether `text` names something that is in the image, whole or by the last word of its name."""
    words = re.findall(r"[\w'-]+", text.lower().replace("_", " "))
    return any(thing.name.split()[-1] in words for thing in picture.things)


def relation(first: Thing, second: Thing) -> str:
    """Where `first` is as seen from `second`, by the larger of the two distances."""
    dx, dy = first.x - second.x, first.y - second.y
    if abs(dx) >= abs(dy):
        return "to the left of" if dx < 0 else "to the right of"
    return "above" if dy < 0 else "below"


def clearly_placed(first: Thing, second: Thing) -> bool:
    """Whether nobody would dispute the `relation` of the two: far enough apart, and much further one way."""
    dx, dy = abs(first.x - second.x), abs(first.y - second.y)
    return max(dx, dy) >= 0.2 and max(dx, dy) >= 1.5 * min(dx, dy)


def place(thing: Thing) -> str:
    """Where an object is in the image, in ninths: `at the top left`, `in the middle`."""
    column = "left" if thing.x < 0.4 else "right" if thing.x > 0.6 else ""
    row = "top" if thing.y < 0.4 else "bottom" if thing.y > 0.6 else ""
    return f"at the {row} {column}".replace("  ", " ").strip() if row or column else "in the middle"


def caption(picture: Scene, style: str, variant: int = 0) -> str:
    """A clean caption: every object is named, with its tint; `variant` changes order and wording.

    Raises:
        ValueError: `style` is not one of `STYLES`.
    """
    draw = rng("caption", picture.uid, style, variant)
    things = _shuffled(draw, picture.things)
    names = listed([article(phrase(thing)) for thing in things])
    match style:
        case "short":
            return f"{_pick(draw, _OPENINGS)}{names}"
        case "relational" if len(things) == 1:
            return f"{article(phrase(things[0]))} {place(things[0])}"
        case "relational":
            pairs = [
                f"{article(phrase(a))} {relation(a, b)} {article(phrase(b))}" for a, b in itertools.pairwise(things)
            ]
            return listed(pairs)
        case "detailed":
            parts = [
                f"{article(('large ' if t.size > 0.5 else 'small ' if t.size < 0.36 else '') + phrase(t))} {place(t)}"
                for t in things
            ]
            ground = picture.background
            return f"{listed(parts)}, on {article(f'{ground.kind} {ground.colour} background')}"
    raise ValueError(f"caption style {style!r}: one of {STYLES}")


def captions(picture: Scene, variant: int = 0) -> list[str]:
    """Five clean captions of a scene: two short, two relational, one detailed; another `variant` words them anew."""
    return [caption(picture, style, variant + number) for style, number in FIVE]
