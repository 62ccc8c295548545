"""The paper's architecture claims as ratios on this machine's CPU, with random weights.

    OMP_NUM_THREADS=1 python benchmarks/latency.py                 # about six minutes, 8 GB
    OMP_NUM_THREADS=1 python benchmarks/latency.py --sizes 256     # without the large pictures

Prints the table of all measurements and the table of claims, and writes both to benchmarks/results/latency.jsonl. The
paper's milliseconds are an iPhone 12 Pro Max's (Core ML, half precision); a CPU in single precision need not agree, and
where it does not, the table says so. Towers run in turn, so that other work on the
machine disturbs all of them alike.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import harness
import torch

from mobileclip2_lite.costs.latency import Row, TextTower, compare, picture, table
from mobileclip2_lite.models.family import FAMILY
from mobileclip2_lite.models.zoo import create_model

MODELS = ("MobileCLIP2-S0", "MobileCLIP2-S2", "MobileCLIP2-B", "MobileCLIP2-S3", "MobileCLIP2-S4", "MobileCLIP2-L-14")


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


def family(names: list[str], threads: int, rounds: int) -> list[Row]:
    """The family's towers in turn; text towers that are alike (63 M, 124 M) are measured once."""
    loaded = {name: create_model(name) for name in names}
    entries, texts = [], {}
    for name, (model, preprocess, tokenizer) in loaded.items():
        pixels = torch.rand(1, 3, preprocess.image_size, preprocess.image_size)
        entries.append((name, "image", lambda m=model, x=pixels: (m.visual, x)))
        tokens = tokenizer(["a photo of a dog"])
        texts.setdefault(model.model_cfg["embed_dim"], (name, "text", lambda m=model, x=tokens: (TextTower(m), x)))
    return compare([*entries, *texts.values()], rounds=rounds, threads=threads)


def large_pictures(sizes: list[int], threads: int, rounds: int) -> Iterator[list[Row]]:
    """MCi3 and the scaled MCi2 in turn, by picture size."""
    import timm

    towers = {"MCi3": timm.create_model("fastvit_mci3", num_classes=768).eval(), "MCi2 scaled": scaled_mci2()}
    for size in sizes:
        pixels = torch.rand(1, 3, size, size)
        entries = [(name, "image", lambda t=tower, x=pixels: (t, x)) for name, tower in towers.items()]
        yield compare(entries, rounds=rounds if size <= 512 else min(rounds, 3), threads=threads)


def claims(rows: list[Row]) -> list[dict]:
    """Ratios of this machine's medians beside the paper's."""
    image = {(row.model, row.size): row.milliseconds for row in rows if row.tower == "image" and row.backend == "eager"}
    own = {name: ms for (name, size), ms in image.items() if name in FAMILY}
    by_size = {row.parameters: row.milliseconds for row in rows if row.tower == "text"}
    text = {name: by_size[min(by_size, key=lambda n: abs(n - 1e6 * FAMILY[name].parameters[1]))] for name in own}
    found = []

    def add(claim: str, paper: float | None, here: float) -> None:
        found.append({"claim": claim, "paper": paper and round(paper, 2), "here": round(here, 2)})

    for slow, fast in (("L-14", "S4"), ("L-14", "S3"), ("B", "S0"), ("B", "S2"), ("B", "S3"), ("S2", "S0")):
        slow, fast = f"MobileCLIP2-{slow}", f"MobileCLIP2-{fast}"
        if slow in own and fast in own:
            published = FAMILY[slow].latency[0] / FAMILY[fast].latency[0]
            add(f"image tower: {slow} / {fast}", published, own[slow] / own[fast])
    slow, fast = "MobileCLIP2-L-14", "MobileCLIP2-S4"
    if {slow, fast} <= set(own):
        published = sum(FAMILY[slow].latency) / sum(FAMILY[fast].latency)
        add(f"both towers: {slow} / {fast}", published, (own[slow] + text[slow]) / (own[fast] + text[fast]))
    published_by_size = {256: 1.9, 1024: 7.1}
    for size in sorted({size for name, size in image if name == "MCi3"}):
        ratio = image["MCi2 scaled", size] / image["MCi3", size]
        add(f"MCi2 scaled to 125 M / MCi3 at {size} pixels", published_by_size.get(size), ratio)
    return found


def keep(rows: list[Row], output: Path) -> None:
    """Write what is known so far: rows, claims, picture."""
    harness.keep(output, [*map(dataclasses.asdict, rows), *claims(rows)])
    picture(rows, output.with_suffix(".png"))


def main() -> int:
    parser = harness.parser(__doc__, "latency", rounds=7)
    parser.add_argument("--models", nargs="*", default=MODELS)
    parser.add_argument("--sizes", nargs="*", type=int, default=[256, 384, 512, 768, 1024])
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    rows = family(arguments.models, arguments.threads, arguments.repeats)
    print(table(rows), flush=True)
    keep(rows, arguments.out)
    for found in large_pictures(arguments.sizes, arguments.threads, arguments.repeats):
        rows += found
        print("\n".join(table(found).splitlines()[2:]), flush=True)
        keep(rows, arguments.out)
    print("\nThe paper's ratios are a phone's, those here this CPU's.\n")
    harness.show(claims(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
