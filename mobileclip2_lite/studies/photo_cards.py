"""What the photograph teachers know, as the data card says it: measured on photographs that nothing was fitted on.

    python -m mobileclip2_lite.studies.photo_cards --captions SOURCE --named FOLDER ... --work runs/photo-cards

SOURCE is anything that `pairs` reads; 200 of its images are held out of the third teacher's map. FOLDERS hold
photographs whose file names begin with ImageNet's synset (`n01440764_tench.JPEG`). Reads both and the packages of the
extra `photos`; writes a work folder, JSON lines, and the table of data/README.md, which a test makes again. Ours.
Taught by notebooks/10_teacher_ensemble.ipynb.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from mobileclip2_lite.evaluation.measures import zero_shot_classifier
from mobileclip2_lite.models import photo_teachers
from mobileclip2_lite.models.family import FAMILY
from mobileclip2_lite.models.loaded import LoadedModel, encode_images
from mobileclip2_lite.models.zoo import create_model
from mobileclip2_lite.pairs.collect import make_pairs
from mobileclip2_lite.pairs.holding_out import hold_out
from mobileclip2_lite.recipes import Pairs
from mobileclip2_lite.studies import recorded
from mobileclip2_lite.studies.photo_teachers import make_teachers, named_photographs, recalls
from mobileclip2_lite.studies.record import where
from mobileclip2_lite.views.images import read_image
from mobileclip2_lite.work.files import write_atomic
from mobileclip2_lite.work.json_lines import to_lines
from mobileclip2_lite.work.tables import between_marks, markdown_table

FILE = "photo_teachers.jsonl"
BEGIN, END = "<!-- measured: python -m mobileclip2_lite.studies.photo_cards -->", "<!-- end of measured -->"
"""Around the table in the data card."""
BATCH = 32
"""Images a pass."""
HELD_OUT = 200
"""Captioned images that no map is fitted on."""
CLIP = {"recall": (88.0, 68.7), "imagenet": 76.2}
"""CLIP ViT-L/14 at 336 pixels, percent: R@1 both ways on Flickr30k's 1,000 test photographs, and top-1 on ImageNet;
without a label or caption of either (arXiv 2103.00020, tables 1 and 13)."""


def synsets() -> list[str]:
    """ImageNet-1k's synsets in the order of its classes, `n01440764` first."""
    from timm.data import ImageNetInfo

    return list(ImageNetInfo("imagenet-1k").label_names())


def classified(folders: Sequence[Path]) -> tuple[list[Path], torch.Tensor]:
    """(N files, (N,) classes) of photographs that are named by one of ImageNet's thousand synsets."""
    classes = {synset: label for label, synset in enumerate(synsets())}
    found = named_photographs(folders, classes)
    return [one.path for one in found], torch.tensor([classes[one.synset] for one in found])


def named_right(name: str, loaded: LoadedModel, files: Sequence[Path], labels: torch.Tensor) -> dict[str, float]:
    """Share of photographs that a teacher names right among ImageNet's thousand, and that its classifier does."""
    import timm

    kind = photo_teachers.KINDS[name]
    classifier = timm.create_model(f"tf_efficientnet_{kind.image}").eval()
    classifier.load_state_dict(photo_teachers.classifier_weights(kind))
    template = "{}" if kind.map == "names" else "a photo of a {}"  # as its map reads them
    names = zero_shot_classifier(loaded, photo_teachers.imagenet_names(), (template,))
    teacher, alone = [], []
    for start in range(0, len(files), BATCH):
        images: list[Image.Image] = [read_image(path) for path in files[start : start + BATCH]]
        teacher.append((encode_images(loaded, images, BATCH) @ names.T).argmax(1))
        with torch.inference_mode():
            alone.append(classifier(torch.stack([loaded.preprocess(image) for image in images])).argmax(1))
    right = {"teacher": torch.cat(teacher), "classifier": torch.cat(alone)}
    return {key: round(float(found.eq(labels).float().mean()), 5) for key, found in right.items()}


def measure(name: str, folders: Mapping[str, Path], named: Sequence[Path], place: Path) -> dict[str, Any]:
    """One teacher's line: made, then measured on what it was not fitted on."""
    ((folder, card),) = make_teachers([name], folders["fit"], place=place)
    loaded = create_model(folder)
    line: dict[str, Any] = {"teacher": name, "unseen_names": card.get("unseen_names")}
    if photo_teachers.KINDS[name].map != "captions":
        line["all"] = recalls(loaded, folders["all"])
    line["held_out"] = recalls(loaded, folders["held_out"])
    files, labels = classified(named)
    return {**line, "named": {"images": len(files), **named_right(name, loaded, files, labels)}, **where()}


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """The data card's table: the teachers, and beside them what published CLIPs reach on the like."""
    found = {line["teacher"]: line for line in lines}
    first = lines[0]
    held, named = first["held_out"]["images"], first["named"]["images"]

    def both(line: Mapping[str, Any], part: str) -> str:
        if part not in line:
            return "fitted on most of them"
        return _both([100 * line[part][way] for way in ("i2t_r1", "t2i_r1")])

    def unseen(line: Mapping[str, Any]) -> str:
        names = line["unseen_names"]
        return f"{100 * names['top1']:.1f} %" if names else "none: it knows its thousand"

    small, whole = FAMILY["MobileCLIP2-S0"].imagenet, "of all of ImageNet's, no label seen"
    rows = [
        (f"R@1 image to text and text to image among {first['all']['images']} photographs with "
         f"{first['all']['texts']:,} captions, none fitted on", [both(line, "all") for line in lines],
         [f"{_both(CLIP['recall'])} among Flickr30k's 1,000", ""]),
        (f"the same among {held} of them, which no map was fitted on", [both(line, "held_out") for line in lines],
         ["", ""]),
        (f"{named} photographs of ImageNet's classes, right among 1,000 names",
         [f"{100 * line['named']['teacher']:.1f} %" for line in lines],
         [f"{CLIP['imagenet']} % {whole}", f"{small} % {whole}"]),
        ("the same by its classifier alone", [f"{100 * line['named']['classifier']:.1f} %" for line in lines],
         ["", ""]),
        ("class vectors of 200 names that a map never saw, among these (chance 0.5 %)", [unseen(one) for one in lines],
         ["every name is unseen", "every name is unseen"]),
    ]  # fmt: skip
    header = ["", *(f"`{name}`" for name in found), "published: CLIP ViT-L/14, 336 pixels", "published: MobileCLIP2-S0"]
    return markdown_table(header, [[label, *cells, *others] for label, cells, others in rows], len(header))


def _both(percents: Sequence[float]) -> str:
    return " and ".join(f"{value:.1f} %" for value in percents)


def write_card(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Put the table into the data card, between its marks.

    Raises:
        ValueError: the marks are not there.
    """
    missing = f"{path} has no lines {BEGIN} and {END} for the table to stand between"
    write_atomic(path, between_marks(path.read_text("utf-8"), BEGIN, END, table(lines), missing).encode())


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the teachers, measure them, write lines and table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--captions", required=True, help="source of captioned photographs")
    parser.add_argument("--named", nargs="+", type=Path, required=True, help="folders of n01440764_tench.JPEG")
    parser.add_argument("--work", type=Path, default=Path("runs/photo-cards"))
    parser.add_argument("--output", type=Path, default=recorded.results_folder() / FILE, help="JSON lines to write")
    parser.add_argument("--card", type=Path, default=Path("data/README.md"), help="data card whose table is written")
    given = parser.parse_args(arguments)
    folders = {part: given.work / part for part in ("all", "fit", "held_out")}
    make_pairs(Pairs(source=given.captions, count=0), folders["all"])
    hold_out(folders["all"], folders["fit"], folders["held_out"], HELD_OUT)
    lines = []
    for name in photo_teachers.KINDS:
        lines.append(measure(name, folders, given.named, given.work / "teachers"))
        print(lines[-1], flush=True)
    write_atomic(given.output, to_lines(lines))
    write_card(given.card, lines)


if __name__ == "__main__":
    main()
