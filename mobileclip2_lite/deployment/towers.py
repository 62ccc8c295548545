"""The exported towers of any model, made once: what a search or a page needs that is asked for a model by name.

Reads a model; writes below a given place a folder of towers for each file of weights, and a note which weights a name
stood for. The paper has no such program. Taught by notebooks/60_deploy.ipynb.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mobileclip2_lite.deployment.runtime import towers_here
from mobileclip2_lite.work.files import canonical, pretty, sha256_bytes, sha256_file, write_atomic
from mobileclip2_lite.work.place import place_of

Check = Callable[[Mapping[str, Any]], None]
"""Is given the config of a model's text tower, and refuses what cannot be used before anything is exported."""


def exported_folder(model: str, place: Path, pretrained: str | None = None, check: Check | None = None) -> Path:
    """The folder with a model's exported towers: where they are, else below `place`, exported first.

    Which weights a name stood for is noted beside the towers, so that the next search neither builds nor hashes it.

    Raises:
        Whatever `check` raises: an export takes minutes, and what follows may not be able to use it.
    """
    if (place_of(model) / "image.onnx").is_file():
        return towers_here(model)
    note = place / f"model-{sha256_bytes(canonical([model, pretrained]))[:16]}.json"
    towers = _noted(note)
    if towers is None:
        towers, weights = _export(model, place, pretrained, check)
        status = weights.stat()
        facts = {"towers": towers.name, "weights": str(weights.resolve())}
        write_atomic(note, pretty({**facts, "size": status.st_size, "changed": status.st_mtime_ns}))
    return towers


def _noted(note: Path) -> Path | None:
    """The towers that a note names, if the weights that it was written for are still there unchanged."""
    if not note.is_file():
        return None
    try:
        facts = json.loads(note.read_text("utf-8"))
        status = os.stat(facts["weights"])
        towers = note.parent / facts["towers"]
        same = (status.st_size, status.st_mtime_ns) == (facts["size"], facts["changed"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return towers if same and (towers / "export.json").is_file() else None


def _export(model: str, place: Path, pretrained: str | None, check: Check | None) -> tuple[Path, Path]:
    """Export a model below `place`, once for each file of weights; the folder, and the weights."""
    from mobileclip2_lite.deployment.export import export_onnx
    from mobileclip2_lite.models.embedded import find
    from mobileclip2_lite.models.resolve import resolve
    from mobileclip2_lite.models.zoo import create_model

    name, pretrained = find(model) if pretrained is None else (model, pretrained)
    source = resolve(name, pretrained)
    towers = place / f"towers-{sha256_file(source.weights)[:16]}"
    if not (towers / "export.json").is_file():  # written last
        loaded = create_model(name, pretrained)
        if check is not None:
            check(loaded.model.model_cfg["text_cfg"])
        export_onnx(loaded, towers, name=model)
    return towers, source.weights
