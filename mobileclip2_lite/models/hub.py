"""Hub repositories as local folders: from the cache where they are whole, else only the files that are needed.

Reads the hub and its cache, writes only that cache. With `HF_HUB_OFFLINE=1`, or without network, the cache must do.
Taught by notebooks/60_deploy.ipynb.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mobileclip2_lite.models.weight_files import PART, SUFFIXES, first_line, named_parts

HUB = "hf-hub:"
"""How the name of a hub repository begins."""
WEIGHT_NAMES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "model.safetensors",
)
"""In this order: beside open_clip's files, repositories keep transformers' `model.safetensors` with other keys."""


def pick(files: Sequence[str]) -> str | None:
    """The weights file among the files of a folder: known names first, then safetensors before PyTorch; or None."""
    top = [name for name in files if "/" not in name and Path(name).suffix.lower() in SUFFIXES]
    known = [name for name in WEIGHT_NAMES if name in top]
    return (known or sorted(top, key=lambda name: (SUFFIXES.index(Path(name).suffix.lower()), name)) or [None])[0]


def snapshot(repository: str) -> Path:
    """The local folder of `OWNER/NAME` or `OWNER/NAME@REVISION` with its configs and one weights file.

    Raises:
        FileNotFoundError: the cache does not have it whole, and it can't be fetched.
    """
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download
    from huggingface_hub.errors import HFValidationError

    name, _, revision = repository.partition("@")
    try:
        cached = Path(snapshot_download(name, revision=revision or None, local_files_only=True))
        if pick([path.name for path in cached.iterdir()]):
            return cached
        missing = "it has no weights"
    except (OSError, HFValidationError) as error:
        missing = first_line(error)
    try:
        files = HfApi().list_repo_files(name, revision=revision or None)
        weights = pick(files)
        alike = PART.fullmatch(weights or "")  # of weights in parts, all parts
        wanted = [
            file
            for file in files
            if "/" not in file
            and (
                file.endswith(".json")
                or file == weights
                or (alike and (other := PART.fullmatch(file)) and other[1] == alike[1])
            )
        ]
        local = [hf_hub_download(name, file, revision=revision or None) for file in wanted]
        folder = Path(local[0]).parent
        for file in set(named_parts(folder)) & set(files) - set(wanted):  # an index may give them any names
            hf_hub_download(name, file, revision=revision or None)
        return folder
    except Exception as error:  # the hub client, requests and the cache each have their own
        raise FileNotFoundError(
            f"hf-hub:{repository} is not whole in the local cache ({missing}) and could not be fetched "
            f"({first_line(error)}). Fetch it once with network: `hf download {name}`"
        ) from error
