"""How captions are worded: one wording to learn from, one for validation and one for the test that nobody learns from.

The paper's captioners and teachers meet captions of every kind; its test captions were written by other people. Here a
`Wording` is a set of sentence frames. The objects, their tints, places and relations are named by the same words
everywhere, for they are what is measured; the frames around them are disjoint between the three
(tests/emoji_world/test_wording.py proves it), so that a model that has learned sentences by heart gains nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mobileclip2_lite.emoji_world.scenes import Scene, Thing
from mobileclip2_lite.emoji_world.texts import FIVE, STYLES, article, phrase, place, relation
from mobileclip2_lite.work.randomness import rng


class Wording(NamedTuple):
    """Sentence frames, of which a caption takes one each at random."""

    openings: tuple[str, ...]
    """Around a list of objects; `{kind}` stands for one of `kinds`."""
    kinds: tuple[str, ...]
    """What an image is called."""
    joins: tuple[str, ...]
    """Between the last two objects of a list."""
    clauses: tuple[str, ...]
    """Between two statements."""
    placed: tuple[str, ...]
    """An object and its place: `{thing}`, `{place}`."""
    related: tuple[str, ...]
    """Two objects: `{first}`, `{relation}`, `{second}`."""
    grounds: tuple[str, ...]
    """Objects and background: `{things}`, and `{kind} {colour}` of the background."""


LEARNED = Wording(
    openings=(
        "{things}",
        "a {kind} of {things}",
        "the {kind} of {things}",
        "one {kind} with {things}",
        "this {kind} shows {things}",
        "this {kind} has {things}",
        "my {kind} of {things}",
        "a simple {kind} showing {things}",
        "a {kind} in which there is {things}",
        "{things} in a {kind}",
        "{things} as a small {kind}",
        "there is {things}",
        "here you see {things}",
        "here is {things}",
        "look at {things}",
        "we see {things} here",
        "it shows {things}",
        "it is about {things}",
        "can you see {things}?",
        "you get {things}",
        "only {things}",
        "{things}, nothing else",
        "{things} for children",
        "{things}, made by hand",
        "what a nice {kind}: {things}",
        "i like this {kind} with {things}",
    ),
    kinds=("picture", "image", "photo", "drawing", "scene", "emoji", "view", "print", "cartoon", "card"),
    joins=(" and ", " and ", " and ", " with ", ", ", " and also ", " as well as ", " plus "),
    clauses=(" and ", " and ", ", and ", "; "),
    placed=(
        "{thing} {place}",
        "{thing} is {place}",
        "{place} there is {thing}",
        "{thing}, {place} of the picture",
        "you see {thing} {place}",
    ),
    related=(
        "{first} {relation} {second}",
        "{first} {relation} {second}",
        "{first} is {relation} {second}",
        "there is {first} {relation} {second}",
        "a picture of {first} {relation} {second}",
        "you see {first} {relation} {second}",
    ),
    grounds=(
        "{things}, on a {kind} {colour} background",
        "{things} on a {kind} {colour} background",
        "on a {kind} {colour} background: {things}",
        "{things}. the background is {kind} and {colour}",
        "{things}, in front of a {kind} {colour} wall",
    ),
)
"""What teachers read in their stream, and what captioners are fine-tuned on."""

VALIDATION = Wording(
    openings=(
        "we are looking at {things}",
        "take a look: {things} in one {kind}",
        "all that this {kind} contains is {things}",
        "{things} can be seen in the {kind}",
        "the {kind} is about nothing but {things}",
        "a colourful {kind} that contains {things}",
    ),
    kinds=("sketch", "design", "poster", "sticker"),
    joins=(" together with ", " and next ", " and then "),
    clauses=(", and then ", ". next, "),
    placed=("{thing} can be seen {place}", "{place} we come across {thing}"),
    related=("{first} that is {relation} {second}", "we are looking at {first} {relation} {second}"),
    grounds=("{things}, over a background that is {kind} and {colour}", "a {kind} {colour} area with {things} on it"),
)
"""For learning curves, early stopping and searches."""

TEST = Wording(
    openings=(
        "someone drew {things}",
        "in the frame we find {things}",
        "the {kind} holds {things}",
        "the artist chose {things} for this {kind}",
        "visible in this {kind}: {things}",
        "a {kind} depicting {things}",
        "{things}, depicted plainly",
        "featured here: {things}",
    ),
    kinds=("illustration", "artwork", "icon"),
    joins=(" along with ", " accompanied by ", " & ", " joined by "),
    clauses=(", while ", ", whereas "),
    placed=("{thing} sits {place}", "{place} one finds {thing}", "someone put {thing} {place}"),
    related=(
        "{first} sits {relation} {second}",
        "{first} was placed {relation} {second}",
        "the artist drew {first} {relation} {second}",
    ),
    grounds=(
        "{things} against a {kind} backdrop in {colour}",
        "someone drew {things} before a {kind} {colour} backdrop",
        "{things}, while everything behind stays {kind} and {colour}",
    ),
)
"""For the final report alone: no captioner, teacher or scorer of this project has read a sentence of this form."""

WORDINGS = {"learned": LEARNED, "val": VALIDATION, "test": TEST}
"""The wordings by name."""


def worded(scene: Scene, style: str, wording: str, variant: int = 0) -> str:
    """A clean caption in one of `WORDINGS`: what `texts.caption` says, in other sentences.

    Raises:
        ValueError: `style` is not one of `STYLES`, or `wording` not one of `WORDINGS`.
    """
    if style not in STYLES or wording not in WORDINGS:
        raise ValueError(f"caption style {style!r}, wording {wording!r}: one of {STYLES} and one of {tuple(WORDINGS)}")
    frames = WORDINGS[wording]
    draw = rng("worded", wording, scene.uid, style, variant)
    things = [scene.things[k] for k in draw.permutation(len(scene.things))]
    if style == "short":
        opening, kind = _one(draw, frames.openings), _one(draw, frames.kinds)
        opening = opening.replace("a {kind}", article(kind)).replace("{kind}", kind)
        text = opening.format(things=_listed(draw, frames, [article(phrase(thing)) for thing in things]))
    elif style == "relational" and len(things) == 1:
        text = _one(draw, frames.placed).format(thing=article(phrase(things[0])), place=place(things[0]))
    elif style == "relational":
        text = _one(draw, frames.clauses).join(_related(draw, frames, a, b) for a, b in itertools.pairwise(things))
    else:
        parts = [f"{article(_sized(thing))} {place(thing)}" for thing in things]
        ground = scene.background
        text = _one(draw, frames.grounds).format(
            things=_listed(draw, frames, parts), kind=ground.kind, colour=ground.colour
        )
    return text + ("." if draw.random() < 0.3 and not text.endswith("?") else "")


def captions_in(scene: Scene, wording: str) -> list[str]:
    """Five clean captions of a scene in one wording: two short, two relational, one detailed."""
    return [worded(scene, style, wording, variant) for style, variant in FIVE]


def listing(wording: str, uid: str) -> str:
    """The words between the two objects of a hard negative: the same in the right and the wrong caption."""
    return _one(rng("listing", wording, uid), WORDINGS[wording].joins)


def statement(wording: str, uid: str) -> str:
    """The frame of a hard negative's relation: the same in the right and the wrong caption."""
    return _one(rng("statement", wording, uid), WORDINGS[wording].related)


def _related(draw: np.random.Generator, frames: Wording, first: Thing, second: Thing) -> str:
    words = {"first": article(phrase(first)), "relation": relation(first, second), "second": article(phrase(second))}
    return _one(draw, frames.related).format(**words)


def _sized(thing: Thing) -> str:
    size = "large " if thing.size > 0.5 else "small " if thing.size < 0.36 else ""
    return size + phrase(thing)


def _listed(draw: np.random.Generator, frames: Wording, parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + _one(draw, frames.joins) + parts[-1]


def _one(draw: np.random.Generator, options: Sequence[str]) -> str:
    return options[draw.integers(len(options))]
