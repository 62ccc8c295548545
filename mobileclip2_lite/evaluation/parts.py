"""A public test set embedded tar by tar, by as many workers as there are, and measured once from what they stored.

Ours, for ImageNet's 64 tars and 38 sets of DataComp: the skeleton of all stages (`work.shardwise`) with tars of images
in place of shards of pairs, so that a killed run goes on, workers take tars by name, and a tar that kills them is
listed. Reads a set in the `wds_*` layout; writes `NUMBER.safetensors` with `features` (N, D) a tar, and its record
with labels, texts and reasons, and a manifest. The measures are those of one process. Gives up: texts, which every
measure embeds in the calling process.
"""

from __future__ import annotations

import functools
import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mobileclip2_lite.evaluation.measures import Template
from mobileclip2_lite.evaluation.sets import Example, TestSet, embed, measured
from mobileclip2_lite.evaluation.wds_sets import open_wds
from mobileclip2_lite.models.card import digest
from mobileclip2_lite.models.embedded import Travelling
from mobileclip2_lite.work.crew import Spread
from mobileclip2_lite.work.files import sha256_file
from mobileclip2_lite.work.folder import Work
from mobileclip2_lite.work.place import place_of
from mobileclip2_lite.work.records import totals
from mobileclip2_lite.work.shardwise import make_shards

if TYPE_CHECKING:
    from mobileclip2_lite.models.zoo import LoadedModel

VERSION = 1


def evaluate_in_parts(
    loaded: LoadedModel,
    test_set: TestSet,
    folder: str | os.PathLike,
    templates: Sequence[Template] = (),
    batch_size: int = 256,
    dimensions: Sequence[int] = (),
    spread: Spread | None = None,
) -> dict[str, Any]:
    """What `sets.evaluate_set` returns, with the images embedded tar by tar.

    Args:
        loaded: model, preprocess and tokenizer together.
        test_set: one that lies in tars.
        folder: below it each set has a folder of its own.
        templates, batch_size, dimensions: as `evaluate_set` has them.
        spread: over which workers; None for this process.

    Raises:
        ValueError: the set does not lie in tars. StageMismatch: its folder holds another model's features.
        failed.ShardsFailed: tars that ended their workers; all others are embedded.
    """
    if not test_set.parts:
        raise ValueError(f"{test_set.source} does not lie in tars, by which the work is shared: leave --parts out")
    place = place_of(folder) / f"{test_set.name}-{test_set.split}"
    known = {"preprocess": loaded.preprocess.to_config(), "set": test_set.source, "split": test_set.split}
    work = Work(place, "embed", VERSION, known, {"model": digest(loaded.model)})
    names = [f"{number}.safetensors" for number in range(len(test_set.parts))]
    make = functools.partial(TarEmbedder, Travelling(loaded, None), test_set.source, test_set.split, batch_size)
    make_shards(work, names, make, totals, spread)
    kept, dropped, features = [], Counter(), []
    for name in names:
        rows = json.loads((place / name).with_suffix(".json").read_text("utf-8"))
        kept += [Example(b"", label, tuple(texts), tuple(wrong)) for label, texts, wrong in rows["examples"]]
        dropped.update(rows["dropped"])
        features += _features(place / name)
    whole = torch.cat(features) if features else None
    return measured(loaded, test_set, whole, kept, dropped, templates, batch_size, dimensions)


def _features(path: str | os.PathLike) -> list[torch.Tensor]:
    from safetensors.torch import load_file

    return [rows for rows in load_file(os.fspath(path)).values() if len(rows)]


class TarEmbedder:
    """Embeds the images of one tar after another with a model that stays in memory; engine-free."""

    def __init__(self, sent: Travelling, source: str, split: str, batch_size: int) -> None:
        self.loaded, self.parts, self.batch_size = sent.here(), open_wds(source, split).parts, batch_size

    def __call__(self, target: Path) -> dict[str, Any]:
        """Write one tar's features; the content of its record."""
        from safetensors.torch import save_file

        self.loaded.model.eval()
        kept, dropped, features = embed(self.loaded, self.parts[int(target.stem)](), self.batch_size)
        rows = torch.zeros(0, 1) if features is None else features.float().cpu().contiguous()
        save_file({"features": rows}, target)
        return {
            "sha256": sha256_file(target),
            "bytes": target.stat().st_size,
            "samples": len(kept),
            "dropped": dict(sorted(dropped.items())),
            "examples": [[example.label, example.texts, example.negatives] for example in kept],
        }
