"""Small twins of public test sets, drawn from the embedded world: every published form, nothing downloaded.

Each twin has the form of its model, so that a reader that reads the twin reads the real one; and because the drawn
world knows the truth of every image, its negatives are false for certain, which published ones are not always. Seven
kinds of hard negatives as SugarCrepe has them (arXiv 2306.14610): add, replace and swap an attribute or an object,
replace a relation. Writes one folder. Taught by notebooks/40_reinforced_training.ipynb.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mobileclip2_lite import emoji_world
from mobileclip2_lite.emoji_world.rendering import jpeg
from mobileclip2_lite.emoji_world.scenes import TINTS, Scene, Thing
from mobileclip2_lite.emoji_world.sets import two_objects
from mobileclip2_lite.emoji_world.texts import article, clearly_placed, listed, phrase, place, relation
from mobileclip2_lite.shards.tars import write_tar
from mobileclip2_lite.work.files import pretty, write_atomic
from mobileclip2_lite.work.randomness import rng

if TYPE_CHECKING:
    from mobileclip2_lite.recipes import World

NEGATIVES = ("add_att", "add_obj", "replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj")
"""SugarCrepe's kinds."""
TWICE = ("replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj")
"""SugarCrepe++'s kinds."""
_OPPOSITE = {"to the left of": "to the right of", "above": "below"}
_OPPOSITE |= {there: here for here, there in _OPPOSITE.items()}


def write_twins(folder: str | os.PathLike, world: World, images: int = 60, renders: int = 1) -> dict[str, Path]:
    """Write a twin of every form and return where each lies, by the name of its form.

    Args:
        folder: made if it does not exist; files in it are replaced.
        world: names and sizes.
        images: images of each caption file and of each kind of hard negatives.
        renders: images a class of the classification set.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    found = {
        "wds": _wds_classes(folder / "wds_emoji", world, renders),
        "wds_retrieval": _wds_captions(folder / "wds_emoji_captions", world, images),
        "karpathy": _karpathy(folder / "karpathy", world, images),
        "docci": _docci(folder / "docci", world, images),
        "dci": _dci(folder / "dci", world, images),
    }
    for kind in NEGATIVES:
        found[f"sugarcrepe/{kind}"] = _hard(folder / "sugarcrepe", world, kind, images, twice=False)
    for kind in TWICE:
        found[f"sugarcrepe++/{kind}"] = _hard(folder / "sugarcrepe++", world, kind, images, twice=True)
    return found


def _put(path: Path, data: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, data if isinstance(data, bytes) else data.encode("utf-8"))


def _wds(folder: Path, samples: Sequence[tuple[str, dict[str, bytes]]]) -> Path:
    """The split `test` in two tars."""
    half = -(-len(samples) // 2)
    for number in range(2):
        write_tar(folder / "test" / f"{number}.tar", samples[number * half : (number + 1) * half])
    _put(folder / "test" / "nshards.txt", "2\n")
    return folder


def _wds_classes(folder: Path, world: World, renders: int) -> Path:
    images, labels, names = emoji_world.zero_shot_set(world, renders)
    rows = [
        (f"s{number:07d}", {"cls": str(label).encode(), "jpg": jpeg(pixels)})
        for number, (pixels, label) in enumerate(zip(images, labels, strict=True))
    ]
    _put(folder / "classnames.txt", "\n".join(names) + "\n")
    templates = [template.replace("{}", "{c}") for template in emoji_world.TEMPLATES]
    _put(folder / "zeroshot_classification_templates.txt", "\n".join(templates) + "\n")
    return _wds(folder, rows)


def _wds_captions(folder: Path, world: World, count: int) -> Path:
    images, captions = emoji_world.retrieval_set(world, count)
    rows = [
        (f"s{number:07d}", {"jpg": jpeg(pixels), "txt": "\n".join(texts).encode("utf-8")})
        for number, (pixels, texts) in enumerate(zip(images, captions, strict=True))
    ]
    _put(folder / "dataset_type.txt", "retrieval\n")
    return _wds(folder, rows)


def _karpathy(folder: Path, world: World, count: int) -> Path:
    """Splits as COCO's: of eight images five are `train`, and one each `restval`, `val`, `test`; all but that alike."""
    images, captions = emoji_world.retrieval_set(world, 2 * count)
    rows, number = [], 0
    for index, (pixels, texts) in enumerate(zip(images, captions, strict=True)):
        split = "test" if index < count else ("train", "restval", "val")[index % 3]
        name = f"emoji_{index:06d}.jpg"
        if split == "test":
            _put(folder / "images" / name, jpeg(pixels))
        sentences = [{"raw": t, "tokens": t.split(), "imgid": index, "sentid": number + k} for k, t in enumerate(texts)]
        number += len(texts)
        ids = [sentence["sentid"] for sentence in sentences]
        rows.append({"filename": name, "imgid": index, "split": split, "sentences": sentences, "sentids": ids})
    path = folder / "dataset_emoji.json"
    _put(path, pretty({"images": rows, "dataset": "emoji"}))
    return path


def long_caption(scene: Scene) -> str:
    """A caption of several sentences that leaves nothing out, as DOCCI's and DCI's are."""
    sentences = [f"The image shows {listed([article(phrase(thing)) for thing in scene.things])}."]
    for thing in scene.things:
        size = "large" if thing.size > 0.5 else "small" if thing.size < 0.36 else "middle-sized"
        turn = "upright" if abs(thing.rotation) < 8 else f"turned to the {'left' if thing.rotation > 0 else 'right'}"
        sentences.append(f"The {phrase(thing)} is {size}, {turn}, {place(thing)}.")
    for first, second in itertools.pairwise(scene.things):
        sentences.append(f"The {phrase(first)} is {relation(first, second)} the {phrase(second)}.")
    ground = scene.background
    sentences.append(f"All of it stands on {article(f'{ground.kind} {ground.colour} background')}.")
    return " ".join(sentences)


def _docci(folder: Path, world: World, count: int) -> Path:
    scenes = emoji_world.retrieval_set(world, count).images
    lines = []
    for index, pixels in enumerate(scenes):
        name = f"test_{index:05d}.jpg"
        _put(folder / "images" / name, jpeg(pixels))
        row = {"example_id": name[:-4], "split": "test", "image_file": name}
        lines.append(json.dumps({**row, "description": long_caption(scenes.scenes[index])}))
    path = folder / "docci_descriptions.jsonlines"
    _put(path, "\n".join(lines) + "\n")
    return path


def _dci(folder: Path, world: World, count: int) -> Path:
    scenes = emoji_world.retrieval_set(world, count).images
    names = [f"emoji_{index:05d}" for index in range(count)]
    for name, pixels, scene in zip(names, scenes, scenes.scenes, strict=True):
        _put(folder / "photos" / f"{name}.jpg", jpeg(pixels))
        short, _, rest = long_caption(scene).partition(". ")
        row = {"image": f"{name}.jpg", "short_caption": f"{short}.", "extra_caption": rest}
        _put(folder / "annotations" / f"{name}.json", pretty(row))
    _put(folder / "splits.json", pretty({"test": [f"{name}.json" for name in names], "train": [], "valid": []}))
    return folder


def _hard(folder: Path, world: World, kind: str, count: int, twice: bool) -> Path:
    """One file of hard negatives and the images that it names."""
    rows = {}
    for number, (scene, right, again, wrong) in enumerate(itertools.islice(hard_negatives(world, kind), count)):
        name = f"{scene.uid}.jpg"
        _put(folder / "images" / name, jpeg(emoji_world.render(scene, world.image_size)))
        row = {"filename": name, "caption": right, "negative_caption": wrong}
        rows[str(number)] = {**row, "caption2": again} if twice else row
    path = folder / f"{kind}.json"
    _put(path, pretty(rows))
    return path


def hard_negatives(world: World, kind: str) -> Iterator[tuple[Scene, str, str, str]]:
    """Endless (scene, right caption, the same in other words, wrong caption) of one of `NEGATIVES`.

    Raises:
        ValueError: `kind` is not one of them.
    """
    if kind not in NEGATIVES:
        raise ValueError(f"hard negatives {kind!r}: one of {', '.join(NEGATIVES)}")
    table = [name.name for name in emoji_world.names(world.names)]
    for index in itertools.count():
        scene = _scene(world, kind, index)
        first, second = scene.things
        if kind in ("replace_rel", "swap_obj") and not clearly_placed(first, second):
            continue
        draw = rng("hard-negatives", kind, scene.uid)
        absent = [name for name in table if not set(name.split()) & {w for t in scene.things for w in t.name.split()}]
        yield scene, *_captions(kind, first, second, absent, draw)


def _scene(world: World, kind: str, index: int) -> Scene:
    """Two objects; with colours of their own where the caption is about colours."""
    return two_objects(world, f"twin-{kind}", index, tint=1.1 if kind.endswith("_att") else 0.0)


def _captions(
    kind: str, first: Thing, second: Thing, absent: Sequence[str], draw: np.random.Generator
) -> tuple[str, str, str]:
    a, b = article(phrase(first)), article(phrase(second))
    right, again = f"{a} and {b}", f"there are two things here, {b} and {a}"
    other = absent[int(draw.integers(len(absent)))]
    free = [tint for tint in TINTS if tint not in (first.tint, second.tint)]
    colour = free[int(draw.integers(len(free)))]
    match kind:
        case "add_obj":
            return right, again, f"{a}, {article(other)} and {b}"
        case "add_att":
            return f"{article(first.name)} and {b}", again, f"{article(f'{colour} {first.name}')} and {b}"
        case "replace_obj":
            return right, again, f"{article(other)} and {b}"
        case "replace_att":
            return right, again, f"{article(f'{colour} {first.name}')} and {b}"
        case "swap_att":
            swapped = f"{article(f'{second.tint} {first.name}')} and {article(f'{first.tint} {second.name}')}"
            return right, again, swapped
    here = relation(first, second)
    right, again = f"{a} {here} {b}", f"{b} {_OPPOSITE[here]} {a}"
    if kind == "replace_rel":
        return right, again, f"{a} {_OPPOSITE[here]} {b}"
    return right, again, f"{b} {here} {a}"
