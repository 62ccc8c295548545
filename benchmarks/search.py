"""Search: milliseconds of an answer over 50,000 images, and images a second while the index is made.

    python benchmarks/search.py                                    # rendered scenes
    python benchmarks/search.py --photos FOLDER --model out/student

The answer: a question's embedding, the product with every image's, and the best ten. The index: files read, decoded,
turned upright, resized, embedded and written, on one core and on all, beside the encoder alone on one core, which is
given images that are decoded already. Features of the 50,000 are random, all else is as `search` does it. On a machine
that does other work, `--clock cpu` counts the seconds of all cores: then a ratio of 1 to the encoder alone says that
both cores do nothing but encode. Writes results/search.jsonl.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import harness
import inputs
import numpy as np

from mobileclip2_lite.deployment import index_parts
from mobileclip2_lite.deployment.image_files import Entry, Unread, find_images, open_image
from mobileclip2_lite.deployment.near_duplicates import groups
from mobileclip2_lite.deployment.runtime import Exported, load_exported
from mobileclip2_lite.deployment.search import Index, build_index
from mobileclip2_lite.deployment.towers import exported_folder

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
Clock = Callable[[], float]


def large_index(folder: Path, model: Exported, images: int) -> Index:
    """An index of random features, as it is found on the disk."""
    width = model.embed_texts(["a"]).shape[1]
    features = np.random.default_rng(0).standard_normal((images, width), np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    index_parts.write_part(folder, [Entry(f"{number:06d}.jpg", number, 1) for number in range(images)], features)
    stored = index_parts.read_parts(folder)
    return Index(folder, model, stored.entries, stored.features)


def answers(model: Exported, image: Path, images: int, rounds: int, clock: Clock, folder: Path) -> list[dict]:
    """Milliseconds of each kind of question."""
    index = large_index(folder, model, images)
    ways = {
        "open the index": lambda _: index_parts.read_parts(folder),
        "a text": lambda n: index.search(f"a photo of thing number {n}"),
        "an image": lambda _: index.search(image=image),
        "both, without a text": lambda n: index.search(f"thing number {n}", image, without=f"other thing {n}"),
        "near-duplicates": lambda _: groups(index.entries, index.features),
    }
    lines = []
    for way, seconds in harness.in_turns(ways, rounds, clock).items():
        times = {"milliseconds": 1e3 * statistics.median(seconds), "highest": 1e3 * max(seconds)}
        lines.append({"benchmark": "search", "way": way, "images": images, **times, "repeats": rounds})
    return lines


def indexing(model: Exported, photos: Path, rounds: int, clock: Clock, folder: Path) -> list[dict]:
    """Images a second while an index is made, beside the encoder alone."""
    opened = [open_image(photos / entry.name) for entry in find_images(photos, Unread())]

    def encoder(_: int) -> None:
        for start in range(0, len(opened), 32):
            model.embed_images(opened[start : start + 32])

    def index(workers: int, number: int) -> None:
        made = build_index(photos, model, folder / f"{workers}-{number}", workers=workers)
        assert made.embedded == len(opened)

    ways = {"the encoder alone, one core": encoder, "index, one core": lambda number: index(1, number)}
    if (cores := os.cpu_count() or 1) > 1:
        ways[f"index, {cores} cores"] = lambda number: index(cores, number)
    found = harness.compared(harness.in_turns(ways, rounds, clock), dict.fromkeys(ways, len(opened)), next(iter(ways)))
    rates = {way: {"images_per_second": one.median, "ratio_to_encoder": one.ratio} for way, one in found.items()}
    return [
        {"benchmark": "index", "way": way, "images": len(opened), **rate, "repeats": rounds}
        for way, rate in rates.items()
    ]


def main() -> None:
    """Measure, print and keep."""
    parser = harness.parser(__doc__, "search")
    inputs.add_photos(parser, 400)
    parser.add_argument("--model", default="lite-teacher-conv", help="exported towers, or any model with weights")
    parser.add_argument("--images", type=int, default=50_000, help="images to search")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="seconds on the wall, or of all cores")
    given = parser.parse_args()
    clock = CLOCKS[given.clock]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = load_exported(exported_folder(given.model, folder), threads=1)
        for below in ("photos", "large", "index"):
            (folder / below).mkdir()
        for number, data in enumerate(inputs.images(given.photos, given.count)):
            (folder / "photos" / f"{number:05d}.jpg").write_bytes(data)
        asked = answers(model, folder / "photos" / "00000.jpg", given.images, given.repeats, clock, folder / "large")
        made = indexing(model, folder / "photos", given.repeats, clock, folder / "index")
    facts = {"pictures": "photographs" if given.photos else "rendered scenes", "model": Path(given.model).name}
    facts["clock"] = given.clock
    harness.keep(given.out, [{**line, **facts} for line in (*asked, *made)])
    harness.show(asked, ["way", "images", "milliseconds", "highest"])
    harness.show(made, ["way", "images", "images_per_second", "ratio_to_encoder"])


if __name__ == "__main__":
    main()
