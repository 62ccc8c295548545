"""A model's folder, or its weights file, that lies in a store, as files of this disk.

A bucket lists what a folder holds; a web server lists nothing, and a store may list late what was just written: there
the names that such folders have are asked for one by one, and of several weights files the one that would be taken is
fetched. Reads stores, writes the cache.
Taught by notebooks/60_deploy.ipynb.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mobileclip2_lite.models.family import family_member
from mobileclip2_lite.models.hub import WEIGHT_NAMES
from mobileclip2_lite.models.model_folder import CONFIGS
from mobileclip2_lite.models.sentence_encoder import TOKENIZER_FILE
from mobileclip2_lite.models.weight_files import PART, SUFFIXES, parts_in
from mobileclip2_lite.work.place import StorePath, folder_here, those_there

TOKENIZERS = (
    TOKENIZER_FILE,
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.txt", "vocab.json", "merges.txt", "spiece.model", "sentencepiece.bpe.model"),
)
"""Files of a tokenizer that may lie beside weights."""
BESIDE = (*CONFIGS, "card.json", *TOKENIZERS)
"""What a model's folder may hold beside its weights."""
INDEXES = tuple(f"{name}.index.json" for name in WEIGHT_NAMES)
"""Names of the list of a weights file's parts."""


def model_here(place: StorePath) -> Path:
    """The folder or the weights file of this disk with what a store has at an address.

    Args:
        place: a folder, or a weights file (`….safetensors`, `….pt`), whose config may lie beside it.

    Raises:
        FileNotFoundError: the store has none of the files that a model's folder holds; names the remedy.
    """
    if place.suffix.lower() in SUFFIXES and place.is_file():
        return folder_here(place.parent, names=_around(place.parent, [place.name])) / place.name
    if place.store.lists:
        names = [name for name in place.store.names() if "/" not in name]
        if any(Path(name).suffix.lower() in SUFFIXES for name in names):
            return folder_here(place, names=names)
    own = family_member(place.store.key)
    usual = [*WEIGHT_NAMES, *([own.lower().replace("-", "_") + ".pt"] if own else [])]
    names = _around(place, [name for name in usual if those_there(place, [name])][:1])
    if not any(Path(name).suffix in SUFFIXES for name in names):
        raise FileNotFoundError(
            f"{place} has no weights of a known name ({', '.join(usual)}) and lists none, as no web server does: name "
            f"the weights file itself, as in {place}/NAME.safetensors"
        )
    return folder_here(place, names=names)


def exported_here(place: StorePath, files: Iterable[str]) -> Path:
    """The folder of this disk with an exported model's files, those of `files` where a web server lists nothing."""
    if place.store.lists:
        return folder_here(place, deep=True)
    return folder_here(place, names=those_there(place, [*files, "export.json", *TOKENIZERS]))


def _around(folder: StorePath, weights: list[str]) -> list[str]:
    """A weights file with its parts and all that may lie beside it."""
    indexes = those_there(folder, INDEXES)
    parts = [part for name in weights if (found := PART.fullmatch(name)) for part in _numbered(name, *found.groups())]
    for index in indexes if parts or not weights else ():
        parts += parts_in((folder / index).read_bytes())
    return sorted({*weights, *parts, *indexes, *those_there(folder, BESIDE)})


def _numbered(name: str, stem: str, number: str, count: str) -> list[str]:
    return [f"{stem}-{one:05d}-of-{count}{Path(name).suffix}" for one in range(1, int(count) + 1)]
