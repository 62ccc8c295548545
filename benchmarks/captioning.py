"""Captions a second: open_clip's `CoCa.generate` against ours, five captions an image of a given length.

    OMP_NUM_THREADS=1 python benchmarks/captioning.py                                # about 20 minutes
    OMP_NUM_THREADS=1 python benchmarks/captioning.py --models lite-coca --repeats 3 # about a minute

Same model with random weights, same pictures, top-p sampling at temperature 1, and every caption has the full length,
because the end token is forbidden before. open_clip has one way to several captions an image: the image several times.
Times are process CPU seconds, the image tower included, the two ways in turns; a ratio is the median of the turns'.
Prints Markdown tables and adds lines to results/captioning.jsonl.
"""

from __future__ import annotations

import argparse

import harness
import numpy as np
import torch

from mobileclip2_lite.captioning.generation import generate
from mobileclip2_lite.models.coca import special_tokens
from mobileclip2_lite.models.loaded import LoadedModel
from mobileclip2_lite.models.trimming import text_lengths
from mobileclip2_lite.models.zoo import create_model
from mobileclip2_lite.recipes import Generate
from mobileclip2_lite.work.randomness import rng

CAPTIONS, TOP_P = 5, 0.9


def official(loaded: LoadedModel, images: torch.Tensor, length: int, seed: int) -> list[int]:
    """Lengths of open_clip's captions, start and end included."""
    start, end, pad = special_tokens(loaded)
    torch.manual_seed(seed)
    tokens = loaded.model.generate(
        loaded.preprocess.normalize(images).repeat_interleave(CAPTIONS, 0),
        generation_type="top_p",
        top_p=TOP_P,
        seq_len=length,
        min_seq_len=length - 1,
        sot_token_id=start,
        eos_token_id=end,
        pad_token_id=pad,
    )
    return text_lengths(tokens, pad).tolist()


def ours(loaded: LoadedModel, images: torch.Tensor, length: int, seed: int, precision: str = "fp32") -> list[int]:
    """Lengths of our captions, start and end included."""
    settings = Generate(CAPTIONS, top_p=TOP_P, min_length=length - 2, max_length=length)
    rngs = [rng(seed, "captions", number) for number in range(len(images))]
    captions = generate(loaded, images, settings, rngs, precision=precision)
    return [1 + len(caption.tokens) for row in captions for caption in row]


def noise(loaded: LoadedModel, count: int) -> torch.Tensor:
    """Noise, uint8 (count, 3, S, S)."""
    side = loaded.preprocess.image_size
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, 3, side, side), dtype=np.uint8))


def lines_of(name: str, loaded: LoadedModel, args: argparse.Namespace) -> list[dict]:
    """All measurements of a model."""
    lite = name.startswith("lite-")
    few = noise(loaded, args.images or (16 if lite else 4))
    many = noise(loaded, args.many if lite else min(args.many, 16))
    out = []
    for length in args.lengths:
        ways = {"open_clip": lambda seed, n=length: official(loaded, few, n, seed)}
        if length not in args.official_lengths:
            ways = {}
        ways["ours"] = lambda seed, n=length: ours(loaded, few, n, seed)
        ways[f"ours, {len(many)} images"] = lambda seed, n=length: ours(loaded, many, n, seed)
        ways[f"ours, {len(many)} images, bf16"] = lambda seed, n=length: ours(loaded, many, n, seed, "bf16")
        lengths = ways["ours"](0)  # which also warms up
        if set(lengths) != {length}:
            raise RuntimeError(f"captions of {sorted(set(lengths))} tokens instead of {length}")
        images = {way: len(many if str(len(many)) in way else few) for way in ways}
        counts = {way: CAPTIONS * number for way, number in images.items()}
        for way, timed in harness.compared(harness.in_turns(ways, args.repeats), counts, "open_clip").items():
            out.append(
                {
                    "benchmark": "captioning",
                    "model": name,
                    "way": way,
                    "length": length,
                    "images": images[way],
                    "captions_per_second": float(f"{timed.median:.4g}"),
                    "lowest": float(f"{timed.lowest:.4g}"),
                    "highest": float(f"{timed.highest:.4g}"),
                    "milliseconds_per_token": float(f"{1000 / timed.median / length:.4g}"),
                    "ratio": None if timed.ratio is None else round(timed.ratio, 1),
                    "repeats": timed.rounds,
                }
            )
    return out


def main() -> None:
    """Measure, print, write."""
    parser = harness.parser(__doc__, "captioning")
    parser.add_argument("--models", nargs="+", default=["lite-coca", "coca_ViT-B-32"])
    parser.add_argument("--images", type=int, default=0, help="of the comparison; 0: 16 for lite models, 4 for others")
    parser.add_argument("--many", type=int, default=64, help="images that ours alone captions; 16 for others than lite")
    parser.add_argument("--lengths", nargs="+", type=int, default=[10, 20, 40, 60])
    parser.add_argument("--official-lengths", nargs="+", type=int, default=[40], help="at which open_clip runs, too")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in args.models:
        torch.manual_seed(0)
        lines = lines_of(name, create_model(name), args)
        columns = ("model", "way", "images", "length", "captions_per_second", "milliseconds_per_token", "ratio")
        harness.show(lines, columns, text_columns=2)
        harness.keep(args.out, lines, add=True)


if __name__ == "__main__":
    main()
