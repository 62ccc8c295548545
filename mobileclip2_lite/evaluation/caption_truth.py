"""What a caption says about an image of the embedded world, and how much of it is true.

Paper: none (MobileCLIP2, arXiv 2508.20691, judges captioners by the students trained on them); ours, possible because
every scene is known. Reads captions and `emoji_world` scenes, writes nothing. A caption is taken apart into objects,
(tint, object) pairs, relations between two named objects, and places; each part is compared with the scene. Gives up:
how often an object is said to be there, colours other than the world's tints, sentences like "the dog is blue", and
words that are no name of the world: those count neither for nor against.
Taught by notebooks/20_captioner_finetuning.ipynb.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from mobileclip2_lite.emoji_world import Scene
    from mobileclip2_lite.recipes import World

_TOKEN = re.compile(r"[^\W_]+|[.,;:!?|]")
_SIZES = ("small", "large")
_FILLER = {"a", "an", "the", "to", "on", "is", "are", *_SIZES}
_RELATIONS = {
    "left of": "left",
    "right of": "right",
    "above": "above",
    "over": "above",
    "below": "below",
    "under": "below",
    "beneath": "below",
}
_MIRRORED = {"right": "left", "below": "above"}
_WHERE = {"top", "bottom", "left", "right", "middle"}
_IRREGULAR = {"mouse": "mice", "goose": "geese", "ox": "oxen", "leaf": "leaves", "scarf": "scarves"}


class Account(NamedTuple):
    """What is said of an image, or what is true of it."""

    objects: frozenset[str]
    """Names of the world."""
    colours: frozenset[tuple[str, str]]
    """(tint, name)."""
    relations: frozenset[tuple[str, str, str]]
    """(name, `left` or `above`, name): the first is to the left of, or above, the second."""
    places: frozenset[tuple[str, str]]
    """(name, place), the place as `top left`, `right` or `middle`."""


class _Mention(NamedTuple):
    name: str
    tint: str | None
    start: int
    end: int


def words(text: str) -> list[str]:
    """The plain tokenisation of all caption metrics: lower case, runs of letters and digits, no punctuation.

    Hyphens, apostrophes and underscores end a word (`t-shirt` is two), so that a caption that a tokenizer decoded as
    `t - shirt` is the same text. COCO's Penn-Treebank tokenizer needs Java and keeps hyphens; a text without them
    becomes the same words.
    """
    return [token for token in _TOKEN.findall(text.lower()) if token.isalnum()]


def named(text: str, world: World) -> frozenset[str]:
    """The world's names in a text: the longest match counts (`hot dog` is no `dog`), plurals (`two dogs`) too."""
    return frozenset(mention.name for mention in _mentions(_TOKEN.findall(text.lower()), world.names))


def stated(text: str, world: World, scene: Scene | None = None) -> Account:
    """What a text says in the world's own words.

    Args:
        scene: decides between the two readings of `a small airplane`, which may be a large or a small one of that name
            or an airplane: the reading that is true counts.
    """
    tokens = _TOKEN.findall(text.lower())
    there = {thing.name for thing in scene.things} if scene else set()
    mentions = [_reading(mention, there) for mention in _mentions(tokens, world.names)]
    relations = (_relation(tokens, one, other) for one, other in itertools.pairwise(mentions))
    places = ((mention.name, _place(tokens, mention.end)) for mention in mentions)
    return Account(
        objects=frozenset(mention.name for mention in mentions),
        colours=frozenset((mention.tint, mention.name) for mention in mentions if mention.tint),
        relations=frozenset(filter(None, relations)),
        places=frozenset((name, place) for name, place in places if place),
    )


def truth(scene: Scene) -> Account:
    """All that is true of a scene; two objects are related as `emoji_world` says it, by their larger distance."""
    from mobileclip2_lite.emoji_world import texts

    relations = set()
    for one, other in itertools.combinations(scene.things, 2):
        words_between = texts.relation(one, other).removeprefix("to the ")
        relations.add(_canonical(one.name, _RELATIONS[words_between], other.name))
    return Account(
        objects=frozenset(thing.name for thing in scene.things),
        colours=frozenset((thing.tint, thing.name) for thing in scene.things if thing.tint),
        relations=frozenset(relations),
        places=frozenset((thing.name, texts.place(thing).split(" the ")[1]) for thing in scene.things),
    )


def object_scores(
    captions_by_image: Sequence[Sequence[str]], scenes: Sequence[Scene], world: World
) -> dict[str, float | None]:
    """Precision and recall of what captions say of known scenes, summed over all captions (micro averages).

    Precision is the true share of what is said, recall the said share of what is true, of `objects`, `colours` (tints
    with their object), `colours_unbound` (tints, on whatever object), `relations` (recall: of the n - 1 statements that
    relate all n objects in a chain) and `places`. `objects_coverage` is the recall of all captions of an image
    together, `located_recall` the share of objects that a true relation or place puts somewhere. A value is None
    where nothing was said, or nothing could be.

    Args:
        captions_by_image: any number of captions an image; an image without any counts nowhere.
        scenes: the scene of each image.

    Raises:
        ValueError: not as many scenes as images.
    """
    check_lists(captions_by_image, scenes=scenes)
    count: Counter[str] = Counter()
    for captions, scene in zip(captions_by_image, scenes, strict=True):
        true = truth(scene)
        said = [stated(text, world, scene) for text in captions]
        for account in said:
            count.update(_counts(account, true))
        if said:
            together = frozenset().union(*(account.objects for account in said))
            count.update(covered=len(together & true.objects), to_cover=len(true.objects))
    result = {}
    for kind in ("objects", "colours", "colours_unbound", "relations", "places"):
        result[f"{kind}_precision"] = _share(count[f"{kind} right"], count[f"{kind} said"])
        result[f"{kind}_recall"] = _share(count[f"{kind} found"], count[f"{kind} true"])
    result["objects_coverage"] = _share(count["covered"], count["to_cover"])
    result["located_recall"] = _share(count["located"], count["objects true"])
    return result


def check_lists(captions_by_image: Sequence[Sequence[str]], **others: Sequence) -> None:
    """Raises ValueError where captions are not a list of lists of strings, or another list is of another length."""
    if any(isinstance(own, str) for own in captions_by_image):
        raise ValueError("captions_by_image holds strings: give a list of captions for every image")
    for name, other in others.items():
        if len(other) != len(captions_by_image):
            raise ValueError(f"{len(captions_by_image)} images with captions but {len(other)} {name}")


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _counts(said: Account, true: Account) -> dict[str, int]:
    """Statements `right`, `said`, `found` (right, for recall) and `true` of each kind, of one caption."""
    parts = {kind: (getattr(said, kind), getattr(true, kind)) for kind in Account._fields}
    parts["colours_unbound"] = ({tint for tint, _ in said.colours}, {tint for tint, _ in true.colours})
    count = {}
    for kind, (ours, theirs) in parts.items():
        right = len(ours & theirs)
        chain = len(true.objects) - 1 if kind == "relations" else len(theirs)
        count |= {f"{kind} right": right, f"{kind} said": len(ours)}
        count |= {f"{kind} found": min(right, chain), f"{kind} true": chain}
    located = {name for name, _ in said.places & true.places}
    for one, _, other in said.relations & true.relations:
        located |= {one, other}
    return count | {"located": len(located)}


@functools.cache
def _forms(count: int) -> dict[tuple[str, ...], str]:
    """Every way to write a name of the world, as words. Plural forms yield to other names (`orange` `books`)."""
    from mobileclip2_lite.emoji_world import names

    forms = {tuple(words(entry.name)): entry.name for entry in names(count)}
    plurals = {}
    for form, name in forms.items():
        for last in _plurals(form[-1]):
            plural = (*form[:-1], last)
            if not any(plural[start:] in forms for start in range(len(plural))):
                plurals[plural] = name
    return plurals | forms


def _plurals(word: str) -> list[str]:
    if word in _IRREGULAR:
        return [_IRREGULAR[word]]
    if re.search(r"[^aeiou]y$", word):
        return [word[:-1] + "ies"]
    if re.search(r"(s|x|z|ch|sh)$", word):
        return [word + "es"]
    return [word + "s", word + "es"] if word.endswith("o") else [word + "s"]


def _mentions(tokens: list[str], count: int) -> list[_Mention]:
    """The names in a text from left to right, the longest first, with the tint directly before."""
    from mobileclip2_lite.emoji_world.scenes import TINTS

    forms = _forms(count)
    longest = max(map(len, forms))
    found, at, end = [], 0, 0
    while at < len(tokens):
        size = _match(tokens, at, forms, longest)
        if size and tokens[at] in _SIZES and 1 + _match(tokens, at + 1, forms, longest) > size:
            size = 0  # a small `airplane departure`, not a `small airplane`
        if size:
            before = at - 1
            while before >= end and tokens[before] in _SIZES:
                before -= 1
            tint = tokens[before] if before >= end and tokens[before] in TINTS else None
            end = at + size
            found.append(_Mention(forms[tuple(tokens[at:end])], tint, at, end))
        at += size or 1
    return found


def _match(tokens: list[str], at: int, forms: dict[tuple[str, ...], str], longest: int) -> int:
    """Words of the longest name that begins at a token; 0 where none does."""
    longest = min(longest, len(tokens) - at)
    return next((n for n in range(longest, 0, -1) if tuple(tokens[at : at + n]) in forms), 0)


def _reading(mention: _Mention, there: set[str]) -> _Mention:
    first, _, rest = mention.name.partition(" ")
    return mention._replace(name=rest) if first in _SIZES and mention.name not in there and rest in there else mention


def _canonical(one: str, relation: str, other: str) -> tuple[str, str, str]:
    return (other, _MIRRORED[relation], one) if relation in _MIRRORED else (one, relation, other)


def _relation(tokens: list[str], one: _Mention, other: _Mention) -> tuple[str, str, str] | None:
    from mobileclip2_lite.emoji_world.scenes import TINTS

    between = [token for token in tokens[one.end : other.start] if token not in _FILLER and token not in TINTS]
    relation = _RELATIONS.get(" ".join(between))
    return _canonical(one.name, relation, other.name) if relation else None


def _place(tokens: list[str], at: int) -> str | None:
    """The place that the words after a name say: `at the top left`, but not `at the left of`."""
    if tokens[at : at + 1] in (["is"], ["are"]):
        at += 1
    if tokens[at : at + 2] not in (["at", "the"], ["in", "the"], ["on", "the"]):
        return None
    found = list(itertools.takewhile(_WHERE.__contains__, tokens[at + 2 : at + 4]))
    return " ".join(found) if found and tokens[at + 2 + len(found) :][:1] != ["of"] else None
