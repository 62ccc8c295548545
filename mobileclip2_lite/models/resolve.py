"""Where a model comes from: from any name, tag, hub repository, folder or file to its config, preprocess and weights.

The one place that knows the traps. open_clip falls back to OpenAI's mean and std, bicubic, whenever weights come from a
local path or there are none; for MobileCLIP2-S0, S2 and B that is wrong, and at least ten public projects carry a
workaround. It also only warns where a tag's weights were trained with another activation than the config's. Here the
family's own table, the hub repository's config or the tag decides, in that order of knowledge, and if nothing knows, a
warning says so. Reads JSON configs, the hub and its cache; writes nothing but the hub's own cache.
Taught by notebooks/50_architecture_and_latency.ipynb.
"""

from __future__ import annotations

import copy
import json
import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mobileclip2_lite.models.family import FAMILY, family_member
from mobileclip2_lite.models.folders import PHOTO, PHOTO_TEACHERS, checked_name, photo_folder
from mobileclip2_lite.models.hub import HUB, snapshot
from mobileclip2_lite.models.model_folder import config_in, is_transformers, read_config, recognise, weights_in
from mobileclip2_lite.models.preprocess import Preprocess
from mobileclip2_lite.models.stored import model_here
from mobileclip2_lite.models.weight_files import SUFFIXES, first_line
from mobileclip2_lite.models.weights import TRANSFORMERS
from mobileclip2_lite.work.place import place_of
from mobileclip2_lite.work.store import url_of

CONFIGS = Path(__file__).parent / "configs"


@dataclass
class Source:
    """What is needed to build one model."""

    architecture: str
    """Name of the config, for messages and the tokenizer."""
    model_cfg: dict[str, Any]
    """open_clip's model config."""
    preprocess: Preprocess
    """As the weights expect it."""
    weights: Path | None = None
    """File to load, None for random weights."""
    folder: Path | None = None
    """Folder with tokenizer files, if the model came from one."""
    notes: list[str] = field(default_factory=list)
    """What the user should know."""


def lite_names() -> list[str]:
    """Names of the lite family."""
    return sorted(path.stem for path in CONFIGS.glob("*.json"))


def resolve(name_or_path: str | os.PathLike, pretrained: str | os.PathLike | None = None) -> Source:
    """The source that a name and a `pretrained` value mean; see `zoo.create_model`.

    Raises:
        ValueError: nothing of that name or tag exists, or a folder's config is broken.
        FileNotFoundError: a path that looks like one does not exist, or the hub's files can't be had.
    """
    text = os.path.expanduser(checked_name(name_or_path))
    if url_of(name_or_path):
        _no_pretrained(str(name_or_path), pretrained)
        place = place_of(name_or_path)
        copy = model_here(place)
        return _from_folder(copy, place.name) if copy.is_dir() else _from_file(copy)
    if pretrained is not None and url_of(pretrained):
        pretrained = model_here(place_of(pretrained))
    path = Path(text)
    if text.startswith(HUB):
        _no_pretrained(text, pretrained)
        repository = text[len(HUB) :]
        return _from_folder(snapshot(repository), repository.partition("@")[0])
    if text.startswith("local-dir:"):
        path = Path(os.path.expanduser(text.removeprefix("local-dir:")))
        if not path.is_dir():
            raise FileNotFoundError(f"{path} is not a folder ({text}): name the folder that holds the weights")
    if text.startswith(PHOTO) and not path.is_dir():
        path = photo_folder(text)
        if not path.is_dir():
            if text not in PHOTO_TEACHERS:
                raise ValueError(f"there is no photograph teacher {text!r}: they are {', '.join(PHOTO_TEACHERS)}")
            raise FileNotFoundError(
                f"the photograph teacher {text} is not in {path.parent}: make it in minutes with "
                "`mobileclip2-lite photo-teachers`, after `pip install 'mobileclip2_lite[photos]'`"
            )
    if path.is_dir():
        _no_pretrained(text, pretrained)
        return _from_folder(path, path.resolve().name)
    if path.suffix.lower() in SUFFIXES:
        _no_pretrained(text, pretrained)
        return _from_file(path)
    if pretrained is None and "@" in text:  # MODEL@TAG, as the stages take it
        text, _, pretrained = text.partition("@")
    return _from_name(text, None if pretrained is None else os.path.expanduser(os.fspath(pretrained)))


def _no_pretrained(name: str, pretrained: Any) -> None:
    if pretrained is not None:
        raise ValueError(f"{name} brings its own weights, pretrained={os.fspath(pretrained)!r} can't be used with it")


def _from_name(name: str, pretrained: str | None) -> Source:
    source = _built_in(name)
    if pretrained is None:
        return source
    tag = _tag(name, pretrained)
    path = Path(pretrained)
    if tag is not None:
        return _with_tag(source, name, pretrained, tag)
    if path.is_dir():
        source.weights, source.folder = weights_in(path), path
    elif path.suffix.lower() in SUFFIXES:
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist (weights for {name})")
        source.weights = path
    else:
        raise ValueError(
            f"{name} has no weights {pretrained!r}: tags are {_tags(name) or 'none'}, or give a file or folder"
        )
    return source


def _built_in(name: str) -> Source:
    """A name of the lite family or of open_clip, with random weights."""
    import open_clip

    lite = CONFIGS / f"{name}.json"
    if lite.is_file():
        config = json.loads(lite.read_text("utf-8"))
        return Source(name, config["model_cfg"], Preprocess.from_config(config["preprocess_cfg"]))
    if name in FAMILY:
        return Source(name, open_clip.get_model_config(FAMILY[name].config), FAMILY[name].preprocess)
    config = open_clip.get_model_config(name)
    if config is None:
        hint = " (its text tower is a hybrid that open_clip does not have)" if name == "MobileCLIP-S0" else ""
        if open_clip.get_model_config(name.replace("/", "-")) is not None:
            hint = f" (open_clip calls it {name.replace('/', '-')!r})"
        elif name.startswith(("/", ".", "~")) or os.sep in name:
            hint = " (and there is nothing at that path)"
        raise ValueError(
            f"no model {name!r}{hint}: neither a folder nor a weights file, nor a name of the lite family "
            f"({', '.join(lite_names())}), of MobileCLIP ({', '.join(FAMILY)}) or of open_clip "
            "(`open_clip.list_models()`)"
        )
    preprocess, note = _usual_preprocess(name, config)
    return Source(name, config, preprocess, notes=[note] if note else [])


def _usual_preprocess(name: str, config: dict[str, Any]) -> tuple[Preprocess, str]:
    """The preprocess that all of a name's tags share, else open_clip's default and a note that says so."""
    import open_clip

    size = config["vision_cfg"].get("image_size", 224)
    known = {
        Preprocess.from_config({**_tag(name, tag), "size": size})
        for tag in open_clip.list_pretrained_tags_by_model(name)
    }
    if len(known) == 1:
        return known.pop(), ""
    default = Preprocess.from_config({"size": size})
    if not known:
        return default, ""
    return default, (
        f"the weights published for {name} disagree about the preprocess; without a tag OpenAI's is taken. "
        "If yours were trained otherwise, pass mean=, std=, interpolation= or resize_mode= to create_model."
    )


def _tag(name: str, tag: str) -> dict[str, Any] | None:
    import open_clip

    found = open_clip.get_pretrained_cfg(name, tag)
    return dict(found) if found else None


def _tags(name: str) -> list[str]:
    import open_clip

    return open_clip.list_pretrained_tags_by_model(name)


def _with_tag(source: Source, name: str, tag: str, config: dict[str, Any]) -> Source:
    """`source` with a tag's weights from the hub or its cache, its preprocess and its activation."""
    import open_clip

    if name not in FAMILY:
        source.preprocess = Preprocess.from_config({**config, "size": source.preprocess.image_size})
        source.notes = []
    wanted = bool(config.get("quick_gelu", False))
    if wanted != bool(source.model_cfg.get("quick_gelu", False)):
        source.model_cfg["quick_gelu"] = wanted
    try:
        path = open_clip.download_pretrained(config)
    except Exception as error:  # urllib, the hub client and requests each have their own
        raise FileNotFoundError(
            f"the weights {tag!r} of {name} are not in the local cache and could not be fetched from "
            f"{config.get('hf_hub') or config.get('url')}: {first_line(error)}"
        ) from error
    source.weights = Path(path)
    return source


def _from_file(path: Path) -> Source:
    """A weights file alone: a config beside it or the file's or folder's name says what it is."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    if config_in(path.parent) is not None:
        source = _from_folder(path.parent, path.resolve().parent.name, weights=path)
    else:
        name = family_member(path.stem) or family_member(path.resolve().parent.name) or recognise(path)
        if name is None:
            raise ValueError(
                f"{path} does not say which model it is (no config beside it, neither name nor tensors of MobileCLIP): "
                f'use create_model("MobileCLIP2-S0", pretrained="{path.name}") with the right name'
            )
        source = _built_in(name)
        source.weights = path
    return source


def _from_folder(folder: Path, called: str, weights: Path | None = None) -> Source:
    """A folder of ours (`config.json`), of open_clip (`open_clip_config.json`), or with only a known weights file."""
    config_path = config_in(folder)
    if config_path is None:
        if is_transformers(folder):
            raise ValueError(f"{folder}: {TRANSFORMERS}")
        weights = weights or weights_in(folder)
        name = family_member(weights.stem) or family_member(called) or recognise(weights)
        if name is None:
            raise ValueError(
                f"{folder} has weights ({weights.name}) but no config.json or open_clip_config.json with "
                f'`model_cfg`, and they are not MobileCLIP\'s: use create_model("<name>", pretrained="{weights}")'
            )
        source = _built_in(name)
        source.weights, source.folder = weights, folder
        return source
    config = read_config(config_path)
    model_cfg = config["model_cfg"]
    name = config.get("architecture") or family_member(called) or called
    given = config.get("preprocess_cfg") or {}
    known = _usual_of_trunk(model_cfg)
    size = given.get("size") or model_cfg["vision_cfg"].get("image_size", 224)
    notes = []
    if known is None and not ("mean" in given and "std" in given):
        notes = [
            f"{config_path} says nothing of mean and std: OpenAI's are taken; pass mean= and std= if that is wrong"
        ]
    preprocess = Preprocess.from_config({**(known.to_config() if known else {}), **given, "size": size})
    return Source(name, model_cfg, preprocess, weights or weights_in(folder), folder, notes)


def _usual_of_trunk(model_cfg: dict[str, Any]) -> Preprocess | None:
    """The preprocess of the family's models with this image tower, for configs that are silent about it."""
    import open_clip

    trunk = model_cfg["vision_cfg"].get("timm_model_name")
    for member in FAMILY.values():
        if trunk and open_clip.get_model_config(member.config)["vision_cfg"]["timm_model_name"] == trunk:
            return member.preprocess
    return None


def _check_size(source: Source, image_size: int) -> None:
    patch = source.model_cfg["vision_cfg"].get("patch_size") or 1
    below, name = image_size // patch * patch, source.architecture
    if image_size < 1:
        raise ValueError(
            f"image_size {image_size} is no size in pixels: {name}'s own is {source.preprocess.image_size}"
        )
    if below < image_size:
        take = f"{below} or {below + patch}" if below else str(patch)
        raise ValueError(f"image_size {image_size} is no multiple of {name}'s patches of {patch} pixels: take {take}")


def say(source: Source) -> None:
    """Warn of what the user should know."""
    for note in source.notes:
        warnings.warn(note, stacklevel=4)


def with_size(source: Source, image_size: int | None, context_length: int | None) -> Source:
    """A copy whose config is built for another picture size or context length.

    Raises:
        ValueError: the size is none, or no multiple of a ViT's patches, of which the rest would never be looked at.
    """
    source = copy.deepcopy(source)
    if image_size is not None:
        _check_size(source, image_size)
        source.model_cfg["vision_cfg"]["image_size"] = image_size
        source.preprocess = source.preprocess.replace(image_size=image_size)
    if context_length is not None:
        source.model_cfg["text_cfg"]["context_length"] = context_length
    return source
