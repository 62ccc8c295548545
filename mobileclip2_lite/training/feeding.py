"""From reinforced shards to what a training step takes, prepared beside it: tokens cached and cut, tensors pinned.

Ours. Reads a folder of reinforced shards through `dataset.ReinforcedDataset`; writes nothing. One stream runs over all
epochs, so that loader processes start once, and any step can be asked for, which is what makes resuming exact. Texts
are cut to the longest of the batch where the text tower cannot notice (models/trimming.py). Taught by
notebooks/40_reinforced_training.ipynb.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mobileclip2_lite.models.trimming import text_lengths
from mobileclip2_lite.recipes import Train
from mobileclip2_lite.shards.batch import Batch
from mobileclip2_lite.shards.dataset import ReinforcedDataset, start_method
from mobileclip2_lite.training.distributed import Processes
from mobileclip2_lite.training.hard_negatives import negatives
from mobileclip2_lite.work.place import StorePath
from mobileclip2_lite.work.processes import serve_loader

REAL, CAPTIONS = "text", "captions"
"""Names of groups of texts."""


class TextGroup(NamedTuple):
    """One text for each sample of a batch."""

    name: str
    """`REAL` texts or synthetic `CAPTIONS`."""
    texts: list[str]
    """The strings, for live teachers; empty where nobody needs them."""
    tokens: Tensor
    """int64 (B, L)"""
    teachers: dict[str, Tensor]
    """teacher -> float32 (B, E), empty where nothing is distilled or teachers run live."""


@dataclass
class PreparedBatch:
    """One process's share of a batch, on its device."""

    uids: list[str]
    images: Tensor
    """uint8 (B, 3, S, S), the student's size."""
    groups: list[TextGroup]
    """Real texts and, where there are synthetic captions, those."""
    teacher_images: dict[str, Tensor]
    """teacher -> float32 (B, E), empty where nothing is distilled or teachers run live."""
    live_images: list[Tensor] = field(default_factory=list)
    """uint8 (B, 3, S', S') of the same views at further sizes, for live teachers."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Samples of the batch that could not be used, by reason."""
    image_ids: Tensor | None = None
    """int64 (B,), equal where two samples hold the same image: they are not each other's negatives."""
    wrong_tokens: Tensor | None = None
    """int64 (M, L): captions made wrong (`hard_negatives`), where they are asked for."""
    wrong_rows: Tensor | None = None
    """int64 (M,): the row of each one's image and right caption, which is of the last group of texts."""

    @property
    def tokens(self) -> list[Tensor]:
        """Of all texts: those of each group, then those made wrong."""
        wrong = [] if self.wrong_tokens is None else [self.wrong_tokens]
        return [*(group.tokens for group in self.groups), *wrong]


class Stream:
    """Batch n of the whole training, over epochs, as a sequence that torch's DataLoader can split among workers."""

    def __init__(self, datasets: Sequence[ReinforcedDataset], start: int, stop: int) -> None:
        self.datasets, self.start, self.stop = list(datasets), start, stop
        self.epoch_length = len(self.datasets[0])
        if not self.epoch_length:
            one = self.datasets[0]
            batch = one.batch_size * one.world_size
            raise ValueError(
                f"{one.folder} holds {one.order.samples} samples, fewer than one batch of {batch}: "
                "lower batch_size or take more pairs"
            )

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, place: int) -> list[Batch]:
        epoch, number = divmod(self.start + place, self.epoch_length)
        out = []
        for dataset in self.datasets:
            if dataset.epoch != epoch:
                dataset.set_epoch(epoch)
            out.append(dataset.batch(number))
        first = out[0]
        if any(
            other.uids != first.uids for other in out[1:]
        ):  # views replay equally, so a sample is bad for all or none
            raise RuntimeError(
                f"{self.datasets[0].folder}: batch {number} of epoch {epoch} differs between image sizes"
            )
        return out


def stream_of(
    settings: Train,
    data: Path | StorePath,
    sizes: Sequence[tuple[int, str]],
    teachers: Sequence[str],
    seed: int,
    processes: Processes,
    span: tuple[int, int],
) -> Stream:
    """This process's share of a training's batches.

    Args:
        sizes: (image size, interpolation) of the student and of further sizes that live teachers want.
        teachers: whose stored embeddings come with the student's images.
        processes: who share each batch.
        span: the first batch, and the one after the last.
    """
    datasets = [
        ReinforcedDataset(
            data,
            size,
            settings.batch_size // (processes.size * settings.accumulate),
            seed=seed,
            views=settings.views,
            teachers=() if number else teachers,
            captioners=settings.captioners,
            texts=settings.texts,
            max_views=settings.max_views,
            max_captions=settings.max_captions,
            interpolation=interpolation,
            rank=processes.rank,
            world_size=processes.size,
            on_mismatch="warn",
        )
        for number, (size, interpolation) in enumerate(sizes)
    ]
    return Stream(datasets, *span)


def stacked(groups: list[Tensor]) -> Tensor:
    """Token groups of different lengths as one (sum of B, longest)."""
    longest = max(group.shape[1] for group in groups)
    return torch.cat([F.pad(group, (0, longest - group.shape[1])) for group in groups])


class Tokens:
    """Token rows of texts, each tokenised once."""

    def __init__(self, tokenizer: Callable[[list[str]], Tensor], cut: bool, most: int = 1_000_000) -> None:
        self.tokenizer, self.cut, self.most = tokenizer, cut, most
        self._rows: dict[str, tuple[Tensor, int]] = {}

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """int64 (B, L), L the context length or, cut, the longest of these texts."""
        new = list(dict.fromkeys(text for text in texts if text not in self._rows))
        if new:
            if len(self._rows) + len(new) > self.most:
                self._rows.clear()
                new = list(dict.fromkeys(texts))
            tokens = self.tokenizer(new)
            lengths = text_lengths(tokens).tolist()
            self._rows.update((text, (row, n)) for text, row, n in zip(new, tokens, lengths, strict=True))
        if not texts:  # no sample of the batch can be used
            return torch.zeros(0, 1, dtype=torch.long)
        rows = [self._rows[text] for text in texts]
        tokens = torch.stack([row for row, _ in rows])
        return tokens[:, : max(n for _, n in rows)].contiguous() if self.cut else tokens


def feed(
    stream: Stream,
    tokens: Tokens,
    device: torch.device,
    workers: int = 0,
    ahead: int = 2,
    negated: bool = False,
) -> Iterator[PreparedBatch]:
    """The stream's batches, loaded by `workers` processes and prepared by a thread beside the training.

    Args:
        negated: with each batch captions made wrong.

    Raises:
        Whatever loading raises, at the batch where it was raised.
    """
    ready: queue.Queue = queue.Queue(maxsize=ahead)
    stop = threading.Event()

    def put(item: tuple[PreparedBatch | None, BaseException | None]) -> bool:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=0.1)
                return True
        return False

    source = _loader(stream, workers)  # here, so that loader processes are started before there is a thread

    def work() -> None:
        try:
            for batches in source:
                if not put((prepare(batches, tokens, device, negated), None)):
                    return
            put((None, None))
        except BaseException as error:
            put((None, error))

    thread = threading.Thread(target=work, name="feed", daemon=True)
    thread.start()
    try:
        while True:
            batch, error = ready.get()
            if error is not None:
                raise error
            if batch is None:
                return
            yield _move(batch, device)
    finally:
        stop.set()
        thread.join(timeout=30)


def _loader(stream: Stream, workers: int) -> Iterator[list[Batch]]:
    if not workers:
        return map(stream.__getitem__, range(len(stream)))
    from torch.utils.data import DataLoader

    return iter(
        DataLoader(
            stream,
            batch_size=None,
            num_workers=workers,
            prefetch_factor=2,
            multiprocessing_context=start_method(stream.datasets[0].folder),
            worker_init_fn=serve_loader,
        )
    )


def prepare(batches: list[Batch], tokens: Tokens, device: torch.device, negated: bool = False) -> PreparedBatch:
    """A batch as a step takes it; `batches` are the same samples at each image size, the student's first."""
    batch = batches[0]
    groups = [TextGroup(REAL, batch.texts, tokens(batch.texts), batch.text_embeddings)]
    if batch.syn_texts is not None:
        captions, embeddings = batch.syn_texts, batch.syn_text_embeddings or {}
        groups.append(TextGroup(CAPTIONS, captions, tokens(captions), embeddings))
    prepared = PreparedBatch(
        uids=batch.uids,
        images=batch.images,
        groups=groups,
        teacher_images=batch.image_embeddings,
        live_images=[other.images for other in batches[1:]],
        dropped=batch.dropped,
        image_ids=batch.image_ids,
    )
    if negated:
        wrong, prepared.wrong_rows = negatives(groups[-1].texts)
        prepared.wrong_tokens = tokens(wrong)
    return _each_tensor(prepared, torch.Tensor.pin_memory) if device.type == "cuda" else prepared


def _move(batch: PreparedBatch, device: torch.device) -> PreparedBatch:
    """The batch on its device; only CUDA copies beside the training, from pinned memory.

    Apple's GPU would be given the numbers of memory that is free again by then (pytorch issue 189690).
    """
    beside = device.type == "cuda"
    return batch if device.type == "cpu" else _each_tensor(batch, lambda t: t.to(device, non_blocking=beside))


def _each_tensor(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: _each_tensor(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [_each_tensor(item, change) for item in value]
    if isinstance(value, TextGroup):
        return TextGroup(*(_each_tensor(item, change) for item in value))
    if isinstance(value, PreparedBatch):
        return PreparedBatch(**{name: _each_tensor(item, change) for name, item in vars(value).items()})
    return value
