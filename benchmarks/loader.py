"""Samples a second of the training loader, against the official way built from stock libraries, on one core.

    python benchmarks/loader.py --photos FOLDER      # or MOBILECLIP2_LITE_PHOTOS; without photographs rendered scenes

The official way: `webdataset` reads shards of the official layout, PIL decodes, torchvision crops and augments, and
`torch.load` reads a gzipped dict with the bfloat16 embeddings of all 30 views; it ends in normalised floats, in bytes
where that is said. Ours: `ReinforcedDataset` on the same samples and the same views; it ends in bytes, which the
training step normalises on its device, in normalised floats where that is said. Writes results/loader.jsonl.
"""

from __future__ import annotations

import argparse
import functools
import io
import json
import os
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch

from mobileclip2_lite.models.preprocess import Preprocess
from mobileclip2_lite.recipes import Augment
from mobileclip2_lite.shards import datacompdr
from mobileclip2_lite.shards import samples as shards
from mobileclip2_lite.shards.dataset import ReinforcedDataset
from mobileclip2_lite.shards.shrinking import shrink
from mobileclip2_lite.views import decoding
from mobileclip2_lite.views.drawing import draw
from mobileclip2_lite.views.operations import OPERATIONS
from mobileclip2_lite.work.files import sha256_bytes
from mobileclip2_lite.work.folder import Work
from mobileclip2_lite.work.randomness import rng, stable_uid

TEACHERS = {"first": 768, "second": 768}
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def pictures(folder: str | None, count: int) -> list[bytes]:
    """Encoded pictures: photographs of a folder, else rendered scenes of 256 pixels as JPEG."""
    if folder:
        paths = sorted(p for p in Path(folder).iterdir() if p.suffix.lower() in (".jpg", ".jpeg"))
        return [path.read_bytes() for path in paths[:count]]
    from PIL import Image

    from mobileclip2_lite import emoji_world
    from mobileclip2_lite.recipes import World

    out = []
    for index in range(count):
        buffer = io.BytesIO()
        Image.fromarray(emoji_world.render(emoji_world.scene(World(), "train", index), 256)).save(buffer, "JPEG")
        out.append(buffer.getvalue())
    return out


def unit_rows(chance: np.random.Generator, rows: int, dimension: int) -> torch.Tensor:
    """Random unit vectors, for the time and bytes that embeddings of a real teacher would take."""
    return torch.nn.functional.normalize(torch.from_numpy(chance.normal(size=(rows, dimension))).float(), dim=1)


def samples(images: list[bytes], views: int, captions: int = 5) -> list[shards.Sample]:
    """Reinforced samples with random embeddings."""
    out = []
    for number, data in enumerate(images):
        uid, (height, width) = stable_uid(f"picture-{number}"), decoding.pixels(data).shape[:2]
        chance, sha256 = rng(0, "views", uid), sha256_bytes(data)
        texts = [f"a synthetic caption of about ten words for picture {number}, {i}" for i in range(captions)]
        embeddings = {}
        for teacher, dimension in TEACHERS.items():
            embeddings[f"image/{teacher}"] = unit_rows(chance, views, dimension)
            embeddings[f"text/{teacher}"] = unit_rows(chance, 1, dimension)
            embeddings[f"syn_text_c/{teacher}"] = unit_rows(chance, captions, dimension)
        meta = {"source": f"picture-{number}", "width": width, "height": height, "sha256": sha256}
        drawn = [draw(chance, width, height, Augment(), sha256) for _ in range(views)]
        text = f"the alt-text of picture {number}"
        out.append(shards.Sample(uid, data, "jpg", text, meta, {"c": texts}, drawn, embeddings))
    return out


def write_folder(folder: Path, items: list[shards.Sample], storage: str = "bf16") -> None:
    """One native shard with its manifest."""
    work = Work(folder, "benchmark", 1, {"storage": storage})
    info = shards.write_shard(folder / "shard-000000.tar", items, storage)
    record = {"name": "shard-000000.tar", **info._asdict(), "dropped": {}}
    work.commit(shards=[record], teachers=[{"name": name, "dimension": d} for name, d in TEACHERS.items()])


def write_stock(path: Path, items: list[shards.Sample]) -> None:
    """The same samples in the official layout, by the `webdataset` package alone."""
    import webdataset

    with webdataset.TarWriter(str(path)) as sink:
        for item in items:
            rows = {
                kind: torch.cat([item.embeddings[f"{kind}/{teacher}"] for teacher in TEACHERS], 1)
                for kind in ("image", "text", "syn_text_c")
            }
            emb = {"image_emb": rows["image"], "text_emb": torch.cat([rows["text"], rows["syn_text_c"]])}
            sink.write(
                {
                    "__key__": item.uid,
                    "jpg": item.image,
                    "txt": item.text,
                    "syn.json": json.dumps({"syn_text": item.syn_texts["c"]}),
                    "paug.json": json.dumps({"param_aug": [datacompdr.to_official(view) for view in item.views]}),
                    "pth.gz": {name: value.to(torch.bfloat16) for name, value in emb.items()},
                    "json": json.dumps({"uid": item.uid}),
                }
            )


def stock_replay(image, parameters, size: int):
    """An official view by torchvision alone."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as F
    from torchvision.transforms.autoaugment import _apply_op

    (top, left, height, width), operations = parameters
    image = F.resized_crop(image, top, left, height, width, [size, size], InterpolationMode.BICUBIC)
    for number, magnitude in operations:
        name = OPERATIONS[number]
        image = _apply_op(image, name, magnitude, InterpolationMode.NEAREST, None)
    return image


def stock_batches(tar: Path, dataset: ReinforcedDataset, size: int, batch_size: int, normalise: bool = True):
    """The official way; the same view of each sample as ours takes, in the order of the tar."""
    import webdataset
    from torchvision.transforms import functional as F

    def prepare(sample: dict) -> dict:
        views = sample["paug.json"]["param_aug"]
        row = dataset._turn(sample["json"]["uid"], len(views))
        image = stock_replay(sample["jpg"].convert("RGB"), views[row], size)
        caption = len(views) % len(sample["syn.json"]["syn_text"])
        emb = sample["pth.gz"]
        return {
            "uid": sample["json"]["uid"],
            "image": F.normalize(F.to_tensor(image), MEAN, STD) if normalise else F.pil_to_tensor(image),
            "rows": [emb["image_emb"][row].float(), emb["text_emb"][0].float(), emb["text_emb"][1 + caption].float()],
            "texts": [sample["txt"], sample["syn.json"]["syn_text"][caption]],
        }

    pipeline = webdataset.WebDataset(str(tar), shardshuffle=False).decode("pilrgb").map(prepare)
    batch = []
    for item in pipeline:
        batch.append(item)
        if len(batch) == batch_size:
            yield _stack(batch)
            batch = []
    if batch:
        yield _stack(batch)


def _stack(batch: list[dict]) -> dict:
    return {
        "uids": [item["uid"] for item in batch],
        "images": torch.stack([item["image"] for item in batch]),
        "rows": [torch.stack(rows) for rows in zip(*(item["rows"] for item in batch), strict=True)],
    }


def our_batches(dataset: ReinforcedDataset):
    """Ours, with the normalisation that the training step does on its device."""
    normalize = Preprocess(dataset.image_size, MEAN, STD).normalize
    for batch in dataset:
        yield batch, normalize(batch.images)


def rate(make, count: int, repeats: int) -> list[float]:
    """Samples a second of process time, for each repetition."""
    out = []
    for _ in range(repeats):
        start = time.process_time()
        for _ in make():
            pass
        out.append(count / (time.process_time() - start))
    return out


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", default=os.environ.get("MOBILECLIP2_LITE_PHOTOS"))
    parser.add_argument("--count", type=int, default=150, help="pictures")
    parser.add_argument("--size", type=int, default=224, help="image size in pixels; shifts differ at others than 224")
    parser.add_argument("--views", type=int, default=30)
    parser.add_argument("--side", type=int, default=0, help="shorter side of the stored pictures; 0: the image size")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "loader.jsonl")
    args = parser.parse_args()
    args.side = args.side or args.size
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    images = pictures(args.photos, args.count)
    count = len(images)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        items = samples(images, args.views)
        write_folder(folder / "exact", items)
        write_stock(folder / "official.tar", items)
        fast = folder / "fast"
        shrink_source(folder / "exact", fast, args.side)
        common = {"image_size": args.size, "batch_size": args.batch_size, "captioners": ("c",), "drop_last": False}
        exact = ReinforcedDataset(folder / "exact", interpolation="bicubic", **common)
        small = ReinforcedDataset(fast, interpolation="bicubic", **common)
        quick = ReinforcedDataset(folder / "exact", interpolation="bicubic", resampling="torch", **common)
        both = ReinforcedDataset(fast, interpolation="bilinear", resampling="torch", **common)
        if args.size == datacompdr.SIZE:
            check_same(folder / "official.tar", exact, args)
        official = functools.partial(stock_batches, folder / "official.tar", exact, args.size, args.batch_size)
        ways = {
            "official": official,
            "official, not normalised": lambda: official(normalise=False),
            "exact": lambda: exact,
            "exact, normalised": lambda: our_batches(exact),
            "torch's resampling": lambda: quick,
            "stored smaller": lambda: small,
            "stored smaller, torch's bilinear": lambda: both,
            "decoding alone, PIL": lambda: (decoding._open(data) for data in images),
            "decoding alone, ours": lambda: (decoding.pixels(data) for data in images),
        }
        rates = {name: [] for name in ways}
        for _ in range(args.repeats):  # in turn, so that a disturbance hits all
            for name, way in ways.items():
                rates[name] += rate(way, count, 1)
    report(rates, args, count, bool(args.photos))


def shrink_source(source: Path, out: Path, side: int) -> None:
    """The fast mode's shards."""
    manifest = json.loads((source / "manifest.json").read_text("utf-8"))
    manifest["settings"] = {"storage": "bf16"}
    (source / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    shrink(source, out, side, quality=85)


def check_same(tar: Path, dataset: ReinforcedDataset, args: argparse.Namespace) -> None:
    """The two ways give the same pixels and embeddings, sample by sample."""
    stock = {}
    for batch in stock_batches(tar, dataset, args.size, args.batch_size, normalise=False):
        for uid, image, row in zip(batch["uids"], batch["images"], batch["rows"][0], strict=True):
            stock[uid] = (image, row)
    for batch in dataset:
        rows = torch.cat([batch.image_embeddings[teacher] for teacher in TEACHERS], 1)
        for uid, image, row in zip(batch.uids, batch.images, rows, strict=True):
            if not torch.equal(image, stock[uid][0]) or not torch.equal(row, stock[uid][1]):
                sys.exit(f"the two ways differ at {uid}")
    print(f"pixels and embeddings of the {len(stock)} samples are equal both ways")


def report(rates: dict[str, list[float]], args: argparse.Namespace, count: int, photos: bool) -> None:
    """Print the table, keep it as JSON lines."""
    base = statistics.median(rates["official"])
    lines = []
    print(f"{'way':33} samples/s  ratio   (median of {args.repeats}, one core, {count} pictures, {args.size} pixels)")
    for name, values in rates.items():
        middle = statistics.median(values)
        print(f"{name:33} {middle:9.0f} {middle / base:6.2f}")
        lines.append(
            {
                "benchmark": "loader",
                "way": name,
                "samples_per_second": round(middle, 1),
                "ratio_to_official": round(middle / base, 3),
                "lowest": round(min(values), 1),
                "highest": round(max(values), 1),
                "pictures": "photographs" if photos else "scenes",
                "count": count,
                "size": args.size,
                "views": args.views,
                "side": args.side,
                "repeats": args.repeats,
            }
        )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main()
