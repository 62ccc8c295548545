"""Names under which a sample keeps its captions and embeddings, put together and taken apart in one place.

Differs from the published sets, whose one captioner has no name: `datacompdr.official_caption_key`.
"""

from __future__ import annotations

from collections.abc import Iterable

IMAGE, TEXT = "image", "text"
"""Kinds of embeddings beside those of captions: of the views, of the real texts."""
_CAPTIONS = "syn_text"


def caption_key(captioner: str) -> str:
    """`syn_text_<captioner>`: a captioner's list in `syn.json`, and the kind of its captions' embeddings."""
    return f"{_CAPTIONS}_{captioner}"


def captioner_of(key: str) -> str | None:
    """The captioner of a `caption_key`, "" for the one without a name of the published sets; None of another key."""
    return key.removeprefix(_CAPTIONS).removeprefix("_") if key.startswith(_CAPTIONS) else None


def embedding_key(kind: str, teacher: str) -> str:
    """`<kind>/<teacher>`: the name of a tensor; `kind` is `IMAGE`, `TEXT` or a captioner's `caption_key`."""
    return f"{kind}/{teacher}"


def kind_and_teacher(key: str) -> tuple[str, str]:
    """The kind and the teacher of an `embedding_key`; a teacher's name may hold slashes, a kind none."""
    kind, _, teacher = key.partition("/")
    return kind, teacher


def teachers_of(keys: Iterable[str]) -> list[str]:
    """The teachers of which there are image embeddings, in the order of the keys."""
    return [teacher for kind, teacher in map(kind_and_teacher, keys) if kind == IMAGE]
