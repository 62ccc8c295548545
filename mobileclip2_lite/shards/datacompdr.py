"""The official layout of DataCompDR and DFNDR: read its shards, write shards that its trainer reads, join with images.

Paper: MobileCLIP (arXiv 2311.17049) section 4; layout of the published sets and of apple/ml-mobileclip-dr. A sample has
`syn.json` {"syn_text": [..]}, `paug.json` {"param_aug": list or JSON string of it}, and `npz` (fp32) or `pth.gz` (bf16)
with `image_emb` (V, D) and `text_emb`, where D is all teachers' dimensions one after another. `text_emb` holds the text
and, in the published form, the captions after it; the second generation keeps those in `<captions' key>_emb`.
Crop boxes are (top, left, height, width) in source pixels, RandAugment's shifts are pixels at the recorded size, 224.
Differs from the official code: never unpickles, and checks what it reads. Taught by notebooks/00_start_here.ipynb.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mobileclip2_lite.shards.keys import IMAGE, TEXT, caption_key, embedding_key, teachers_of
from mobileclip2_lite.shards.samples import EXTENSIONS, Sample, load_json, parse, sample_error
from mobileclip2_lite.shards.tars import ShardError, ShardInfo, read_tar, write_tar
from mobileclip2_lite.views.operations import OPERATIONS
from mobileclip2_lite.views.view import View
from mobileclip2_lite.work.bad_sample import BadSample
from mobileclip2_lite.work.files import sha256_bytes

if TYPE_CHECKING:
    from torch import Tensor

SIZE = 224
"""Side in pixels at which the official generator records shifts."""
RAW = "param_aug"
"""Where `meta` keeps official view parameters until the image, and with it the source's size, is known."""
SHIFTS = ("TranslateX", "TranslateY")


def to_view(parameters: Sequence[Any], width: int, height: int, sha256: str = "", size: int = SIZE) -> View:
    """A view from official parameters [[top, left, height, width], [[operation, magnitude], ..]].

    Raises:
        ValueError: the parameters have another form, or the box does not lie in the image: it is another image, or one
            of another size, than the one that was reinforced.
    """
    try:
        (top, left, h, w), operations = parameters[0], parameters[1] if len(parameters) > 1 else None
        named = []
        for operation, magnitude in operations or ():
            name = OPERATIONS[operation] if isinstance(operation, int) else str(operation)
            OPERATIONS.index(name)
            named.append((name, float(np.float32(magnitude / size if name in SHIFTS else magnitude))))
        box = [float(value) for value in (left / width, top / height, (left + w) / width, (top + h) / height)]
    except (TypeError, ValueError, IndexError, KeyError) as error:
        raise ValueError(f"parameters {str(parameters)[:80]} are not [crop, operations] ({error})") from error
    if len(parameters) > 2:
        raise ValueError(f"{len(parameters)} parameters a view; only crop and RandAugment are known")
    if min(left, top) < 0 or min(h, w) < 1 or left + w > width or top + h > height:
        raise ValueError(
            f"crop (top {top}, left {left}, {h} x {w}) is not inside an image of {width} x {height} pixels"
        )
    return View(tuple(box), tuple(named), False, None, width, height, sha256)


def to_official(view: View, size: int = SIZE) -> list[Any]:
    """Official parameters of a view, absolute again.

    Raises:
        ValueError: the view does not know its source's size, or has a flip or erasing, which the official
            configurations do not have.
    """
    if not view.width or not view.height:
        raise ValueError("the view does not know the size of its source")
    if view.flip or view.erase is not None:
        raise ValueError("the official layout has no flip and no erasing: reinforce with flip=0, erase=0")
    left, top, right, bottom = (
        round(share * side) for share, side in zip(view.crop, (view.width, view.height) * 2, strict=True)
    )
    operations = [[OPERATIONS.index(n), float(np.float32(m * size if n in SHIFTS else m))] for n, m in view.operations]
    return [[top, left, bottom - top, right - left], operations]


def write_official(
    path: str | os.PathLike,
    samples: Iterable[Sample],
    teachers: Sequence[str],
    dtype: str = "bf16",
    paug: str = "list",
    joined: bool | None = None,
    size: int = SIZE,
) -> ShardInfo:
    """Write reinforced samples as an official shard.

    Args:
        teachers: in the order in which their embeddings are put one after another.
        dtype: `bf16` writes `pth.gz`, `fp32` writes `npz`, as the official generator does.
        paug: `list`, or `string` for a JSON string inside the JSON, as the published sets have it.
        joined: captions' embeddings after the text's in `text_emb` (published form, one captioner) or under their own
            keys; None takes the joined form if there is one captioner, which trainers of both generations read.
        size: side in pixels that shifts are recorded for.

    Raises:
        ValueError: an embedding is missing, or a view cannot be expressed; names uid.
    """
    if dtype not in ("bf16", "fp32") or paug not in ("list", "string"):
        raise ValueError(f"dtype {dtype!r}, paug {paug!r}: bf16 or fp32, list or string")
    return write_tar(path, ((s.uid, official_members(s, teachers, dtype, paug, joined, size)) for s in samples))


def official_members(
    sample: Sample, teachers: Sequence[str], dtype: str, paug: str, joined: bool | None, size: int
) -> dict[str, bytes]:
    """The members of one sample; arguments as `write_official` takes them."""
    try:
        parameters = [to_official(view, size) for view in sample.views] or sample.meta.get(RAW, [])
        embeddings = _concatenated(sample, teachers, joined)
    except (ValueError, KeyError) as error:
        raise ValueError(f"sample {sample.uid!r} cannot be written in the official layout: {error}") from error
    out = {sample.ext: sample.image} if sample.image else {}
    out["txt"] = sample.text.encode("utf-8", "replace")
    captions = {official_caption_key(name): texts for name, texts in sample.syn_texts.items()}
    out["syn.json"] = json.dumps(captions).encode()
    out["paug.json"] = json.dumps({RAW: json.dumps(parameters) if paug == "string" else parameters}).encode()
    if dtype == "bf16":
        out["pth.gz"] = _pth_gz(embeddings)
    else:
        out["npz"] = _npz(embeddings)
    meta = {name: value for name, value in sample.meta.items() if name != RAW}
    out["json"] = json.dumps({"uid": sample.uid, **meta}).encode()
    return out


def official_caption_key(captioner: str) -> str:
    """`syn_text_<captioner>`, or `syn_text` for the captioner without a name of the published sets."""
    return caption_key(captioner) if captioner else "syn_text"


def _concatenated(sample: Sample, teachers: Sequence[str], joined: bool | None) -> dict[str, Tensor]:
    """Embeddings with all teachers side by side, as float32."""
    import torch

    def side_by_side(kind: str) -> Tensor:
        return torch.cat([sample.embeddings[embedding_key(kind, teacher)] for teacher in teachers], dim=1)

    captions = [name for name, texts in sample.syn_texts.items() if texts]
    if joined is None:
        joined = len(captions) == 1
    if joined and len(captions) > 1:
        raise ValueError(f"the joined form holds one captioner, not {len(captions)}")
    text = side_by_side(TEXT)[:1]  # the layout has place for one real text: the first
    out = {"image_emb": side_by_side(IMAGE), "text_emb": text}
    if joined and captions:
        out["text_emb"] = torch.cat([text, side_by_side(caption_key(captions[0]))])
    elif captions:
        out |= {f"{official_caption_key(name)}_emb": side_by_side(caption_key(name)) for name in captions}
    return out


def _pth_gz(embeddings: Mapping[str, Tensor]) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save({name: rows.to(torch.bfloat16) for name, rows in embeddings.items()}, buffer)
    return gzip.compress(buffer.getvalue(), mtime=0)


def _npz(embeddings: Mapping[str, Tensor]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **{name: rows.float().numpy() for name, rows in embeddings.items()})
    return buffer.getvalue()


def read_official(
    path: str | os.PathLike,
    teachers: Mapping[str, int] | Sequence[tuple[str, int]],
    size: int = SIZE,
    dropped: Counter | None = None,
) -> Iterator[Sample]:
    """The samples of an official shard, with embeddings by teacher.

    Without an image in the shard a sample's `image` is empty, its `views` are too, and the raw parameters wait in
    `meta["param_aug"]` for `with_image`.

    Args:
        teachers: name -> dimension, in the order in which they stand in the concatenated vector.
        size: side in pixels that shifts were recorded at.
        dropped: counts bad samples by reason; without it a bad sample raises.

    Raises:
        ShardError: a member is missing or not of the layout; names shard, key and member.
    """
    for key, parts in read_tar(path, dropped):
        try:
            yield _parse(str(path), key, parts, dict(teachers), size)
        except ShardError as error:
            if dropped is None:
                raise
            dropped[error.reason] += 1


def _parse(shard: str, key: str, parts: dict[str, bytes], teachers: Mapping[str, int], size: int) -> Sample:
    plain = {name: data for name, data in parts.items() if name in (*EXTENSIONS, "txt", "json", "syn.json")}
    sample = parse(key, plain, shard, need_image=False)
    if "url.txt" in parts and "source" not in sample.meta:
        sample.meta["source"] = parts["url.txt"].decode("utf-8", "replace").strip()
    sample.embeddings = _split(shard, key, parts, teachers, sample)
    if "paug.json" not in parts:
        raise sample_error(shard, key, "paug.json", "no_views", "missing")
    sample.meta[RAW] = parameters = _parameters(shard, key, parts)
    views = {len(sample.embeddings[embedding_key(IMAGE, teacher)]) for teacher in teachers_of(sample.embeddings)}
    if views != {len(parameters)}:
        raise sample_error(shard, key, "paug.json", "bad_views", f"{len(parameters)} views, embeddings of {views}")
    if sample.image:
        try:
            sample = with_image(sample, sample.image, sample.ext, size)
        except BadSample as error:
            raise sample_error(shard, key, "paug.json", error.reason, str(error)) from error
        except ValueError as error:
            raise sample_error(shard, key, "paug.json", "bad_views", str(error)) from error
    return sample


def _parameters(shard: str, key: str, parts: dict[str, bytes]) -> list:
    raw = load_json(shard, key, "paug.json", parts).get(RAW)
    try:
        raw = json.loads(raw) if isinstance(raw, str) else raw
    except ValueError as error:
        raise sample_error(shard, key, "paug.json", "bad_views", f"{RAW} is not JSON ({error})") from error
    if not isinstance(raw, list):
        raise sample_error(shard, key, "paug.json", "bad_views", f"{RAW} is not a list")
    return raw


def _load(shard: str, key: str, parts: dict[str, bytes]) -> dict[str, Tensor]:
    """The embedding member as float32 tensors; fp32 is preferred, as in the official reader."""
    import pickle

    import torch

    member = next((name for name in ("npz", "pth.gz", "npy") if name in parts), None)
    if member in (None, "npy"):
        raise sample_error(shard, key, "npz|pth.gz", "no_embeddings", "missing")
    try:
        if member == "npz":
            with np.load(io.BytesIO(parts[member]), allow_pickle=False) as arrays:
                return {name: torch.from_numpy(np.asarray(arrays[name], dtype=np.float32)) for name in arrays}
        data = io.BytesIO(gzip.decompress(parts[member]))
        loaded = torch.load(data, map_location="cpu", weights_only=True)
        return {name: torch.as_tensor(value).float() for name, value in loaded.items()}
    except (OSError, EOFError, ValueError, RuntimeError, TypeError, AttributeError, KeyError) as error:
        raise sample_error(shard, key, member, "bad_embeddings", f"{error}"[:200]) from error
    except (zlib.error, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        raise sample_error(shard, key, member, "bad_embeddings", f"{error}"[:200]) from error


def _split(
    shard: str, key: str, parts: dict[str, bytes], teachers: Mapping[str, int], sample: Sample
) -> dict[str, Tensor]:
    """The concatenated vectors by teacher, the text rows by text and captioner."""
    loaded, out = _load(shard, key, parts), {}
    for name in ("image_emb", "text_emb"):
        if name not in loaded or loaded[name].ndim != 2 or not len(loaded[name]):
            raise sample_error(shard, key, "npz|pth.gz", "bad_embeddings", f"no matrix {name}")
    captions = {name: texts for name, texts in sample.syn_texts.items() if texts}
    rows = {IMAGE: loaded["image_emb"], TEXT: loaded["text_emb"][:1]}
    behind = loaded["text_emb"][1:]
    for name, texts in captions.items():
        own = loaded.get(f"{official_caption_key(name)}_emb", behind)
        if len(own) != len(texts):
            detail = f"{len(own)} embeddings for the {len(texts)} captions of {official_caption_key(name)}"
            raise sample_error(shard, key, "npz|pth.gz", "bad_embeddings", detail)
        rows[caption_key(name)] = own
    total = sum(teachers.values())
    for name, matrix in rows.items():
        if matrix.shape[1] != total:
            detail = f"{name} has dimension {matrix.shape[1]}, the teachers {dict(teachers)} together {total}"
            raise sample_error(shard, key, "npz|pth.gz", "bad_embeddings", detail)
        for teacher, part in zip(teachers, matrix.split(list(teachers.values()), dim=1), strict=True):
            out[embedding_key(name, teacher)] = part
    return out


def with_image(sample: Sample, image: bytes, ext: str, size: int = SIZE) -> Sample:
    """The sample with its image, and its views made relative to it.

    Raises:
        ValueError: the image does not decode, or a crop box lies outside it: it is not the one that was reinforced.
    """
    from mobileclip2_lite.views.decoding import pixels

    height, width = pixels(image).shape[:2]
    sha256 = sha256_bytes(image)
    views = [to_view(parameters, width, height, sha256, size) for parameters in sample.meta.get(RAW, [])]
    meta = {k: v for k, v in sample.meta.items() if k != RAW} | {"width": width, "height": height, "sha256": sha256}
    return Sample(sample.uid, image, ext, sample.text, meta, sample.syn_texts, views, sample.embeddings)
