"""What reinforcement is worth on photographs: a student from photograph teachers beside controls of the same captions.

    python -m mobileclip2_lite.studies.photographs --captions SOURCE [--named FOLDER ...] --work runs/photographs

SOURCE is anything that `pairs` reads (a folder with a table, `hf:NAME`), with one caption an image or more. A share of
its images is held out of everything: of the teacher's map, of the students, of every choice. Folders of photographs
whose file names say what they show (`n01440764_tench.JPEG`) add pairs with a name for a text; a share of the names is
held out of the students, too. Three trainings a seed, alike but for what they read: `control`, one caption an image;
`captions`, all captions in turn; `reinforced`, these and the teachers' embeddings of stored views. The teachers are
measured on the same items. Reads a source, writes a work folder and JSON lines with every held-out item's hits, of
which `photograph_page` makes docs/photographs.md. Paper: MobileCLIP (arXiv 2311.17049), section 4, at a scale of
minutes. Taught by notebooks/80_your_own_data.ipynb.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mobileclip2_lite.evaluation.measures import expected_hit, retrieval_hits, zero_shot_classifier, zero_shot_hits
from mobileclip2_lite.models.loaded import LoadedModel, encode_images, encode_texts
from mobileclip2_lite.models.zoo import create_model
from mobileclip2_lite.pairs.collect import make_pairs
from mobileclip2_lite.pairs.holding_out import samples, split, write_pairs
from mobileclip2_lite.recipes import Augment, Pairs, Reinforce, Train
from mobileclip2_lite.reinforcement.stage import reinforce
from mobileclip2_lite.shards.samples import Sample
from mobileclip2_lite.studies import arms, recorded
from mobileclip2_lite.studies.photo_teachers import images_with_texts, make_teachers, named_photographs
from mobileclip2_lite.studies.record import told, where
from mobileclip2_lite.training.loop import train
from mobileclip2_lite.work.files import sha256_bytes
from mobileclip2_lite.work.folder import read_manifest

STUDY, FILE = "photographs", "photographs.jsonl"
"""Its lines' name and file."""
KS = (1, 10)
"""Places of a list that are looked at."""
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
    found = named_photographs(folders)
    rows = [(one.path.resolve().as_posix(), f"{NAMED}{one.name}", one.name) for one in found]
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "caption", "name"), *rows])
    return path


def one_text(sample: Sample) -> Sample:
    """The sample with its first text alone."""
    return dataclasses.replace(sample, meta={key: value for key, value in sample.meta.items() if key != "texts"})


def prepare(captions: str, named: Sequence[Path], work: Path, held_out: int, names: int) -> dict[str, Path]:
    """Folders by what they are for: `one`, `train`, `fit` (captions alone), `test`, and with names `names`."""
    make_pairs(Pairs(source=captions, count=0), work / "captioned")
    training, test = split(work / "captioned", held_out)
    known = {"captions": read_manifest(work / "captioned")["key"], "held_out": held_out}
    folders = {"test": write_pairs(work / "test", test, {"part": "test", **known}, STUDY)}
    folders["fit"] = write_pairs(work / "fit", training, {"part": "fit", **known}, STUDY)
    if named:
        table = named_table(named, work / "named.csv")
        make_pairs(Pairs(source=str(table), count=0), work / "named")
        more, unseen = split(work / "named", names)
        held = {sample.text for sample in unseen}
        training += [sample for sample in more if sample.text not in held]
        known |= {"named": read_manifest(work / "named")["key"], "names": names}
        folders["names"] = write_pairs(work / "names", unseen, {"part": "names", **known}, STUDY)
    folders["train"] = write_pairs(work / "train", training, {"part": "train", **known}, STUDY)
    folders["one"] = write_pairs(work / "one", map(one_text, training), {"part": "one", **known}, STUDY)
    return folders


def reinforced(folders: Mapping[str, Path], work: Path, teachers: Sequence[str], views: int) -> Path:
    """The training pairs reinforced; teachers named `photo-teacher-...` are made for it first."""
    ours = [name for name in teachers if name.startswith("photo-teacher-")]
    if missing := [name for name in ours if not (work / "teachers" / name / "card.json").is_file()]:
        for folder, card in make_teachers(missing, folders["fit"], folders["test"], work / "teachers"):
            print(f"{folder.name}: {card['held_out']}", flush=True)
    named = tuple(str(work / "teachers" / name) if name in ours else name for name in teachers)
    settings = Reinforce(teachers=named, views=views, augment=VIEWS)
    reinforce(settings, folders["train"], work / f"reinforced-{views}")
    return work / f"reinforced-{views}"


# --- what came out ---------------------------------------------------------------------------------------------------


def hits(loaded: LoadedModel, folders: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """Measure -> `items`, `together` (how many of them share an image) and packed `hits`.

    Retrieval both ways on `test`, every caption a query of its own; naming of `names`, which no student has read.
    """
    counts, labels, classes = questions(folders)
    images, texts = (list(some) for some in zip(*images_with_texts(folders["test"]), strict=True))
    owner = np.repeat(np.arange(len(counts)), counts)
    found = retrieval_hits(
        encode_images(loaded, images, 64), encode_texts(loaded, [text for some in texts for text in some]), owner, KS
    )
    together = counts[0] if len(set(counts)) == 1 else 1
    out = {
        name: arms.packed(values.numpy(), together if name.startswith("t2i") else 1) for name, values in found.items()
    }
    if classes:
        images = [image for image, _ in images_with_texts(folders["names"])]
        classifier = zero_shot_classifier(loaded, classes)
        found = zero_shot_hits(encode_images(loaded, images, 64), classifier, labels)
        out |= {f"names_{key}": arms.packed(values.numpy()) for key, values in found.items()}
    return out


def questions(folders: Mapping[str, Path]) -> tuple[list[int], list[int], list[str]]:
    """(captions of each image of `test`, class of each image of `names`, the classes)."""
    counts = [len(sample.texts) for sample in samples(folders["test"])]
    names = [sample.text.removeprefix(NAMED) for sample in samples(folders["names"])] if "names" in folders else []
    classes = list(dict.fromkeys(names))
    return counts, [classes.index(name) for name in names], classes


def chance(folders: Mapping[str, Path]) -> dict[str, float]:
    """What guessing scores on each measure of `hits`, exactly."""
    counts, _, classes = questions(folders)
    right = torch.tensor(counts)
    out: dict[str, float] = {}
    for k in KS:
        hit = expected_hit(0 * right, torch.full_like(right, sum(counts)), right, k)
        out |= {f"i2t_r{k}": float(hit.mean()), f"t2i_r{k}": min(1.0, k / len(counts))}
    return out | {f"names_top{k}": min(1.0, k / len(classes)) for k in ((1, 5) if classes else ())}


def record(arm: str, seed: int, folders: Mapping[str, Path], work: Path, views: int) -> dict[str, Any]:
    """Train one arm, or find it trained, and measure it."""
    data, settings = ARMS[arm]
    name, folder = (f"{arm}, {views} views", f"{arm}-{views}") if arm == "reinforced" else (arm, arm)
    out = train(settings, folders[data], work / f"{folder}-{seed}", seed, progress=False)
    facts = {"settings": told(settings), "seconds": round(read_manifest(out)["seconds"])}
    return _line(name, seed, create_model(out), folders) | facts


def record_teacher(name: str, folders: Mapping[str, Path], work: Path) -> dict[str, Any]:
    """What a teacher knows of the same items; it was not trained here and has no seed."""
    made = work / "teachers" / name
    return _line(f"teacher {name}", None, create_model(made if made.is_dir() else name), folders)


def _line(arm: str, seed: int | None, loaded: LoadedModel, folders: Mapping[str, Path]) -> dict[str, Any]:
    counted = {part: read_manifest(folders[part])["samples"] for part in ("train", "test", "names") if part in folders}
    key = sha256_bytes("".join(read_manifest(folders[part])["key"] for part in counted).encode())[:12]
    guessed = {name: round(value, 5) for name, value in chance(folders).items()}
    line = {"study": STUDY, "arm": arm, "seed": seed, "data": key, "images": counted}
    return line | {"hits": hits(loaded, folders), "chance": guessed, **where()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prepare, reinforce, train, measure; what is there already is found."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--captions", required=True, help="source of captioned photographs: a folder, a table, hf:NAME")
    parser.add_argument("--named", nargs="*", type=Path, default=[], help="folders of n01440764_tench.JPEG")
    parser.add_argument("--work", type=Path, default=Path("runs/photographs"))
    parser.add_argument("--output", type=Path, default=recorded.results_folder() / FILE, help="JSON lines to append to")
    parser.add_argument("--held-out", type=int, default=200, help="captioned images to measure on")
    parser.add_argument("--names", type=int, default=100, help="named images whose names nobody reads")
    parser.add_argument("--teachers", nargs="*", default=list(TEACHERS))
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--arms", nargs="*", default=[*ARMS, "teachers"], choices=[*ARMS, "teachers"])
    given = parser.parse_args(arguments)
    folders = prepare(given.captions, given.named, given.work, given.held_out, given.names)
    if {"reinforced", "teachers"} & set(given.arms):
        folders["reinforced"] = reinforced(folders, given.work, given.teachers, given.views)
    command = _command(given, parser)
    for line in _lines(given, folders):
        arms.append(given.output, {**line, "command": command})
        shown = {name: f"{100 * arms.hits({0: line}, name)[0].mean():.1f}" for name in line["hits"]}
        print(f"{line['arm']}, seed {line['seed']}: {shown}", flush=True)


def _command(given: argparse.Namespace, parser: argparse.ArgumentParser) -> str:
    """The command that makes these lines again, wherever they were written to and in whatever order."""
    words = ["python", "-m", "mobileclip2_lite.studies.photographs"]
    for name in ("captions", "named", "held_out", "names", "teachers", "views"):
        value = getattr(given, name)
        if value != parser.get_default(name):
            words += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, list) else [value])]
    return shlex.join(words)


def _lines(given: argparse.Namespace, folders: Mapping[str, Path]) -> Iterator[dict[str, Any]]:
    """The lines that are asked for, as they are made."""
    for name in given.teachers if "teachers" in given.arms else ():
        yield record_teacher(name, folders, given.work)
    for seed in given.seeds:
        for arm in (arm for arm in given.arms if arm in ARMS):
            yield record(arm, seed, folders, given.work, given.views)


if __name__ == "__main__":
    main()
