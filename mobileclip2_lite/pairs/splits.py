"""Which part of a data set is taken where it comes as train, validation and test: one rule for every kind of source.

Of several splits `train` is taken; where there is none, or another is wanted, the choice is asked for, as `?split=NAME`
behind the source (`?split=all` takes everything). The manifest says what was taken and left out. Opens no file.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

SPLITS = {
    "train": ("train", "training", "restval", "trainset", "trn"),
    "validation": ("validation", "valid", "val", "dev", "valset", "devset", "minival", "dval"),
    "test": ("test", "testing", "eval", "evaluation", "testset", "testdev", "tst", "holdout", "heldout"),
    "trainval": ("trainval", "traindev"),
}
"""Splits, and the words that name them; `trainval`, train and validation together, is a split that is asked for."""
_OF_WORD = {word: split for split, words in SPLITS.items() for word in words}
_BESIDE = """
    images image img imgs jpg jpeg jpegs png webp photos pictures captions texts pairs samples data dataset set split
    shards shard part parts wds tars files folder fold full sub subset small mini large public private hidden clean
    other seen unseen new raw resized final
"""
_FILLERS = frozenset(re.findall(r"[a-z]+", _BESIDE))
"""Words beside a split's in a folder's name, as single letters may stand (`trainA`); with any other it is the name of
something else (`test_tube`)."""
CONTAINERS = (".tar", ".gz", ".tgz", ".bz2", ".xz", ".parquet", ".csv", ".tsv", ".jsonl", ".ndjson", ".arrow")
"""Ends of the names of files that hold many pairs: their own name may name a split, an image's does not."""


def split_of(name: str) -> str | None:
    """The split that a file's path names, by its folders (`val2017/`) or as a container (`cc3m-train-0007.tar`)."""
    path = PurePosixPath(name)
    for folder in reversed(path.parent.parts):
        words = {word for word in _words(folder) if len(word) > 1}
        found = {_OF_WORD[word] for word in words if word in _OF_WORD}
        if len(found) == 1 and words - set(_OF_WORD) <= _FILLERS:
            return found.pop()
    if path.suffix.lower() in CONTAINERS:
        found = {_OF_WORD[word] for word in _words(path.name) if word in _OF_WORD}
        return found.pop() if len(found) == 1 else None
    return None


def _words(name: str) -> list[str]:
    """The words of a name, also of one like `TrainImages`."""
    return re.split(r"[^a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())


def named(value: object) -> str | None:
    """The split that a value of a column `split` names."""
    return _OF_WORD.get(value.strip().lower()) if isinstance(value, str) else None


def choose(
    splits: Sequence[str | None], asked: str | None, where: str, kinds: Sequence[str] | None = None
) -> tuple[list[int], dict]:
    """Which of some things are taken, and what the manifest says of it.

    Args:
        splits: the split of each; None for one of no split.
        asked: the user's choice, `all` for everything, `none` for what is of no split; None takes `train` where there
            are several splits.
        where: the source, for messages.
        kinds: the kind of each. Where something of no split lies beside the same kind of thing of a split that is not
            `train` (`0000.tar` and `val.tar`), these are two splits. None: nothing is compared.

    Returns:
        Numbers of those to take, in order, and notes: `split` and how many of each other split were `left_out`.

    Raises:
        ValueError: there are several splits and none is `train`, or the one asked for is not there.
    """
    there = sorted({split for split in splits if split})
    bare = {kind for kind, split in zip(kinds or (), splits, strict=False) if split is None}
    named = {kind for kind, split in zip(kinds or (), splits, strict=False) if split not in (None, "train")}
    mixed = "train" not in there and bool(bare & named)
    if asked in (None, "", "all") and (asked == "all" or (len(there) < 2 and not mixed)):
        return list(range(len(splits))), {}
    wanted = _OF_WORD.get(asked or "train", asked)
    if wanted not in there and not (asked == "none" and None in splits):
        missing = f"has no split {asked!r}" if asked else "has several splits and none is `train`"
        offered = [*there, "none"] if mixed else there or ["all"]
        raise ValueError(f"{where} {missing}: choose one of {offered} with {where}?split=NAME, or split=all")
    left = Counter(split or "none" for split in splits if (split or "none") != wanted)
    notes = {"split": wanted, "left_out": dict(sorted(left.items()))} if left else {}
    return [number for number, split in enumerate(splits) if (split or "none") == wanted], notes


def choose_name(names: Iterable[str], asked: str | None, where: str) -> str:
    """Which of a data set's named splits is taken: by the same rule; a lone split is taken whatever its name.

    Raises:
        ValueError: as `choose`.
    """
    names = list(names)
    if asked is None and len(names) == 1:
        return names[0]
    if (wanted := asked or "train") in names:
        return wanted
    alike = [name for name in names if _OF_WORD.get(wanted, wanted) in {_OF_WORD.get(word) for word in _words(name)}]
    if len(alike) == 1:
        return alike[0]
    missing = f"has no split {asked!r}" if asked else "has several splits and none is `train`"
    raise ValueError(f"{where} {missing}: choose one of {names} with ?split=NAME")
