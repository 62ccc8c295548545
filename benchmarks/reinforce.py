"""Reinforcement: samples a second, bytes a sample, and what storage and smaller pictures do to embeddings and student.

    python benchmarks/reinforce.py --photos FOLDER            # or MOBILECLIP2_LITE_PHOTOS; else rendered scenes
    python benchmarks/reinforce.py --student 16384 --seeds 3  # also trains lite students on each storage

The official way, built from stock libraries in this program: PIL decodes, torchvision crops and augments each view, the
teachers forward one view of a batch after another and one caption of a batch after another, `webdataset` writes. Same
teachers (the embedded pair), pictures and numbers of views and captions both ways. Writes results/reinforce.jsonl.
"""

from __future__ import annotations

import dataclasses
import io
import json
import tempfile
import warnings
from pathlib import Path

import harness
import inputs
import numpy as np
import torch

from mobileclip2_lite.models.teachers import load_teachers
from mobileclip2_lite.recipes import AltText, Augment, Reinforce, lite
from mobileclip2_lite.reinforcement.stage import reinforce
from mobileclip2_lite.shards import samples as shards
from mobileclip2_lite.shards.datacompdr import write_official
from mobileclip2_lite.shards.embeddings import STORAGE
from mobileclip2_lite.shards.shrinking import shrunk
from mobileclip2_lite.views import decoding
from mobileclip2_lite.views.drawing import draw
from mobileclip2_lite.views.replay import replay
from mobileclip2_lite.work.files import sha256_bytes
from mobileclip2_lite.work.folder import Work
from mobileclip2_lite.work.randomness import rng

VIEWS, CAPTIONS = 5, 5


def write_pairs(folder: Path, images: list[bytes]) -> list[shards.Sample]:
    """One shard of captioned pairs."""
    items = inputs.samples(images, views=1, captions=CAPTIONS)
    items = [dataclasses.replace(item, views=[], embeddings={}) for item in items]
    info = shards.write_shard(folder / "shard-000000.tar", items)
    Work(folder, "pairs", 1, {"count": len(items)}).commit(
        shards=[{"name": "shard-000000.tar", "sha256": info.sha256, "samples": info.samples, "dropped": {}}]
    )
    return items


def official_way(items: list[shards.Sample], teachers, out: Path, batch_size: int = 64) -> None:
    """The reinforcement as the official generator goes about it, with the same teachers."""
    import webdataset
    from torchvision import transforms as T
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as F

    size = max(teachers.image_size(name) for name in teachers.names)
    crop = T.RandomResizedCrop(size, interpolation=InterpolationMode.BICUBIC)
    augment = T.RandAugment()
    from PIL import Image

    with webdataset.TarWriter(str(out)) as sink:
        for start in range(0, len(items), batch_size):
            batch, views = items[start : start + batch_size], []
            for item in batch:
                image = Image.open(io.BytesIO(item.image)).convert("RGBA").convert("RGB")
                views.append(torch.stack([F.pil_to_tensor(augment(crop(image))) for _ in range(VIEWS)]))
            views = torch.stack(views, 1)
            texts = [[item.text, *item.syn_texts["c"]] for item in batch]
            image_emb = [
                torch.cat([teachers.embed_images(n, views[v]) for n in teachers.names], 1) for v in range(VIEWS)
            ]
            text_emb = [
                torch.cat([teachers.embed_texts(n, [t[i] for t in texts]) for n in teachers.names], 1)
                for i in range(1 + CAPTIONS)
            ]
            for i, item in enumerate(batch):
                emb = {
                    "image_emb": torch.stack([e[i] for e in image_emb]),
                    "text_emb": torch.stack([e[i] for e in text_emb]),
                }
                sink.write(
                    {
                        "__key__": item.uid,
                        "jpg": item.image,
                        "txt": item.text,
                        "syn.json": json.dumps({"syn_text": texts[i][1:]}),
                        "pth.gz": {name: value.bfloat16() for name, value in emb.items()},
                        "json": "{}",
                    }
                )


def speed(images: list[bytes], teachers, repeats: int, folder: Path) -> list[dict]:
    """Samples a second of process time, both ways."""
    items, settings = write_pairs(folder / "pairs", images), Reinforce(teachers=teachers.names, views=VIEWS)

    def ours(number: int) -> None:
        reinforce(settings, folder / "pairs", folder / f"ours-{number}", ensemble=teachers)

    ways = {"official": lambda number: official_way(items, teachers, folder / "official.tar"), "ours": ours}
    found = harness.compared(harness.in_turns(ways, repeats), dict.fromkeys(ways, len(items)), "official")
    return [
        {
            "benchmark": "reinforce",
            "way": way,
            "samples_per_second": round(timed.median, 2),
            "views_per_second": round(VIEWS * timed.median, 1),
            "ratio_to_official": round(timed.ratio, 3),
            "repeats": timed.rounds,
            "count": len(items),
        }
        for way, timed in found.items()
    ]


def bytes_a_sample(images: list[bytes], folder: Path) -> list[dict]:
    """Bytes a sample without its picture: 5 views, 6 texts, two teachers of dimension 768."""
    items = [dataclasses.replace(item, image=b"") for item in inputs.samples(images, VIEWS, CAPTIONS)]
    sizes = {}
    for dtype, name in (("bf16", "official, pth.gz bf16"), ("fp32", "official, npz fp32")):
        sizes[name] = write_official(folder / "official.tar", items, list(inputs.TEACHERS), dtype=dtype).bytes
    for storage in STORAGE:
        sizes[f"ours, {storage}"] = shards.write_shard(folder / "ours.tar", items, storage).bytes
    base = sizes["official, pth.gz bf16"]
    return [
        {
            "benchmark": "storage",
            "way": name,
            "bytes_per_sample": round(size / len(items)),
            "share": round(size / base, 3),
        }
        for name, size in sizes.items()
    ]


def fidelity(images: list[bytes], teachers) -> list[dict]:
    """What storage, resampling and smaller pictures do to a teacher's embedding of a view, and to its targets."""
    out = []
    for name in teachers.names:
        size, interpolation = teachers.image_size(name), teachers.interpolation(name)
        exact, ways = [], {"torch's resampling": [], f"side {size}": [], f"side {2 * size}": [], "side 256": []}
        for number, data in enumerate(images):
            image, digest = decoding.pixels(data), sha256_bytes(data)
            view = draw(rng("fidelity", number), *image.shape[1::-1], Augment(), digest)
            sample = shards.Sample(str(number), data, "jpg", "", {})
            exact.append(np.asarray(replay(image, view, size, interpolation)))
            ways["torch's resampling"].append(np.asarray(replay(image, view, size, interpolation, resampling="torch")))
            for side in (size, 2 * size, 256):
                small = decoding.pixels(shrunk(sample, side, 85).image)
                ways[f"side {side}"].append(np.asarray(replay(small, view, size, interpolation, "ignore")))
        rows = _embed(teachers, name, exact)
        changed = {way: _embed(teachers, name, pixels) for way, pixels in ways.items()}
        for storage in STORAGE[:-1]:
            from mobileclip2_lite.shards.embeddings import decode, encode

            changed[f"storage {storage}"] = decode(encode({"x": rows}, storage))["x"]
        for way, other in changed.items():
            cosine = torch.nn.functional.cosine_similarity(rows, other)
            scale = teachers.logit_scales[name]
            before, after = (torch.log_softmax(scale * r @ rows.T, 1) for r in (rows, other))
            out.append(
                {
                    "benchmark": "fidelity",
                    "teacher": name,
                    "way": way,
                    "cosine_mean": round(float(cosine.mean()), 6),
                    "cosine_lowest": round(float(cosine.min()), 6),
                    "target_kl_mean": float(f"{float((before.exp() * (before - after)).sum(1).mean()):.3g}"),
                    "count": len(images),
                }
            )
    return out


def _embed(teachers, name: str, pixels: list[np.ndarray]) -> torch.Tensor:
    batch = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)
    return torch.cat([teachers.embed_images(name, part) for part in batch.split(32)])


def students(samples: int, seeds: range, pairs: int, storages: list[str], folder: Path) -> list[dict]:
    """Zero-shot accuracy of lite students trained on the same reinforcement in each storage."""
    from mobileclip2_lite.evaluation.suite import evaluate
    from mobileclip2_lite.models.zoo import create_model
    from mobileclip2_lite.pairs.collect import make_pairs
    from mobileclip2_lite.training.loop import train

    recipe, out = lite(), []
    world = dataclasses.replace(
        recipe.world, names=24, max_objects=1, alt_text=AltText(mismatch=0.0)
    )  # few names, so that a short training learns
    make_pairs(dataclasses.replace(recipe.pairs, count=pairs), folder / "emoji", world, 0)
    for storage in storages:
        reinforce(dataclasses.replace(recipe.reinforce, storage=storage), folder / "emoji", folder / storage)
    for seed in seeds:
        for storage in storages:
            changes = {"samples": samples, "batch_size": 64, "captioners": (), "evaluate_every": 0}
            settings = dataclasses.replace(recipe.student, **changes)
            model = train(settings, folder / storage, folder / f"{storage}-{seed}", seed, progress=False)
            sizes = dataclasses.replace(recipe.evaluate, renders=20)
            score = evaluate(create_model(model), world, sizes, ["zero_shot"])["zero_shot"]
            out.append({"benchmark": "student", "storage": storage, "seed": seed, "zero_shot": round(score, 4)})
            out[-1] |= {"samples": samples, "pairs": pairs, "names": 24}
            print(out[-1], flush=True)
    return out


def main() -> None:
    """Measure and print."""
    parser = harness.parser(__doc__, "reinforce")
    inputs.add_photos(parser, count=100)
    parser.add_argument("--student", type=int, default=0, help="seen samples of each student; 0 trains none")
    parser.add_argument("--pairs", type=int, default=2000, help="pairs for the students")
    parser.add_argument("--storages", nargs="+", default=list(STORAGE), help="for the students")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    images, teachers = inputs.images(args.photos, args.count), load_teachers(Reinforce().teachers)
    with tempfile.TemporaryDirectory() as folder:
        lines = speed(images, teachers, args.repeats, Path(folder))
        lines += bytes_a_sample(images, Path(folder)) + fidelity(images, teachers)
        if args.student:
            seeds = range(args.first_seed, args.first_seed + args.seeds)
            lines += students(args.student, seeds, args.pairs, args.storages, Path(folder))
    for line in lines:
        line["images"] = "photographs" if args.photos else "scenes"
    for kind in dict.fromkeys(line["benchmark"] for line in lines):
        harness.show([line for line in lines if line["benchmark"] == kind], text_columns=2)
        print()
    harness.keep(args.out, lines)


if __name__ == "__main__":
    main()
