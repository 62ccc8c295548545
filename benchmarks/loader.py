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
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import harness
import inputs
import torch

from mobileclip2_lite.models.preprocess import Preprocess
from mobileclip2_lite.shards import datacompdr
from mobileclip2_lite.shards import samples as shards
from mobileclip2_lite.shards.dataset import ReinforcedDataset
from mobileclip2_lite.shards.sample_reader import turn
from mobileclip2_lite.shards.shrinking import shrink
from mobileclip2_lite.views import decoding
from mobileclip2_lite.views.operations import OPERATIONS

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def write_stock(path: Path, items: list[shards.Sample]) -> None:
    """The same samples in the official layout, by the `webdataset` package alone."""
    import webdataset

    with webdataset.TarWriter(str(path)) as sink:
        for item in items:
            rows = {
                kind: torch.cat([item.embeddings[f"{kind}/{teacher}"] for teacher in inputs.TEACHERS], 1)
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
        row = turn(dataset.seed, dataset.epoch, sample["json"]["uid"], len(views), "turns")
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
    normalize = Preprocess(dataset.reader.image_size, MEAN, STD).normalize
    for batch in dataset:
        yield batch, normalize(batch.images)


def exhaust(make: Callable[[], Iterable]) -> Callable[[int], None]:
    """One pass over everything that `make` gives, as a way of the harness."""

    def run(number: int) -> None:
        for _ in make():
            pass

    return run


def main() -> None:
    """Measure and print."""
    parser = harness.parser(__doc__, "loader")
    inputs.add_photos(parser, count=150)
    parser.add_argument("--size", type=int, default=224, help="image size in pixels; shifts differ at others than 224")
    parser.add_argument("--views", type=int, default=30)
    parser.add_argument("--side", type=int, default=0, help="shorter side of the stored images; 0: the image size")
    parser.add_argument("--batch-size", type=int, default=32)
    args = parser.parse_args()
    args.side = args.side or args.size
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    images = inputs.images(args.photos, args.count)
    with tempfile.TemporaryDirectory() as folder:
        ways = {name: exhaust(make) for name, make in ways_of(Path(folder), images, args).items()}
        seconds = harness.in_turns(ways, args.repeats)
    report(harness.compared(seconds, dict.fromkeys(ways, len(images)), "official"), args, len(images))


def ways_of(folder: Path, images: list[bytes], args: argparse.Namespace) -> dict[str, Callable[[], Iterable]]:
    """Every way through the same samples, by name; written first, and compared where they must be equal."""
    items = inputs.samples(images, args.views)
    inputs.write_folder(folder / "exact", items)
    write_stock(folder / "official.tar", items)
    shrink(folder / "exact", folder / "fast", args.side, quality=85)
    common = {"image_size": args.size, "batch_size": args.batch_size, "captioners": ("c",), "drop_last": False}
    exact = ReinforcedDataset(folder / "exact", interpolation="bicubic", **common)
    small = ReinforcedDataset(folder / "fast", interpolation="bicubic", **common)
    quick = ReinforcedDataset(folder / "exact", interpolation="bicubic", resampling="torch", **common)
    both = ReinforcedDataset(folder / "fast", interpolation="bilinear", resampling="torch", **common)
    if args.size == datacompdr.SIZE:
        check_same(folder / "official.tar", exact, args)
    official = functools.partial(stock_batches, folder / "official.tar", exact, args.size, args.batch_size)
    return {
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


def check_same(tar: Path, dataset: ReinforcedDataset, args: argparse.Namespace) -> None:
    """The two ways give the same pixels and embeddings, sample by sample."""
    stock = {}
    for batch in stock_batches(tar, dataset, args.size, args.batch_size, normalise=False):
        for uid, image, row in zip(batch["uids"], batch["images"], batch["rows"][0], strict=True):
            stock[uid] = (image, row)
    for batch in dataset:
        rows = torch.cat([batch.image_embeddings[teacher] for teacher in inputs.TEACHERS], 1)
        for uid, image, row in zip(batch.uids, batch.images, rows, strict=True):
            if not torch.equal(image, stock[uid][0]) or not torch.equal(row, stock[uid][1]):
                sys.exit(f"the two ways differ at {uid}")
    print(f"pixels and embeddings of the {len(stock)} samples are equal both ways")


def report(found: dict[str, harness.Timed], args: argparse.Namespace, count: int) -> None:
    """Print the table, keep it as JSON lines."""
    lines = [
        {
            "benchmark": "loader",
            "way": name,
            "samples_per_second": round(timed.median, 1),
            "ratio_to_official": round(timed.ratio, 3),
            "lowest": round(timed.lowest, 1),
            "highest": round(timed.highest, 1),
            "images": "photographs" if args.photos else "scenes",
            "count": count,
            "size": args.size,
            "views": args.views,
            "side": args.side,
            "repeats": timed.rounds,
        }
        for name, timed in found.items()
    ]
    print(f"median of {args.repeats} rounds, one core, {count} images, {args.size} pixels\n")
    harness.show(lines, ("way", "samples_per_second", "ratio_to_official", "lowest", "highest"))
    harness.keep(args.out, lines)


if __name__ == "__main__":
    main()
