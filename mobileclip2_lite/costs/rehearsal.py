"""A training rehearsed: the model at its real size, the data opened at both ends, the bill; nothing is trained.

On torch's meta device tensors have shapes and no numbers, so that a laptop builds what a cluster will train. Reads the
manifest and the first and the last shard; writes nothing. Gives up: what autocast saves (activations are counted in
fp32; bf16 takes about half), and what a GPU's libraries take for themselves. Taught by notebooks/70_scaling.ipynb.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from mobileclip2_lite.costs.flops import peak_memory_of
from mobileclip2_lite.costs.plan import size_words
from mobileclip2_lite.models.card import TeacherCard
from mobileclip2_lite.models.loaded import LoadedModel, parameter_count
from mobileclip2_lite.models.resolve import resolve
from mobileclip2_lite.recipes import Train
from mobileclip2_lite.reports.page import Block, Table, Text
from mobileclip2_lite.shards.keys import IMAGE, TEXT, caption_key, embedding_key
from mobileclip2_lite.shards.order import POOL
from mobileclip2_lite.shards.samples import Sample, read_samples, shard_names
from mobileclip2_lite.shards.tars import TarIndex
from mobileclip2_lite.training.checks import check, check_division
from mobileclip2_lite.training.start import lock, new_model, training_mode
from mobileclip2_lite.training.teachers import teacher_cards
from mobileclip2_lite.work.folder import read_manifest
from mobileclip2_lite.work.place import StorePath, place_of

ACTIVATIONS = "Activations are those of fp32; bf16 takes about half of them."
IN_PARTS = " Gradients are counted whole; of layers that are not in use a process keeps its part only."


def rehearse(settings: Train, data: str | Path | StorePath, processes: int = 1) -> list[Block]:
    """Everything that a training would find out in its first hour, and its size, to be printed.

    Args:
        settings: as `training.loop.train` takes them.
        data: the folder of reinforced shards; two of them are read.
        processes: that will train together.

    Raises:
        ValueError: settings contradict each other, the data, or the number of processes; the message names the field,
            or shard, sample and member.
        ShardError: the first or the last shard is damaged.
        FileNotFoundError: shards, or the model's weights, are not there.
    """
    check(settings)
    if processes < 1:
        raise ValueError(f"processes is {processes}: at least one has to train")
    check_division(settings, processes)
    data = place_of(data)
    cards = teacher_cards(data, settings)
    shards = read_manifest(data)["shards"]
    _look_at_ends(data, settings, cards, shards)
    loaded = _without_numbers(settings)
    _look_at_tokens(loaded, data, shards)
    sizes = _memory(loaded, settings, cards, processes)
    return [
        Text("Nothing was trained: tensors had shapes and no numbers. The first and the last shard were read."),
        _training_table(loaded, settings, shards, processes),
        Table(["memory of a process", "bytes"], [[what, size_words(size)] for what, size in sizes.items()]),
        Text(ACTIVATIONS + (IN_PARTS if settings.parallel == "fsdp" else "")),
        _disk_table(data, settings, shards, weight_bytes(loaded)),
    ]


def _look_at_ends(
    data: Path | StorePath, settings: Train, cards: Mapping[str, TeacherCard], shards: list[dict[str, Any]]
) -> None:
    told = {shard["name"]: shard["samples"] for shard in shards}
    names = shard_names(data)
    for name in dict.fromkeys((names[0], names[-1])):
        found = len(TarIndex(data / name))
        if found != told[name]:
            raise ValueError(f"{data / name} holds {found} samples, the manifest says {told[name]}: fetch it again")
        sample = next(read_samples(data / name))
        if problem := _problem(sample, settings, cards):
            raise ValueError(f"{data / name}, sample {sample.uid}: {problem}")


def _look_at_tokens(loaded: LoadedModel, data: Path | StorePath, shards: list[dict[str, Any]]) -> None:
    """Look whether the text tower has a place for every token of real texts: without numbers it takes any."""
    sample = next(read_samples(data / shards[0]["name"]))
    written = [sample.text, *(text for texts in sample.syn_texts.values() for text in texts)]
    tokens, tower = loaded.tokenizer(written), getattr(loaded.model, "text", loaded.model)
    rows = max((part.num_embeddings for part in tower.modules() if isinstance(part, nn.Embedding)), default=None)
    if rows is not None and int(tokens.max()) >= rows:
        raise ValueError(
            f"the tokenizer gives token {int(tokens.max())} for {sample.uid}, the text tower knows {rows}: the model's "
            "folder holds another model's tokenizer"
        )
    context = getattr(loaded.model, "context_length", tokens.shape[1])
    if tokens.shape[1] > context:
        raise ValueError(f"the tokenizer gives {tokens.shape[1]} tokens a text, the text tower takes {context}")


def _problem(sample: Sample, settings: Train, cards: Mapping[str, TeacherCard]) -> str:
    """What a sample lacks for this training; empty if nothing."""
    if settings.views == "stored" and not sample.views:
        return "it has no stored view: reinforce the folder, or set views='weak'"
    for captioner in settings.captioners:
        if not sample.syn_texts.get(captioner):
            return f"it has no captions of {captioner}, but of {sorted(sample.syn_texts)}: see captioners"
    kinds = [IMAGE, TEXT, *map(caption_key, settings.captioners)]
    for name, card in cards.items() if not settings.online else ():
        for kind in kinds:
            rows = sample.embeddings.get(embedding_key(kind, name))
            if rows is None:
                return f"it has no embeddings {embedding_key(kind, name)}"
            if rows.shape[1] != card.dimension:
                return f"{embedding_key(kind, name)} has {rows.shape[1]} dimensions, the manifest says {card.dimension}"
    return ""


def _without_numbers(settings: Train) -> LoadedModel:
    """The model that would be trained; weights that it starts from are read, to see that they fit."""
    if settings.start or settings.text_from or resolve(settings.model).weights is not None:
        loaded = new_model(settings)
        loaded = loaded._replace(model=loaded.model.to("meta"))
    else:
        with torch.device("meta"):
            loaded = new_model(settings)
    lock(loaded.model, settings.lock)
    training_mode(loaded.model, settings.lock)
    if settings.recompute:
        loaded.model.set_grad_checkpointing(True)
    return loaded


def _share(settings: Train, processes: int) -> int:
    """Samples of a process that are contrasted at a time."""
    return settings.batch_size // (processes * settings.accumulate)


def _groups(settings: Train) -> int:
    """Texts of a sample in a step."""
    return 1 + bool(settings.captioners and settings.texts == "sum") + bool(settings.hard_negatives)


def _memory(loaded: LoadedModel, settings: Train, cards: Mapping[str, TeacherCard], processes: int) -> dict[str, int]:
    model, share = loaded.model, _share(settings, processes)
    weights = weight_bytes(loaded)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    moments = sum(p.nbytes * (1 if settings.optimizer == "nmuon" and p.ndim > 1 else 2) for p in trained)
    parts = processes if settings.parallel == "fsdp" else 1
    at_once = min(share, settings.forward_chunk or share)
    rows, columns = min(share, settings.loss_chunk or share), share * processes
    matrices = 2 * (1 + len(cards)) * _groups(settings) * rows * columns * 4  # both directions, student and teachers
    sizes = {
        "weights": weights // parts,
        f"{settings.optimizer}'s moments": moments // parts,
        f"activations and gradients, {at_once:,} images at a time": _pass_bytes(loaded, at_once, _groups(settings)),
        f"similarities, {rows:,} x {columns:,}": matrices,
    }
    if settings.ema:
        sizes["moving average"] = weights
    return {**sizes, "all": sum(sizes.values())}


def weight_bytes(loaded: LoadedModel) -> int:
    """Bytes of all weights and buffers."""
    return sum(value.nbytes for value in (*loaded.model.parameters(), *loaded.model.buffers()))


def _pass_bytes(loaded: LoadedModel, images: int, groups: int) -> int:
    """Most bytes alive in one forward and backward pass of both towers, weights left out."""
    model, side = loaded.model, loaded.preprocess.image_size
    context = loaded.tokenizer(["a photograph"]).shape[1]
    pixels = torch.zeros(images, 3, side, side, dtype=torch.uint8, device="meta")
    tokens = torch.zeros(images * groups, context, dtype=torch.long, device="meta")

    def both() -> None:
        features = model.encode_image(loaded.preprocess.normalize(pixels)), model.encode_text(tokens)
        if features[0].shape[1] != features[1].shape[1]:
            raise ValueError(f"the towers' features have {[f.shape[1] for f in features]} dimensions: they must agree")
        sum(F.normalize(rows.float(), dim=-1).sum() for rows in features).backward()

    return peak_memory_of(both, model)


def _training_table(loaded: LoadedModel, settings: Train, shards: list[dict[str, Any]], processes: int) -> Table:
    samples, steps = sum(shard["samples"] for shard in shards), settings.samples // settings.batch_size
    if samples < settings.batch_size:
        raise ValueError(f"the data holds {samples} samples, fewer than one batch of {settings.batch_size}")
    shape = loaded.preprocess
    rows = {
        "parameters, image tower": f"{parameter_count(loaded.model.visual):,}",
        "parameters, all": f"{parameter_count(loaded.model):,}",
        "image": f"{shape.image_size} pixels, {shape.interpolation}",
        "samples": f"{samples:,} in {len(shards):,} shards",
        "steps": f"{steps:,} of {settings.batch_size:,}",
        "epochs": f"{steps * settings.batch_size * settings.candidates / samples:,.2f}",
        "a process and step": f"{_share(settings, processes) * settings.accumulate:,} of {processes:,}",
    }
    return Table(["training", ""], [list(row) for row in rows.items()])


def _disk_table(data: Path | StorePath, settings: Train, shards: list[dict[str, Any]], weights: int) -> Table:
    names = (shards[0]["name"], shards[-1]["name"])
    mean = sum((data / name).stat().st_size for name in names) / len(names)
    steps = settings.samples // settings.batch_size
    every = settings.checkpoint_every
    rows = [["all shards, by the first and the last", size_words(mean * len(shards))]]
    if isinstance(data, StorePath):
        rows.append(["cache wanted on a machine's disk", size_words(mean * min(len(shards), 2 * POOL))])
    if every:
        kept = weights * (3 + bool(settings.ema))
        rows.append([f"a checkpoint, of which {min(2, math.ceil(steps / every) - 1)} are kept", size_words(kept)])
    return Table(["disk", "bytes"], rows)
