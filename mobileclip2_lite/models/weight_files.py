"""Weights read without running code that lies in a file, whatever trainers have wrapped them in.

Reads safetensors, and PyTorch files with `weights_only=True`: a file with pickled code in it is refused. A file is read
as what it is, whatever its suffix says, and several parts as one. Writes nothing.
Taught by notebooks/50_architecture_and_latency.ipynb.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import warnings
import zipfile
from pathlib import Path

import torch

from mobileclip2_lite.work.kinds import HEAD, kind_in_truth

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
"""Files that can hold weights."""

PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.[a-z]+")
"""Name of one part of a weights file in parts, as the hub's libraries write it."""


WRAPPERS = ("state_dict", "model_state_dict", "model", "module")
"""Keys under which trainers keep the weights of a checkpoint."""

AVERAGED = ("state_dict_ema", "model_ema", "ema_model", "ema_state_dict", "params_ema", "ema")
"""Keys under which they keep the moving average, which is what they evaluate."""

PREFIXES = ("module.", "_orig_mod.", "model.")
"""What DistributedDataParallel, torch.compile and Lightning put before every key, in any order."""


def read_state(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    """The tensors of a weights file by key, without what trainers wrap them in.

    Of a file in parts (`NAME-00001-of-00003.safetensors`) all parts are read, whichever is named. Where a moving
    average lies beside the raw weights, it is taken, and said.

    Raises:
        FileNotFoundError: there is no such file, or a part is missing.
        ValueError: it is truncated, of another kind, a Git LFS pointer, holds pickled code or TorchScript, or holds no
            tensors; the message says what to do.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: not a weights file; known suffixes are {', '.join(SUFFIXES)}")
    files = parts_of(path)
    state = _unwrapped(_read_file(path), path)
    for other in files:
        if other != path:
            state |= _unwrapped(_read_file(other), other)
    found: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        bare = _bare(key)
        if bare == "n_averaged":  # torch's AveragedModel counts its steps
            continue
        if bare in found:
            raise ValueError(f"{path} holds {bare} twice, once as {key}: save one model alone, without the other")
        found[bare] = value
    return found


def parts_of(path: Path) -> list[Path]:
    """All files of a weights file in parts; `[path]` of one that is whole.

    Raises:
        FileNotFoundError: a part is missing.
    """
    names = named_parts(path.parent)
    if path.name not in names:
        match = PART.fullmatch(path.name)
        count = int(match[3]) if match else 0
        names = [f"{match[1]}-{number:05d}-of-{match[3]}{path.suffix}" for number in range(1, count + 1)]
    if absent := ", ".join(name for name in names if not path.with_name(name).is_file()):
        raise FileNotFoundError(f"{path} is one of {len(names)} parts; not beside it: {absent}. Fetch them all")
    return [path.with_name(name) for name in names] or [path]


def named_parts(folder: Path) -> list[str]:
    """The files that a folder's `*.index.json` names as the parts of its weights; empty where there is none."""
    for path in sorted(folder.glob("*.index.json")):
        if names := parts_in(path.read_bytes()):
            return names
    return []


def parts_in(index: bytes) -> list[str]:
    """The files that an index names; none where it is one of something else, for parts are found by their numbers."""
    try:
        places = json.loads(index)["weight_map"].values()
    except (ValueError, KeyError, TypeError, AttributeError):
        return []
    return sorted({Path(str(place)).name for place in places})


def _unwrapped(state: object, path: Path) -> dict[str, torch.Tensor]:
    """The tensors by key within what a trainer saved."""
    while isinstance(state, dict):
        averaged = [key for key in AVERAGED if _holds_tensors(state.get(key))]
        inner = averaged or [key for key in WRAPPERS if isinstance(state.get(key), dict)] or _only(state, path)
        if not inner:
            break
        if averaged and any(isinstance(state.get(key), dict) for key in WRAPPERS):
            warnings.warn(
                f"{path} holds raw weights and their moving average ({averaged[0]}): the average is taken. For the raw "
                "ones, save them alone.",
                stacklevel=4,
            )
        state = state[inner[0]]
    if not _holds_tensors(state):
        keys = list(state)[:5] if isinstance(state, dict) else type(state).__name__
        raise ValueError(f"{path} holds no weights: expected tensors by name, found {keys}")
    return {str(key): value for key, value in state.items() if isinstance(value, torch.Tensor)}


def _only(state: dict, path: Path) -> list:
    """The one key under which there are tensors, where there are none beside it."""
    if any(isinstance(value, torch.Tensor) and value.ndim for value in state.values()):
        return []
    inner = [key for key, value in state.items() if _holds_tensors(value)]
    if len(inner) > 1:
        raise ValueError(f"{path} holds several sets of weights, {inner}: save one alone")
    return inner


def _holds_tensors(value: object) -> bool:
    """Whether a value is a dict with a tensor in it, or one that wraps such a dict."""
    if not isinstance(value, dict):
        return False
    return any(isinstance(item, torch.Tensor) for item in value.values()) or any(
        _holds_tensors(value.get(key)) for key in WRAPPERS
    )


def _bare(key: str) -> str:
    """A key without the prefixes of trainers."""
    while key.startswith(PREFIXES):
        key = key.partition(".")[2]
    return key


def _read_file(path: Path) -> object:
    """What is in a file, read as what it is, whatever its suffix says."""
    with open(path, "rb") as file:
        head = file.read(HEAD)
    if head[8:9] == b"{":  # safetensors, behind a number that may look like anything
        return _read_safetensors(path)
    if head.startswith(b"PK"):  # a zip file, as torch.save writes it
        return _read_torch(path)
    other = "JSON, a server's answer perhaps: fetch it again" if head.lstrip()[:1] == b"{" else kind_in_truth(head)
    if other:
        raise ValueError(f"{path} holds no weights: it is {other}")
    return _read_safetensors(path) if path.suffix.lower() == ".safetensors" else _read_torch(path)


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file ({error}): fetch or make it again") from error


def _read_torch(path: Path) -> object:
    names = _names_within(path)
    if any("/code/" in name or name.endswith("/constants.pkl") for name in names or ()):
        raise ValueError(
            f"{path} is TorchScript, a program with its weights, as OpenAI publishes CLIP: it is not run here. "
            'OpenAI\'s models come by name and tag, create_model("ViT-B-32", "openai"). Of another one that you trust, '
            "save `torch.jit.load(path).state_dict()` as safetensors and name that file"
        )
    if names is not None and not any(name.endswith("data.pkl") for name in names):
        raise ValueError(f"{path} is a zip file of other things ({', '.join(names[:3])}): unpack it")
    try:
        with open(path, "rb") as file:  # of a path torch would believe the suffix
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        what = re.search(r"Unsupported global: GLOBAL \S+", str(error))  # the rest says how to switch the guard off
        raise ValueError(
            f"{path} was refused: it is broken or no plain file of tensors (pickled objects could run code when "
            f"loaded). Convert it to safetensors where you trust it{f'. ({what[0]})' if what else ''}"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise ValueError(f"{path} is truncated or not a PyTorch file: fetch it again ({first_line(error)})") from error


def _names_within(path: Path) -> list[str] | None:
    """The names in a zip file; None for anything else."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def first_line(error: BaseException) -> str:
    """What an error says, short enough to stand within another message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:240]
