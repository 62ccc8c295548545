"""The reinforced shard: pairs and reinforced samples in WebDataset tars, checked against a schema on reading.

Paper: MobileCLIP (arXiv 2311.17049) section 4, "dataset reinforcement": what is stored with every pair. Reads and
writes `shard-000000.tar` ... A sample is one key with the members `jpg|png|webp` (untouched),
`txt`, `json` (uid, source, size, hash), `syn.json` (captions), `paug.json` (views), `emb.safetensors` (embeddings).
Differs from the official layout (see datacompdr.py): embeddings by name instead of by position, views in 31 characters.
Taught by notebooks/00_start_here.ipynb.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from mobileclip2_lite.shards import embeddings as storage
from mobileclip2_lite.shards.keys import caption_key, captioner_of
from mobileclip2_lite.shards.tar_members import IMAGES
from mobileclip2_lite.shards.tars import ShardError, ShardInfo, read_tar, write_tar
from mobileclip2_lite.views.view import View, pack, unpack
from mobileclip2_lite.work.folder import read_manifest
from mobileclip2_lite.work.place import place_of

if TYPE_CHECKING:
    from torch import Tensor

SCHEMA = 1
"""Version of the sample's own form, in every `json` member that this module writes."""
EXTENSIONS = {name: name for name in IMAGES} | {"jpeg": "jpg", "jpe": "jpg", "jfif": "jpg"}
"""Members that hold the picture, and the extension under which it is kept; `pairs` writes only those of `PLAIN`."""
PLAIN = ("jpg", "png", "webp")
"""Extensions of pictures that every reader of published shards opens."""


@dataclass
class Pair:
    """An image and its text. `meta` holds source, width, height, sha256 (of the image's bytes) and the user's own."""

    uid: str
    image: bytes
    ext: str
    text: str
    meta: dict = field(default_factory=dict)

    @property
    def texts(self) -> list[str]:
        """All real texts, the first of which is `text`."""
        return real_texts(self.text, self.meta)


@dataclass
class Sample:
    """A pair with what reinforcement added; every added part may be missing.

    `embeddings` are float32 and L2-normalised, by `keys.embedding_key`: `image/<teacher>` (V, D) of the views,
    `text/<teacher>` (N, D) of the N real texts, `syn_text_<captioner>/<teacher>` (M, D).
    """

    uid: str
    image: bytes
    ext: str
    text: str
    meta: dict = field(default_factory=dict)
    syn_texts: dict[str, list[str]] = field(default_factory=dict)
    views: list[View] = field(default_factory=list)
    embeddings: dict[str, Tensor] = field(default_factory=dict)

    @property
    def texts(self) -> list[str]:
        """All real texts, the first of which is `text`."""
        return real_texts(self.text, self.meta)


def real_texts(text: str, meta: dict) -> list[str]:
    """A sample's real texts without repetitions: its `text`, then those of `texts` in its meta."""
    others = meta.get("texts")
    if not isinstance(others, list):
        return [text]
    return list(dict.fromkeys([text, *(other for other in others if isinstance(other, str) and other.strip())]))


def members(sample: Pair | Sample, dtype: str = "bf16") -> dict[str, bytes]:
    """The members of one sample by extension, in the order in which they stand in the tar."""
    if sample.ext not in EXTENSIONS.values():
        raise ValueError(f"sample {sample.uid!r}: image extension {sample.ext!r} is not one of {', '.join(EXTENSIONS)}")
    meta = {"schema": SCHEMA, "uid": sample.uid, **{k: v for k, v in sample.meta.items() if k not in ("schema", "uid")}}
    views = getattr(sample, "views", [])
    if views:
        first = views[0]
        meta = {**meta, "width": first.width, "height": first.height, "sha256": first.sha256}
        if any((v.width, v.height, v.sha256) != (first.width, first.height, first.sha256) for v in views):
            raise ValueError(f"sample {sample.uid!r}: its views were drawn for different sources")
    out = {sample.ext: sample.image} if sample.image else {}
    out["txt"] = sample.text.encode("utf-8", "replace")
    out["json"] = _json(meta)
    if getattr(sample, "syn_texts", None):
        out["syn.json"] = _json({caption_key(name): texts for name, texts in sample.syn_texts.items()})
    if views:
        out["paug.json"] = _json({"views": pack(views)})
    if getattr(sample, "embeddings", None):
        try:
            out["emb.safetensors"] = storage.encode(sample.embeddings, dtype)
        except ValueError as error:
            raise ValueError(f"sample {sample.uid!r}: {error}") from error
    return out


def _json(value: Any) -> bytes:
    """Compact JSON; characters that are not Unicode text (lone surrogates) are escaped, so it always encodes."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


def write_shard(path: str | os.PathLike, samples: Iterable[Pair | Sample], storage: str = "bf16") -> ShardInfo:
    """Write samples as one tar, beside and then renamed: the same samples always give the same bytes.

    Args:
        storage: how embeddings are kept, `bf16`, `int8` or `int6` (with a scale a row) or `fp32`.

    Raises:
        ValueError: two samples have one uid, or a sample cannot be written; names the uid.
        OSError: the disk is full or read-only; nothing is left behind.
    """
    return write_tar(path, ((sample.uid, members(sample, storage)) for sample in samples))


def read_pairs(path: str | os.PathLike, dropped: Counter | None = None) -> Iterator[Pair]:
    """The pairs of a shard, ours or any WebDataset tar of pictures and texts.

    Args:
        dropped: counts samples without image or text, with text that is not UTF-8, and a damaged tar, by reason.
            Without it such a sample raises.

    Raises:
        ShardError: a sample is bad and `dropped` is None; names shard, key and member.
    """
    for sample in read_samples(path, dropped):
        yield Pair(sample.uid, sample.image, sample.ext, sample.text, sample.meta)


def read_samples(path: str | os.PathLike, dropped: Counter | None = None) -> Iterator[Sample]:
    """The samples of a shard with whatever was added to them; see `read_pairs` for bad samples."""
    for key, parts in read_tar(path, dropped):
        try:
            yield parse(key, parts, str(path))
        except ShardError as error:
            if dropped is None:
                raise
            dropped[error.reason] += 1


def parse(key: str, parts: dict[str, bytes], shard: str, need_image: bool = True) -> Sample:
    """One sample from its members.

    Raises:
        ShardError: a member is missing, of a newer schema, or not what it should be; names shard, key and member.
    """
    ext = next((name for name in parts if name in EXTENSIONS), None)
    if ext is None and need_image:
        raise sample_error(shard, key, "jpg|png|webp", "no_image", "missing")
    text = decode_text(shard, key, "txt", parts)
    meta = load_json(shard, key, "json", parts) if "json" in parts else {}
    if meta.get("schema", 0) > SCHEMA:
        raise sample_error(
            shard, key, "json", "newer_schema", f"schema {meta['schema']}, this version reads up to {SCHEMA}"
        )
    uid = meta.pop("uid", None)
    meta.pop("schema", None)
    syn = load_json(shard, key, "syn.json", parts) if "syn.json" in parts else {}
    return Sample(
        uid=unquote(key) if uid is None else str(uid),
        image=parts[ext] if ext else b"",
        ext=EXTENSIONS[ext] if ext else "jpg",
        text=text,
        meta=meta,
        syn_texts=_syn_texts(shard, key, syn),
        views=parse_views(shard, key, parts, meta) if "paug.json" in parts else [],
        embeddings=parse_embeddings(shard, key, parts),
    )


def sample_error(shard: str, key: str, member: str, reason: str, detail: str) -> ShardError:
    """An error that names where it is; `reason` is the short word under which the sample is counted."""
    return ShardError(reason, detail, f"{shard}, key {key!r}, member {member}")


def decode_text(shard: str, key: str, member: str, parts: dict[str, bytes]) -> str:
    """A text member."""
    if member not in parts:
        raise sample_error(shard, key, member, "no_text", "missing")
    try:
        return parts[member].decode("utf-8")
    except UnicodeDecodeError as error:
        raise sample_error(shard, key, member, "text_not_utf8", f"not UTF-8 ({error})") from error


def load_json(shard: str, key: str, member: str, parts: dict[str, bytes]) -> dict:
    """A JSON member that must be an object."""
    try:
        value = json.loads(decode_text(shard, key, member, parts))
    except (ValueError, RecursionError) as error:  # RecursionError: lists in lists in lists
        if isinstance(error, ShardError):
            raise
        raise sample_error(shard, key, member, "bad_json", f"not JSON ({error})") from error
    if not isinstance(value, dict):
        raise sample_error(shard, key, member, "bad_json", f"a {type(value).__name__}, not an object")
    return value


def _syn_texts(shard: str, key: str, syn: dict) -> dict[str, list[str]]:
    out = {}
    for name, texts in syn.items():
        if (captioner := captioner_of(name)) is None:
            continue
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise sample_error(shard, key, "syn.json", "bad_captions", f"{name} is not a list of strings")
        out[captioner] = texts
    return out


def parse_views(
    shard: str, key: str, parts: dict[str, bytes], meta: dict, choose: Callable[[int], int] | None = None
) -> list[View]:
    """The views of a native `paug.json`; with `choose` (number of views -> which) only that one."""
    packed = load_json(shard, key, "paug.json", parts).get("views")
    if not isinstance(packed, str):
        detail = "no packed `views`; a shard of the official layout is read with datacompdr.read_official"
        raise sample_error(shard, key, "paug.json", "bad_views", detail)
    try:
        source = int(meta.get("width", 0)), int(meta.get("height", 0)), str(meta.get("sha256", ""))
        return unpack(packed, *source, choose)
    except (ValueError, TypeError) as error:
        raise sample_error(shard, key, "paug.json", "bad_views", str(error)) from error


def parse_embeddings(shard: str, key: str, parts: dict[str, bytes]) -> dict[str, Tensor]:
    """The tensors of `emb.safetensors` as float32."""
    if "emb.safetensors" not in parts:
        return {}
    try:
        return storage.decode(parts["emb.safetensors"])
    except ValueError as error:
        raise sample_error(shard, key, "emb.safetensors", "bad_embeddings", str(error)) from error


def shard_names(folder: str | os.PathLike) -> list[str]:
    """The tars of a folder in order: those of its manifest, or all `*.tar` where there is none.

    Raises:
        FileNotFoundError: there are no shards.
    """
    folder = place_of(folder)
    if (folder / "manifest.json").is_file():
        names = [shard["name"] for shard in read_manifest(folder).get("shards", [])]
    else:
        names = sorted(path.name for path in folder.glob("*.tar") if re.match(r"[^.]", path.name))
    if not names:
        raise FileNotFoundError(f"{folder} holds no shards (*.tar): name a folder that a stage has written")
    return names
