"""The embedded models of `data/`, and the one place that loads a model for a stage: trained, or refused; on its device.

A model's name is a folder or file, an embedded model of `data/`, `MODEL@TAG` of open_clip, or `hf-hub:OWNER/NAME`. The
bare name of an architecture, which `create_model` gives random weights, is none.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobileclip2_lite.models.folders import PHOTO, checked_name, data_folder
from mobileclip2_lite.models.hub import HUB
from mobileclip2_lite.models.resolve import resolve
from mobileclip2_lite.models.stored import model_here
from mobileclip2_lite.work.place import place_of
from mobileclip2_lite.work.store import url_of

if TYPE_CHECKING:
    import torch

    from mobileclip2_lite.models.loaded import LoadedModel

KINDS = {
    "teacher": ("teachers", ("lite-teacher-", "emoji-teacher-"), "train_teacher.py"),
    "captioner": ("captioners", ("lite-captioner-", "emoji-captioner-"), "train_captioners.py"),
    "scorer": ("scorers", ("lite-dfn", "emoji-dfn"), "train_scorer.py"),
}
"""Kind -> folder in `data/`, how the embedded models' names begin (of 120 names, of all), the program that makes
them."""
PREFIXES = tuple(prefix for _, prefixes, _ in KINDS.values() for prefix in prefixes)
"""How the names of all embedded models begin."""
_REMOTE = (HUB, "local-dir:")


def load(name: str | os.PathLike, kind: str = "model", device: str | None = None) -> LoadedModel:
    """A trained model with its preprocess and tokenizer, in eval mode, on the device asked for.

    Args:
        name: a folder or file, an embedded model of `data/`, `MODEL@TAG`, or `hf-hub:OWNER/NAME`.
        kind: `teacher`, `captioner`, `scorer` or `model`: the word for error messages; a captioner must have a text
            decoder.
        device: see `pick_device`.

    Raises:
        ValueError: the name is an architecture's, whose weights would be random; the weights are not those of the card
            beside them; there is no such device; or a captioner has no text decoder. Also as `create_model`.
        FileNotFoundError: there is no such file; for an embedded model the message names the program that makes it.
    """
    from mobileclip2_lite.models.card import read_card
    from mobileclip2_lite.models.zoo import create_model

    where = pick_device(device)
    place, tag = find(name, kind)
    if Path(place).is_dir():
        read_card(place)
    loaded = create_model(place, tag)
    if kind == "captioner" and getattr(loaded.model, "text_decoder", None) is None:
        raise ValueError(f"{name} has no text decoder, so it cannot write captions: name a CoCa model")
    return loaded._replace(model=loaded.model.to(where))


def load_captioner(name: str | os.PathLike, device: str | None = "cpu") -> LoadedModel:
    """`load` of a captioner: one of `data/captioners/`, or any CoCa model with trained weights."""
    return load(name, "captioner", device)


def find(name: str | os.PathLike, kind: str = "model") -> tuple[str, str | None]:
    """Where the trained weights of a name are: what `create_model` takes as its name and its tag.

    Raises:
        ValueError, FileNotFoundError: as `load`.
    """
    text = checked_name(name, kind)
    text = str(model_here(place_of(name))) if url_of(text) else text
    there = Path(text).exists()
    for what, (folder, prefixes, program) in KINDS.items() if not there else ():
        place = data_folder() / folder / text
        if (place / "model.safetensors").is_file():
            return str(place), None
        if text.startswith(prefixes):
            raise FileNotFoundError(
                f"the embedded {what} {text} is not in {place}: make it with `python data/{program}`"
            )
    model, _, tag = text.partition("@")
    if tag and not text.startswith(_REMOTE) and not there:  # a hub's @ is a revision
        return model, tag
    check_trained(text, kind)
    if not text.startswith(_REMOTE) and resolve(text).weights is None:
        raise ValueError(f"{kind} {text} holds no weights: name a folder or a file that does")
    return text, None


def check_trained(name: str, what: str) -> None:
    """Refuse the bare name of an architecture, which would do its work with random weights and without a word.

    Raises:
        ValueError: `name` is neither a path nor a hub's, has no `@TAG`, and is none of the embedded models.
    """
    known = name.startswith((*PREFIXES, PHOTO, *_REMOTE))
    path = Path(name).exists() or len(Path(name).parts) > 1 or Path(name).suffix in (".safetensors", ".pt", ".pth")
    if not known and "@" not in name and not path:
        raise ValueError(
            f"{what} {name!r} names an architecture, whose weights would be random: give a folder, `MODEL@TAG` "
            "(`ViT-B-32@openai`), `hf-hub:OWNER/NAME`, or an embedded model of data/"
        )


def pick_device(device: str | None = None) -> torch.device:
    """The device of a name: `cpu`, `cuda`, `cuda:1`, `mps`; None or `auto` for a CUDA GPU, if there is one.

    Apple's GPU is taken where it is named: not everything here has been measured on it.

    Raises:
        ValueError: no device has such a name, or this machine lacks it.
    """
    import torch

    if device in (None, "auto"):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device {device!r} is none of cpu, cuda, cuda:N, mps") from error
    if found.type == "cuda" and not (torch.cuda.is_available() and (found.index or 0) < torch.cuda.device_count()):
        raise ValueError(
            f"device {device!r}: torch sees {torch.cuda.device_count()} GPUs here (it may be built for CPUs, or the "
            "driver is missing): see https://pytorch.org/get-started, or take --device cpu"
        )
    if found.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"device {device!r}: there is no Apple GPU that torch can use here; take --device cpu")
    return found


class Travelling:
    """A model for a stage's worker: moved to its device by the worker, and sent to other processes from the CPU.

    A GPU's tensors cannot be sent to another machine, and on this one their memory would stay with the sender.
    """

    def __init__(self, model: Any, device: str | None) -> None:
        """Hold a model.

        Args:
            model: a module or a `LoadedModel`; anything else (a double of an ensemble) stays as it is.
            device: see `pick_device`, asked in the worker's process; None leaves the model where it is, or, sent, puts
                it on such a device as it came from.
        """
        self.model, self.device = model, device

    def here(self) -> Any:
        """The model, on its device."""
        if self.device is None:
            return self.model
        where = pick_device(self.device)
        return _changed(self.model, lambda module: module.to(where))

    def __getstate__(self) -> dict[str, Any]:
        module = getattr(self.model, "model", self.model)
        first = next(module.parameters(), None) if hasattr(module, "parameters") else None
        device = self.device or (first.device.type if first is not None else None)
        return {"model": _changed(self.model, _on_cpu), "device": device}


def _changed(model: Any, change: Callable[[torch.nn.Module], torch.nn.Module]) -> Any:
    import torch

    if isinstance(model, torch.nn.Module):
        return change(model)
    return model._replace(model=change(model.model)) if hasattr(model, "_replace") else model


def _on_cpu(module: torch.nn.Module) -> torch.nn.Module:
    if all(tensor.device.type == "cpu" for tensor in (*module.parameters(), *module.buffers())):
        return module
    return copy.deepcopy(module).to("cpu")
