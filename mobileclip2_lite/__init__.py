"""mobileclip2_lite: reinforce a data set once, train small CLIP models from it many times.

    pairs      make_pairs(settings, out)                image-text pairs from anywhere, as shards
    reinforce  reinforce.reinforce(settings, pairs, out)  replayable views and teachers' embeddings beside every pair
    train      train(settings, data, out, seed)         the control, or the student by distillation
    evaluate   evaluate(loaded, world, settings)        zero-shot, retrieval, binding, relations, shifts
    run        run(recipe)                              all of it, and a report

Each stage reads a folder, writes a folder with a `manifest.json`, finds finished work and goes on where it was killed.
Settings are the dataclasses of `recipes`; models come from `create_model(name)` with their preprocess and tokenizer.
The command line is `mobileclip2-lite`; the course is in `notebooks/`, `00_start_here.ipynb` first.
"""

from __future__ import annotations

import importlib
import os

# Before torch is imported: its threads must sleep, not spin, while they wait, or what runs beside them starves.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

__version__ = "0.1.0"

# `reinforce` is not among them: the module of that name would hide the function.
_HOMES = {
    "make_pairs": "pairs",
    "train": "training",
    "evaluate": "evaluation",
    "run": "pipeline",
    "create_model": "models.zoo",
    "load_teachers": "models.teachers",
    "ReinforcedDataset": "loader",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str):
    """Public names are fetched when they are first asked for, so that importing the package stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
