"""What a folder of shards holds: counts, teachers, captioners, bytes by member, and sample pictures as a web page.

Paper: none; ours, after the paper's table of data sets' sizes. Reads a folder of shards and its manifest;
writes at most one HTML file. Taught by notebooks/00_start_here.ipynb.
"""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobileclip2_lite.reports.page import Block, Code, Heading, Picture, Pictures, Table, Text, to_html, verbatim
from mobileclip2_lite.shards import embeddings as storage
from mobileclip2_lite.shards import samples as shards
from mobileclip2_lite.shards.keys import IMAGE, TEXT, caption_key, captioner_of, embedding_key, teachers_of
from mobileclip2_lite.shards.samples import EXTENSIONS, Sample
from mobileclip2_lite.shards.tars import ShardError, TarIndex, read_tar
from mobileclip2_lite.views import decoding
from mobileclip2_lite.views.replay import replay
from mobileclip2_lite.work.files import sha256_bytes, sha256_file, write_note
from mobileclip2_lite.work.folder import read_manifest
from mobileclip2_lite.work.place import place_of

if TYPE_CHECKING:
    from PIL import Image

OFFICIAL = {"npz", "pth.gz"}
"""Members that only the official layout has."""


def inspect(
    path: str | os.PathLike, html: str | os.PathLike | None = None, verify: bool = False, samples: int = 12
) -> dict[str, Any]:
    """Look at a folder of shards, or at one shard.

    Args:
        path: folder or `.tar`.
        html: file to write, with the first samples' pictures, views, captions and each teacher's best matches.
        verify: read everything and compare each shard's hash with the manifest's.
        samples: how many samples the page shows.

    Returns:
        `shards`, `samples`, `dropped`, `teachers`, `captioners`, `views` (smallest, largest), `bytes` by member with
        `tar` for what the tars themselves take, `bytes_per_sample`, `settings`, and `problems`: what does not agree,
        as readable lines. `text` is all of it for people.

    Raises:
        FileNotFoundError: there is no such folder or it holds no shards.
    """
    path = place_of(path)
    single = path.is_file()
    folder, names = (path.parent, [path.name]) if single else (path, shards.shard_names(path))
    manifest = read_manifest(folder) if not single and (folder / "manifest.json").is_file() else {}
    found = _count(folder, names)
    if manifest:
        found["problems"] += _compare(folder, manifest, found, verify)
    if verify:
        found["problems"] += _read_all(folder, names)
    found |= {
        "path": str(path),
        "texts": manifest.get("texts", found["samples"]),
        "dropped": manifest.get("dropped") or dict(_dropped(manifest)),
        "settings": manifest.get("settings", {}),
        "stage": manifest.get("stage", ""),
    }
    known = {teacher["name"]: teacher for teacher in manifest.get("teachers", [])}
    found["teachers"] = [known.get(name, {"name": name}) | {"dimension": d} for name, d in found["teachers"].items()]
    found["text"] = _text(found, bool(manifest), verify)
    if html is not None:
        write_note(html, _page(folder, names, found, samples).encode())
    return found


def _dropped(manifest: dict) -> Counter:
    return sum((Counter(shard.get("dropped", {})) for shard in manifest.get("shards", [])), Counter())


def _count(folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """Counts from the tars' headers, and names from each shard's first sample's members."""
    sizes, views, teachers, captioners = Counter(), set(), {}, set()
    samples, problems, counts = 0, [], {}
    for name in names:
        try:
            index = TarIndex(folder / name)
        except (ShardError, FileNotFoundError) as error:
            problems.append(str(error))
            continue
        counts[name] = len(index)
        samples += len(index)
        sizes["tar"] += (folder / name).stat().st_size
        for number, key in enumerate(index.keys):
            for member in index.extensions(number):
                size = index.span(number, member)[1]
                sizes["image" if member in EXTENSIONS else member] += size
                sizes["tar"] -= size
            try:
                _members(f"{folder / name}", key, index, number, views, teachers, captioners)
            except (ShardError, ValueError) as error:
                problems.append(str(error))
    return {
        "shards": len(names),
        "samples": samples,
        "counts": counts,
        "teachers": teachers,
        "captioners": sorted(captioners),
        "views": (min(views), max(views)) if views else (0, 0),
        "bytes": dict(sizes),
        "bytes_per_sample": sum(sizes.values()) / max(samples, 1),
        "problems": problems,
    }


def _members(
    shard: str, key: str, index: TarIndex, number: int, views: set, teachers: dict[str, int], captioners: set
) -> None:
    """Note the number of views, the teachers and the captioners of one sample."""
    names = index.extensions(number)
    if "syn.json" in names:
        syn = shards.load_json(shard, key, "syn.json", {"syn.json": bytes(index.member(number, "syn.json"))})
        captioners.update(captioner for name in syn if (captioner := captioner_of(name)) is not None)
    if OFFICIAL & set(names) and "paug.json" in names:
        raw = shards.load_json(shard, key, "paug.json", {"paug.json": bytes(index.member(number, "paug.json"))})
        parameters = raw.get("param_aug", [])
        views.add(len(json.loads(parameters) if isinstance(parameters, str) else parameters))
    if "emb.safetensors" not in names:
        return
    try:
        table = storage.header(index.member(number, "emb.safetensors"))
    except ValueError as error:
        raise shards.sample_error(shard, key, "emb.safetensors", "bad_embeddings", str(error)) from error
    for teacher in teachers_of(table):
        count, dimension = table[embedding_key(IMAGE, teacher)].shape
        views.add(count)
        teachers.setdefault(teacher, dimension)


def _compare(folder: Path, manifest: dict, found: dict, verify: bool) -> list[str]:
    """Where the manifest and the shards do not agree."""
    problems = []
    for shard in manifest.get("shards", []):
        name = shard["name"]
        if name in found["counts"] and "samples" in shard and found["counts"][name] != shard["samples"]:
            problems.append(f"{folder / name}: {found['counts'][name]} samples, the manifest says {shard['samples']}")
        if verify and (folder / name).is_file() and "sha256" in shard and sha256_file(folder / name) != shard["sha256"]:
            problems.append(f"{folder / name}: its SHA-256 is not the manifest's; copy or make this shard again")
    unlisted = {p.name for p in folder.glob("*.tar")} - {shard["name"] for shard in manifest.get("shards", [])}
    return [*problems, *(f"{folder / name}: not in the manifest" for name in sorted(unlisted))]


def _read_all(folder: Path, names: Sequence[str]) -> list[str]:
    """Read every sample of native shards, and hash every picture."""
    problems = []
    for name in names:
        dropped: Counter = Counter()
        try:
            for sample in _samples(folder / name, dropped):
                sha256 = (sample.meta.get("stored") or sample.meta).get("sha256")
                if sha256 and sha256_bytes(sample.image) != sha256:
                    problems.append(f"{folder / name}, uid {sample.uid}: the picture's SHA-256 is not the one noted")
        except FileNotFoundError:
            continue  # already among the problems
        problems += [f"{folder / name}: {count} samples with {reason}" for reason, count in sorted(dropped.items())]
    return problems


def _samples(path: Path, dropped: Counter) -> Iterator[Sample]:
    """The samples of a shard; of one in the official layout pictures and texts alone, its vectors name no teacher."""
    for key, parts in read_tar(path, dropped):
        official = OFFICIAL & parts.keys()
        try:
            plain = {name: data for name, data in parts.items() if name != "paug.json"} if official else parts
            yield shards.parse(key, plain, str(path), need_image=not official)
        except ShardError as error:
            dropped[error.reason] += 1


def _text(found: dict, manifest: bool, verify: bool) -> str:
    """The report for people."""
    lines = [
        f"{found['path']}" + (f"   (stage {found['stage']})" if found["stage"] else ""),
        f"shards      {found['shards']}",
        f"samples     {found['samples']}" + (f", {found['texts']} texts" if found["texts"] > found["samples"] else ""),
        "dropped     " + (", ".join(f"{n} {reason}" for reason, n in sorted(found["dropped"].items())) or "none"),
        f"views       {found['views'][0]}" + (f" to {found['views'][1]}" if len(set(found["views"])) > 1 else ""),
        "captioners  " + (", ".join(name or "(unnamed)" for name in found["captioners"]) or "none"),
    ]
    for teacher in found["teachers"]:
        facts = [
            f"{key} {teacher[key]}"
            for key in ("dimension", "image_size", "dtype", "logit_scale", "logit_bias")
            if teacher.get(key)
        ]
        lines.append(f"teacher     {teacher['name']}  {', '.join(facts)}")
    lines.append(f"bytes a sample  {found['bytes_per_sample']:.0f}")
    for member, size in sorted(found["bytes"].items(), key=lambda item: -item[1]):
        lines.append(f"  {member:16} {size / max(found['samples'], 1):10.0f}")
    lines.append(f"manifest    {'yes' if manifest else 'none'}{', hashes compared' if verify and manifest else ''}")
    lines += [f"PROBLEM     {problem}" for problem in found["problems"]] or ["problems    none found"]
    return "\n".join(lines)


def _page(folder: Path, names: Sequence[str], found: dict, count: int) -> str:
    """The HTML page: the report, then samples with views, captions and matches."""
    items: list[Sample] = []
    for name in names:
        if len(items) >= count or not (folder / name).is_file():
            break
        for item in _samples(folder / name, Counter()):
            items.append(item)
            if len(items) >= count:
                break
    blocks: list[Block] = [Code(found["text"])]
    for item in items:
        blocks += _blocks(item, items)
    return to_html(verbatim(Path(found["path"]).name), blocks)


def _blocks(item: Sample, items: Sequence[Sample]) -> Iterator[Block]:
    """One sample: image, views, texts, and what each teacher finds nearest among the texts shown."""
    yield Heading(verbatim(item.uid))
    try:
        image = decoding.decode(item.image)
        shown = [_picture(image, f"{image.width} x {image.height}")]
        for number, view in enumerate(item.views[:6]):
            operations = ", ".join(f"{name} {value:.3g}" for name, value in view.operations)
            shown.append(
                _picture(
                    replay(image, view, 120, on_mismatch="ignore"),
                    f"view {number}" + (f": {operations}" if operations else ""),
                )
            )
        yield Pictures(shown, small=True)
    except decoding.BadImage as error:
        yield Text(verbatim(str(error)))
    file = item.meta.get("file")  # as the user's table names the image
    rows = [["file", file]] if isinstance(file, str) else []
    rows += [["text", text] for text in item.texts]
    rows += [[captioner, text] for captioner, texts in item.syn_texts.items() for text in texts]
    for teacher in teachers_of(item.embeddings):
        found = (f"{score:.2f} {text}" for score, text in matches(item, items, teacher))
        rows.append([f"{teacher} finds", "; ".join(found)])
    yield Table(["whose", "words"], [[verbatim(cell) for cell in row] for row in rows], prose=True)


def matches(item: Sample, items: Sequence[Sample], teacher: str, count: int = 3) -> list[tuple[float, str]]:
    """The texts of `items` nearest to the sample's first view in a teacher's eyes, as (cosine, text)."""
    row, scored = item.embeddings[embedding_key(IMAGE, teacher)][0], {}
    for other in items:
        rows = other.embeddings.get(embedding_key(TEXT, teacher), ())  # of the first text alone in older folders
        scored |= {text: float(vector @ row) for text, vector in zip(other.texts, rows, strict=False)}
        for captioner, texts in other.syn_texts.items():
            rows = other.embeddings.get(embedding_key(caption_key(captioner), teacher), ())
            scored |= {text: float(caption @ row) for text, caption in zip(texts, rows, strict=False)}
    return sorted(((score, text) for text, score in scored.items()), reverse=True)[:count]


def _picture(image: Image.Image, caption: str) -> Picture:
    image = image.copy()
    image.thumbnail((240, 120))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return Picture(caption, buffer.getvalue(), caption, caption)
