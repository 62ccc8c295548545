"""What reinforcement is worth on photographs: a student from photograph teachers beside controls of the same captions.

    python -m mobileclip2_lite.studies.photographs --captions SOURCE [--named FOLDER ...] --work runs/photographs

SOURCE is anything that `pairs` reads (a folder with a table, `hf:NAME`), with one caption an image or more. A share of
its images is held out of everything: of the teacher's map, of the students, of every choice. Folders of photographs
whose file names say what they show (`n01440764_tench.JPEG`) add pairs with a name for a text; a share of the names is
held out, too. Three trainings a seed, alike but for what they read: `control`, one caption an image; `captions`, all
captions in turn; `reinforced`, these and the teachers' embeddings of stored views. Reads a source, writes a work folder
and JSON lines with every held-out item's hits, from which `table` takes intervals. Paper: MobileCLIP (arXiv
2311.17049), section 4, at a scale of minutes. Taught by notebooks/40_reinforced_training.ipynb.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mobileclip2_lite.evaluation.measures import zero_shot_classifier
from mobileclip2_lite.models.loaded import LoadedModel, encode_images, encode_texts
from mobileclip2_lite.models.zoo import create_model
from mobileclip2_lite.pairs.collect import make_pairs
from mobileclip2_lite.recipes import Augment, Pairs, Reinforce, Train
from mobileclip2_lite.reinforcement.stage import reinforce
from mobileclip2_lite.shards.samples import Sample, read_samples, shard_names, write_shard
from mobileclip2_lite.studies import intervals, recorded
from mobileclip2_lite.studies.photo_teachers import images_with_texts, make_teachers
from mobileclip2_lite.training.loop import train
from mobileclip2_lite.views.decoding import SUFFIXES
from mobileclip2_lite.work.files import sha256_bytes, to_json
from mobileclip2_lite.work.folder import Work, read_manifest

NAMED = "a photo of a "
"""The text of a photograph that has a name and no caption."""
TEACHERS = ("photo-teacher-names", "photo-teacher-captions")
RECIPE = Train(
    model="lite-mci-s",
    image_size=64,
    samples=30_000,
    batch_size=128,
    optimizer="nmuon",
    learning_rate=5e-3,
    weight_decay=0.0,
    workers=0,
    checkpoint_every=50,
    tracker="none",
)
"""The same for all; AdamW at 1e-3 sees too few samples here."""
VIEWS = Augment(scale=(0.4, 1.0), operations=0)
"""Crops alone: a student of 64 pixels loses more by stronger views than it learns (docs/lab_log.md)."""
ARMS = {
    "control": ("one", dataclasses.replace(RECIPE, distill=0.0, views="weak")),
    "captions": ("train", dataclasses.replace(RECIPE, distill=0.0, views="weak")),
    "reinforced": ("reinforced", RECIPE),
}
"""Arm -> the folder that it reads, and its training."""


# --- the data --------------------------------------------------------------------------------------------------------


def named_table(folders: Sequence[Path], path: Path) -> Path:
    """A table of photographs whose file names end in what they show: `n01440764_great_white_shark.JPEG`."""
    rows = []
    for folder in folders:
        for file in sorted(Path(folder).iterdir()):
            found = re.fullmatch(r"n\d+_(.+)", file.stem)
            if found and file.suffix.lower() in SUFFIXES:
                name = found[1].replace("_", " ")
                rows.append((file.resolve().as_posix(), f"{NAMED}{name}", name))
    if not rows:
        raise ValueError(f"no photographs named like n01440764_tench.JPEG in {', '.join(map(str, folders))}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "caption", "name"), *rows])
    return path


def samples(folder: Path) -> Iterator[Sample]:
    """All samples of a folder of pairs."""
    for name in shard_names(folder):
        yield from read_samples(folder / name)


def split(folder: Path, held_out: int) -> tuple[list[Sample], list[Sample]]:
    """(training, held out): which images are held out follows from their bytes alone."""
    found = sorted(samples(folder), key=lambda sample: sha256_bytes(b"held out" + sample.image))
    if not 0 < held_out < len(found):
        raise ValueError(f"{held_out} of {len(found)} images cannot be held out")
    return found[held_out:], found[:held_out]


def write_pairs(folder: Path, found: Iterable[Sample], identity: Mapping[str, Any], shard: int = 500) -> Path:
    """A folder of pairs, made once."""
    work = Work(folder, "pairs", 1, dict(identity))
    if work.done():
        return folder
    with work.lock():
        work.begin()
        found, records, texts = iter(found), [], 0
        while some := list(islice(found, shard)):
            name = f"shard-{len(records):06d}.tar"
            records.append({"name": name, **write_shard(folder / name, some)._asdict(), "dropped": {}})
            texts += sum(len(sample.texts) for sample in some)
        total = sum(record["samples"] for record in records)
        work.commit(source="photographs", samples=total, texts=texts, dropped={}, shards=records)
    return folder


def one_text(sample: Sample) -> Sample:
    """The sample with its first text alone."""
    return dataclasses.replace(sample, meta={key: value for key, value in sample.meta.items() if key != "texts"})


def prepare(captions: str, named: Sequence[Path], work: Path, held_out: int, names: int) -> dict[str, Path]:
    """Folders by what they are for: `one`, `train`, `fit` (captions alone), `test`, and with names `names`."""
    make_pairs(Pairs(source=captions, count=0), work / "captioned")
    training, test = split(work / "captioned", held_out)
    known = {"captions": read_manifest(work / "captioned")["key"], "held_out": held_out}
    folders = {"test": write_pairs(work / "test", test, {"part": "test", **known})}
    folders["fit"] = write_pairs(work / "fit", training, {"part": "fit", **known})
    if named:
        table = named_table(named, work / "named.csv")
        make_pairs(Pairs(source=str(table), count=0), work / "named")
        more, unseen = split(work / "named", names)
        held = {sample.text for sample in unseen}
        training += [sample for sample in more if sample.text not in held]
        known |= {"named": read_manifest(work / "named")["key"], "names": names}
        folders["names"] = write_pairs(work / "names", unseen, {"part": "names", **known})
    folders["train"] = write_pairs(work / "train", training, {"part": "train", **known})
    folders["one"] = write_pairs(work / "one", map(one_text, training), {"part": "one", **known})
    return folders


def reinforced(folders: Mapping[str, Path], work: Path, teachers: Sequence[str], views: int) -> Path:
    """The training pairs reinforced; teachers named `photo-teacher-...` are made for it first."""
    ours = [name for name in teachers if name.startswith("photo-teacher-")]
    if missing := [name for name in ours if not (work / "teachers" / name / "card.json").is_file()]:
        for folder, card in make_teachers(missing, folders["fit"], folders["test"], work / "teachers"):
            print(f"{folder.name}: {card['held_out']}", flush=True)
    named = tuple(str(work / "teachers" / name) if name in ours else name for name in teachers)
    settings = Reinforce(teachers=named, views=views, augment=VIEWS)
    reinforce(settings, folders["train"], work / "reinforced")
    return work / "reinforced"


# --- what came out ---------------------------------------------------------------------------------------------------


def hits(loaded: LoadedModel, folders: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """Measure -> `items`, `together` (how many of them share an image) and packed `hits`.

    Retrieval both ways on `test`, every caption a query of its own; naming of `names`, none of which was read.
    """
    found = list(images_with_texts(folders["test"]))
    counts = [len(some) for _, some in found]
    images = encode_images(loaded, [image for image, _ in found], 64)
    texts = encode_texts(loaded, [text for _, some in found for text in some])
    right = torch.arange(len(found)).repeat_interleave(torch.tensor(counts)) == torch.arange(len(found))[:, None]
    scores, out = images @ texts.T, {}
    for k in (1, 10):
        out[f"i2t_r{k}"] = _packed(right.gather(1, scores.topk(min(k, len(texts))).indices).any(1))
        hit = right.T.gather(1, scores.T.topk(min(k, len(images))).indices).any(1)
        out[f"t2i_r{k}"] = _packed(hit, counts[0] if len(set(counts)) == 1 else 1)
    if "names" in folders:
        found = list(images_with_texts(folders["names"]))
        names = [some[0].removeprefix(NAMED) for _, some in found]
        classes = list(dict.fromkeys(names))
        features = encode_images(loaded, [image for image, _ in found], 64)
        best = (features @ zero_shot_classifier(loaded, classes).T).topk(min(5, len(classes)), dim=1).indices
        hit = best == torch.tensor([classes.index(name) for name in names])[:, None]
        out |= {"names_top1": _packed(hit[:, 0]), "names_top5": _packed(hit.any(1))}
    return out


def _packed(values: Tensor, together: int = 1) -> dict[str, Any]:
    return {"items": len(values), "together": together, "hits": intervals.pack(values.float().numpy())}


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """Markdown, in percent: each arm's mean over its seeds, and its gain over the first arm with a 95 % interval."""
    measures = list(lines[0]["hits"])
    arms: dict[str, dict[int, Mapping[str, Any]]] = {}
    for line in lines:
        arms.setdefault(line["arm"], {})[line["seed"]] = line["hits"]
    first = next(iter(arms))
    out = ["| | " + " | ".join(measures) + " |", "|---" * (1 + len(measures)) + "|"]
    for arm, seeds in arms.items():
        cells = []
        for measure in measures:
            rows = {one: _unpacked(arms[one], measure) for one in (arm, first)}
            cell = f"{100 * np.mean(list(rows[arm].values())):.1f}"
            gain = intervals.difference(rows[arm], rows[first], next(iter(seeds.values()))[measure]["together"])
            if arm != first and gain is not None:
                cell += f" ({100 * gain.mean:+.1f}"
                cell += ")" if gain.low is None else f", {100 * gain.low:+.1f} to {100 * gain.high:+.1f})"
            cells.append(cell)
        out.append(f"| {arm}, {len(seeds)} seeds | " + " | ".join(cells) + " |")
    return "\n".join(out)


def _unpacked(seeds: Mapping[int, Mapping[str, Any]], measure: str) -> dict[int, np.ndarray]:
    return {seed: intervals.unpack(hits[measure]["hits"], hits[measure]["items"]) for seed, hits in seeds.items()}


def record(arm: str, seed: int, folders: Mapping[str, Path], work: Path) -> dict[str, Any]:
    """Train one arm, or find it trained, and measure it."""
    data, settings = ARMS[arm]
    out = train(settings, folders[data], work / f"{arm}-{seed}", seed, progress=False)
    manifest = read_manifest(out)
    facts = {"settings": to_json(settings), "seconds": manifest["seconds"], "data": read_manifest(folders[data])["key"]}
    return {"study": "photographs", "arm": arm, "seed": seed, "hits": hits(create_model(out), folders), **facts}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prepare, reinforce, train, measure; what is there already is found."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--captions", required=True, help="source of captioned photographs: a folder, a table, hf:NAME")
    parser.add_argument("--named", nargs="*", type=Path, default=[], help="folders of n01440764_tench.JPEG")
    parser.add_argument("--work", type=Path, default=Path("runs/photographs"))
    parser.add_argument("--output", type=Path, help="JSON lines to append to")
    parser.add_argument("--held-out", type=int, default=200, help="captioned images to measure on")
    parser.add_argument("--names", type=int, default=100, help="named images whose names nobody reads")
    parser.add_argument("--teachers", nargs="*", default=list(TEACHERS))
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=list(ARMS))
    given = parser.parse_args(arguments)
    folders = prepare(given.captions, given.named, given.work, given.held_out, given.names)
    lines = []
    for seed in given.seeds:
        for arm in given.arms:
            if arm == "reinforced":
                folders["reinforced"] = reinforced(folders, given.work, given.teachers, given.views)
            line = record(arm, seed, folders, given.work)
            line["command"] = shlex.join(["python", "-m", "mobileclip2_lite.studies.photographs", *sys.argv[1:]])
            lines.append(line)
            if given.output:
                _append(given.output, line)
            print(table(lines), flush=True)


def _append(path: Path, line: Mapping[str, Any]) -> None:
    """Add a line, unless the same arm and seed on the same data stand there."""
    same = ("arm", "seed", "data", "settings")
    if not any(all(one[key] == line[key] for key in same) for one in recorded.read_lines(path)):
        recorded.append_lines(path, [line])


if __name__ == "__main__":
    main()
