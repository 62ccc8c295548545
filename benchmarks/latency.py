"""The paper's architecture claims as ratios on this machine's CPU, with random weights.

    OMP_NUM_THREADS=1 python benchmarks/latency.py                 # about ten minutes, 8 GB
    OMP_NUM_THREADS=1 python benchmarks/latency.py --sizes 256     # without the large pictures

Prints the table of all measurements and the table of claims, and writes both to benchmarks/results/latency.jsonl. The
paper's milliseconds are an iPhone 12 Pro Max's (Core ML, half precision); a CPU in single precision need not agree, and
where it does not, the table says so.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: spinning threads collapse beside other work

import torch

from mobileclip2_lite.latency import Row, measure, measure_model, picture, table
from mobileclip2_lite.models.family import FAMILY

RESULTS = Path(__file__).parent / "results"
MODELS = ("MobileCLIP2-S0", "MobileCLIP2-S2", "MobileCLIP2-B", "MobileCLIP2-S3", "MobileCLIP2-S4", "MobileCLIP2-L-14")
SETTINGS = {"warmup": 1, "seconds": 3.0, "passes": (3, 20)}


def scaled_mci2(target: float = 125e6) -> torch.nn.Module:
    """MCi2 made wider until it has `target` parameters: what the paper compares MCi3 with."""
    from timm.models.fastvit import FastVit, RepConditionalPosEnc

    def build(width: int, **extra: object) -> torch.nn.Module:
        return FastVit(
            layers=(4, 12, 24, 4),
            embed_dims=(width, 2 * width, 4 * width, 8 * width),
            mlp_ratios=(3, 3, 3, 3),
            se_downsamples=(False, False, True, True),
            pos_embs=(None, None, None, partial(RepConditionalPosEnc, spatial_shape=(7, 7))),
            token_mixers=("repmixer", "repmixer", "repmixer", "attention"),
            lkc_use_act=True,
            num_classes=768,
            **extra,
        )

    def distance(width: int) -> float:
        return abs(sum(p.numel() for p in build(width, device="meta", inference_mode=True).parameters()) - target)

    return build(min(range(128, 192, 4), key=distance)).eval()


def large_pictures(sizes: list[int], threads: int) -> list[Row]:
    """MCi3 and the scaled MCi2 by picture size."""
    import timm

    towers = {"MCi3": timm.create_model("fastvit_mci3", num_classes=768).eval(), "MCi2 scaled": scaled_mci2()}
    rows = []
    for size in sizes:
        for name, tower in towers.items():
            rows.append(measure(tower, torch.rand(1, 3, size, size), model=name, threads=threads, **SETTINGS))
            print(table(rows[-1:]).splitlines()[-1], flush=True)
    return rows


def claims(rows: list[Row]) -> list[dict]:
    """Ratios of this machine beside the paper's."""
    image = {(row.model, row.size): row.milliseconds for row in rows if row.tower == "image" and row.backend == "eager"}
    own = {name: ms for (name, size), ms in image.items() if name in FAMILY}
    text = {row.model: row.milliseconds for row in rows if row.tower == "text" and row.backend == "eager"}
    found = []

    def add(claim: str, paper: float | None, here: float) -> None:
        found.append({"claim": claim, "paper": paper and round(paper, 2), "here": round(here, 2)})

    for slow, fast in (("L-14", "S4"), ("L-14", "S3"), ("B", "S0"), ("B", "S2"), ("B", "S3"), ("S2", "S0")):
        slow, fast = f"MobileCLIP2-{slow}", f"MobileCLIP2-{fast}"
        if slow in own and fast in own:
            published = FAMILY[slow].latency[0] / FAMILY[fast].latency[0]
            add(f"image tower: {slow} / {fast}", published, own[slow] / own[fast])
    slow, fast = "MobileCLIP2-L-14", "MobileCLIP2-S4"
    if {slow, fast} <= set(own) & set(text):
        published = sum(FAMILY[slow].latency) / sum(FAMILY[fast].latency)
        add(f"both towers: {slow} / {fast}", published, (own[slow] + text[slow]) / (own[fast] + text[fast]))
    published_by_size = {256: 1.9, 1024: 7.1}
    for size in sorted({size for name, size in image if name == "MCi3"}):
        ratio = image["MCi2 scaled", size] / image["MCi3", size]
        add(f"MCi2 scaled to 125 M / MCi3 at {size} pixels", published_by_size.get(size), ratio)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=MODELS)
    parser.add_argument("--sizes", nargs="*", type=int, default=[256, 384, 512, 768, 1024])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--onnx", nargs="*", default=["MobileCLIP2-S0"], help="models to measure in ONNX Runtime too")
    parser.add_argument("--output", type=Path, default=RESULTS / "latency.jsonl")
    arguments = parser.parse_args()
    rows: list[Row] = []
    for name in arguments.models:
        backends = ("eager", "onnx") if name in arguments.onnx else ("eager",)
        for row in measure_model(name, threads=(arguments.threads,), backends=backends, **SETTINGS):
            rows.append(row)
            print(table([row]).splitlines()[-1], flush=True)
    rows += large_pictures(arguments.sizes, arguments.threads)
    ratios = claims(rows)
    print("\n" + table(rows) + "\n\n| claim | paper (phone) | here (CPU) |\n|---|---:|---:|")
    for ratio in ratios:
        print(f"| {ratio['claim']} | {ratio['paper'] or '-'} | {ratio['here']} |")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(dataclasses.asdict(row)) for row in rows] + [json.dumps(ratio) for ratio in ratios]
    arguments.output.write_text("\n".join(lines) + "\n", "utf-8")
    picture(rows, arguments.output.with_suffix(".png"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
