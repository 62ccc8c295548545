"""mobileclip2_lite: reinforce a data set once, train small CLIP models from it many times.

    import mobileclip2_lite as mc

    mc.make_pairs(settings, out)              image-text pairs from anywhere, as shards
    mc.filter_pairs(settings, pairs, out)     the best of them
    mc.caption(settings, pairs, out)          synthetic captions beside every pair
    mc.reinforce(settings, pairs, out)        replayable views and the teachers' embeddings beside every pair
    mc.train(settings, data, out, seed)       the control, or the student by distillation
    mc.evaluate(loaded, world, settings)      zero-shot, retrieval, binding, relations, shifts
    mc.run(recipe, folder)                    all of it, and a report

Each stage reads a folder, writes a folder with a `manifest.json`, finds finished work and goes on where it was killed.
Settings are the dataclasses of `mc.recipes`; models come from `mc.create_model(name)` with their preprocess and
tokenizer. The command line is `mobileclip2-lite`; the course is in `notebooks/`, `00_start_here.ipynb` first.
"""

from __future__ import annotations

import importlib
import os

# Before torch is imported: its threads must sleep, not spin, while they wait, or what runs beside them starves.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

__version__ = "0.1.0"

_HOMES = {
    "recipes": "",
    "create_model": "models.zoo",
    "list_models": "models.zoo",
    "save_model": "models.zoo",
    "LoadedModel": "models.loaded",
    "load_teachers": "models.teachers",
    "load_captioner": "models.embedded",
    "make_pairs": "pairs.collect",
    "filter_pairs": "filtering.stage",
    "caption": "captioning.stage",
    "reinforce": "reinforcement.stage",
    "train": "training.loop",
    "evaluate": "evaluation.suite",
    "run": "pipeline",
    "Pair": "shards.samples",
    "Sample": "shards.samples",
    "read_samples": "shards.samples",
    "write_shard": "shards.samples",
    "inspect": "reports.inspection",
    "join": "shards.joining",
    "shrink": "shards.shrinking",
    "ReinforcedDataset": "shards.dataset",
    "View": "views.view",
    "draw": "views.drawing",
    "replay": "views.replay",
    "PairLoss": "training.losses",
    "export_onnx": "deployment.export",
    "load_exported": "deployment.runtime",
    "search_folder": "deployment.search",
}
"""Public name -> module that defines it."""

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str):
    """Public names are fetched when they are first asked for, so that importing the package stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOMES[name]
    return (
        getattr(importlib.import_module(f"{__name__}.{home}"), name)
        if home
        else importlib.import_module(f"{__name__}.{name}")
    )


def __dir__() -> list[str]:
    return sorted(__all__)
