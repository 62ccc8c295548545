"""Reads test sets in the layout of CLIP-benchmark's `wds_*` data sets: from a folder, a web address, or the hub.

    <set>/dataset_type.txt   `retrieval`; absent for classification
          classnames.txt · zeroshot_classification_templates.txt   (`{c}` or `{}` stands for the name)
          test/nshards.txt · test/0.tar · test/1.tar …   members `KEY.jpg` and `KEY.cls` or `KEY.txt` (a caption a line)

DataComp's sets have this form (`datacomp.SETS`). Tars are read as all foreign tars are (`shards.tars.unpacked`); one
from the web lies in a nameless temporary file meanwhile. A sample that lacks its image, label or caption is counted by
reason; a damaged tar is an error. Writes nothing but the hub client's own cache. Nothing is unpickled. Gives up:
multilabel sets.
Taught by notebooks/40_reinforced_training.ipynb.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from mobileclip2_lite.evaluation.sets import Example, TestSet
from mobileclip2_lite.shards.tar_members import ShardError, list_samples
from mobileclip2_lite.shards.tars import unpacked
from mobileclip2_lite.work.bad_sample import BadSample
from mobileclip2_lite.work.place import place_of
from mobileclip2_lite.work.store import url_of
from mobileclip2_lite.work.texts import texts_of

IMAGES = ("webp", "png", "jpg", "jpeg")
"""Members that hold the image, in CLIP-benchmark's order of preference."""
TIMEOUT = 60
"""Seconds without a byte after which a web address counts as dead."""
WEB = ("http://", "https://")
HUB = "hf:"
_HUB_PAGE = re.compile(r"https://huggingface\.co/datasets/([^/]+/[^/]+)(?:/(?:tree|resolve|raw)/([^/]+))?/?$")

Opener = Callable[[str], BinaryIO]
"""Opens a file of the set by its path below the set's folder; FileNotFoundError where there is none."""


def open_wds(source: str | os.PathLike, split: str = "test") -> TestSet:
    """The set at `source`.

    Args:
        source: a folder, a store's (`s3://…`), `https://…` (the folder's address), or `hf:OWNER/NAME`
            (`…@REVISION`); a data set's page on the hub does too.
        split: folder of the split.

    Raises:
        FileNotFoundError: there is no `nshards.txt` of that split, or the address cannot be reached.
        ValueError: `nshards.txt` is no number, or the set is of a kind that is not read.
    """
    text = str(source)
    opener = _opener(text)
    count = _read(opener, f"{split}/nshards.txt")
    if count is None:
        raise FileNotFoundError(f"{text} has no {split}/nshards.txt: a set of CLIP-benchmark's layout has one a split")
    if not count.strip().isdigit():
        raise ValueError(f"{text}/{split}/nshards.txt must hold the number of tars, not {count.strip()[:40]!r}")
    kind = (_read(opener, "dataset_type.txt") or "classification").strip().lower()
    if kind not in ("classification", "retrieval"):
        raise ValueError(f"{text} is a {kind} set: only classification and retrieval are measured")
    tars = [f"{split}/{number}.tar" for number in range(int(count))]
    parts = tuple(functools.partial(_examples, opener, tar, text, kind) for tar in tars)
    return TestSet(
        name=_name(text),
        kind=kind,
        split=split,
        source=text,
        examples=lambda: (example for part in parts for example in part()),
        class_names=_class_names(_read(opener, "classnames.txt")),
        templates=tuple(
            line.replace("{c}", "{}") for line in _lines(_read(opener, "zeroshot_classification_templates.txt"))
        ),
        parts=parts,
    )


def is_wds(source: str | os.PathLike, split: str = "test") -> bool:
    """Whether a folder or a store's holds that split of such a set; web addresses and the hub's names are taken to."""
    text = str(source)
    return text.startswith((*WEB, HUB)) or (place_of(text) / split / "nshards.txt").is_file()


def _name(source: str) -> str:
    page = _HUB_PAGE.match(source)
    last = (page[1] if page else source.removeprefix(HUB).partition("@")[0]).rstrip("/\\")
    return re.split(r"[/\\]", last)[-1].removeprefix("wds_").removesuffix("_test")


def _class_names(text: str | None) -> tuple[str, ...]:
    """A name a line; an empty line in between keeps its place, or all labels after it would name another class."""
    return tuple(line.strip() for line in (text or "").rstrip().splitlines())


def _lines(text: str | None) -> list[str]:
    return [line.strip() for line in (text or "").splitlines() if line.strip()]


def _read(opener: Opener, path: str) -> str | None:
    try:
        with opener(path) as file:
            return file.read().decode("utf-8-sig")
    except FileNotFoundError:
        return None


def _opener(source: str) -> Opener:
    page = _HUB_PAGE.match(source)
    if page:
        return _hub(page[1], page[2])
    if url_of(source) and not source.startswith(WEB):
        stored = place_of(source)
        return lambda path: open(stored / path, "rb")
    if source.startswith(HUB):
        name, _, revision = source.removeprefix(HUB).partition("@")
        return _hub(name, revision or None)
    if source.startswith(WEB):
        return _web(source.rstrip("/"))
    folder = Path(source)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder: name the folder that holds the set")
    return lambda path: open(folder / path, "rb")


def _web(address: str) -> Opener:
    from urllib.error import HTTPError, URLError
    from urllib.request import urlopen

    def opened(path: str) -> BinaryIO:
        try:
            return urlopen(f"{address}/{path}", timeout=TIMEOUT)
        except HTTPError as error:
            if error.code in (403, 404, 410):
                raise FileNotFoundError(f"{address}/{path} does not exist ({error.code})") from error
            raise ConnectionError(f"{address}/{path}: {error}; try again later") from error
        except URLError as error:
            raise ConnectionError(f"{address}/{path} can't be reached: {error.reason}") from error

    return opened


def _hub(name: str, revision: str | None) -> Opener:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    def opened(path: str) -> BinaryIO:
        try:
            return open(hf_hub_download(name, path, repo_type="dataset", revision=revision), "rb")
        except LocalEntryNotFoundError as error:
            optional = not path.endswith((".tar", "nshards.txt"))
            if optional:  # offline the client cannot tell what does not exist from what is not cached
                raise FileNotFoundError(path) from error
            raise ConnectionError(f"hf:{name}: {path} is not in the cache and the hub can't be reached") from error
        except EntryNotFoundError as error:
            raise FileNotFoundError(path) from error
        except HfHubHTTPError as error:
            raise ConnectionError(f"hf:{name}: {path}: {error}") from error

    return opened


def _examples(opener: Opener, tar: str, source: str, kind: str) -> Iterator[Example | BadSample]:
    """The samples of one tar; those that lack something as what they lack.

    Raises:
        FileNotFoundError: there is no such tar.
        ValueError: the tar is damaged: what follows would be missing from the set without a number.
    """
    label = f"{source}/{tar}"
    try:
        with opener(tar) as file:
            data, cut = unpacked(file, label)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{source} has no {tar}, though its nshards.txt counts it: fetch it again") from error
    except ShardError as error:
        raise ValueError(f"{label} is damaged ({error.detail}): fetch it again") from error
    with data:
        listing = list_samples(data, label)
        if cut or listing.damage:
            raise ValueError(f"{label} is damaged ({cut or listing.damage.detail}): fetch it again")
        for key, members in listing.samples:
            try:
                yield _example({name: data[at : at + size] for name, (at, size) in members.items()}, kind)
            except BadSample as error:
                yield BadSample(error.reason, error.detail, f"{label}: sample {key}")


def _example(members: dict[str, bytes], kind: str) -> Example:
    """One sample of a set.

    Raises:
        BadSample: `no_image`, `bad_label`, or why there is no caption.
    """
    image = next((members[name] for name in IMAGES if name in members), None)
    if image is None:
        raise BadSample("no_image", f"no image (.{', .'.join(IMAGES)}) among {sorted(members)}")
    if kind == "retrieval":
        return Example(image, texts=tuple(line for text in texts_of(members.get("txt")) for line in _lines(text)))
    label = members.get("cls", b"").strip()
    if not label.lstrip(b"-").isdigit():
        raise BadSample("bad_label", f"no whole number as its label (.cls): {label[:40]!r}")
    return Example(image, label=int(label))
