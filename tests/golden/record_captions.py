"""Record what others' code gives, for tests that compare ours with it: open_clip's `generate`, transformers, COCO.

Needs packages that nothing else does, and an older transformers than the rest of the environment, because open_clip's
`generate` switches itself off without a class that later versions lack. In an environment of its own:

    pip install -e . "transformers==4.56.2" "pycocoevalcap==1.2"
    PYTHONPATH=tests python tests/golden/record_captions.py

Writes captions.json beside this file: greedy captions as token rows, warped and penalised logits, CIDEr-D and BLEU.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from doubles.captions import (
    COCO_CASES,
    GREEDY_CASES,
    WARPS,
    penalised,
    pictures,
    small_coca,
    warped,
)

from mobileclip2_lite.models.coca import special_tokens


def greedy(seed: int, end: float, length: int) -> list[list[int]]:
    """Token rows of open_clip's own greedy generation, up to the end token."""
    loaded, images = small_coca(seed, end), pictures(12)
    start, stop, pad = special_tokens(loaded)
    rows = loaded.model.generate(
        loaded.preprocess.normalize(images), seq_len=length, generation_type="top_k", top_k=1, min_seq_len=1,
        sot_token_id=start, eos_token_id=stop, pad_token_id=pad,
    )  # fmt: skip
    return [row[1 : row.index(stop) + 1] for row in rows.tolist()]


def warp(temperature: float, top_k: int) -> dict:
    """Probabilities of transformers' temperature and top-k, and what its top-p 0.6 leaves of them."""
    import transformers

    wanted = transformers.TemperatureLogitsWarper(temperature)(None, warped())
    if top_k:
        wanted = transformers.TopKLogitsWarper(top_k)(None, wanted)
    nucleus = transformers.TopPLogitsWarper(0.6)(None, wanted).isfinite()
    return {"probabilities": rounded(wanted.softmax(-1)), "nucleus": nucleus.int().tolist()}


def penalties() -> list[list[float | None]]:
    """Logits after transformers' repetition penalty 1.7 and least length 10 (end token 39); None where forbidden."""
    import transformers

    logits, written = penalised()
    wanted = transformers.RepetitionPenaltyLogitsProcessor(1.7)(written, logits)
    wanted = transformers.MinLengthLogitsProcessor(10, 39, device="cpu")(written, wanted)
    return [[round(x, 6) if x > float("-inf") else None for x in row] for row in wanted.tolist()]


def coco(captions: list[str], references: list[list[str]]) -> dict:
    """CIDEr-D of each caption and corpus BLEU-1 to 4 by COCO's code."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider

    theirs, ours = dict(enumerate(references)), {k: [text] for k, text in enumerate(captions)}
    _, each = Cider().compute_score(theirs, ours)
    values, _ = Bleu(4).compute_score(theirs, ours, verbose=0)
    return {"cider": [round(float(x), 9) for x in each], "bleu": [round(float(x), 9) for x in values]}


def rounded(table: torch.Tensor) -> list:
    return [[round(x, 7) for x in row] for row in table.tolist()]


def main() -> None:
    found = {
        "greedy": {f"{seed} {end} {length}": greedy(seed, end, length) for seed, end, length in GREEDY_CASES},
        "warps": {f"{temperature} {top_k}": warp(temperature, top_k) for temperature, top_k in WARPS},
        "penalties": penalties(),
        "coco": {name: coco(*case) for name, case in COCO_CASES.items()},
    }
    path = Path(__file__).with_name("captions.json")
    path.write_text("{\n" + ",\n".join(f'"{k}": {json.dumps(v)}' for k, v in found.items()) + "\n}\n", "utf-8")


if __name__ == "__main__":
    main()
