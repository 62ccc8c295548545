"""Features of image files, batch by batch, at the encoder's speed with all cores.

Reading and embedding let go of the interpreter, so that threads do both side by side; what comes out is in the order of
the files. What cannot be read is counted by reason. The paper has no such program. Taught by
notebooks/60_deploy.ipynb.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from mobileclip2_lite.deployment.image_files import Entry, Unread, images_of
from mobileclip2_lite.deployment.runtime import Exported
from mobileclip2_lite.work.place import StorePath

PART = 512
"""Images a part: at most so many are embedded again after a kill."""
Features = tuple[list[Entry], np.ndarray]
"""Images, and row for row their features (N, D), float32."""


def embedded(
    folder: Path | StorePath,
    model: Exported,
    entries: Sequence[Entry],
    batch_size: int,
    workers: int,
    dropped: Unread,
    done: Callable[[int], object],
) -> Iterator[Features]:
    """Features batch by batch, in order.

    Args:
        folder: in which the entries lie.
        model: with one thread a worker.
        entries: images to embed.
        batch_size: images a forward pass.
        workers: threads; 0 takes one a core.
        dropped: counts what could not be read, by reason.
        done: is told how many files each batch had.
    """
    workers = workers or os.cpu_count() or 1

    def work(batch: Sequence[Entry]) -> tuple[list[Entry], np.ndarray, Unread]:
        lost = Unread()
        read = list(images_of(folder, list(batch), lost))
        features = model.embed_images([image for _, image in read]) if read else np.zeros((0, 0), np.float32)
        return [entry for entry, _ in read], features.astype(np.float32), lost

    pool = ThreadPoolExecutor(workers)
    try:
        waiting: deque[tuple[int, Future]] = deque()
        starts = iter(range(0, len(entries), batch_size))
        while True:
            while len(waiting) < 2 * workers and (start := next(starts, None)) is not None:
                batch = entries[start : start + batch_size]
                waiting.append((len(batch), pool.submit(work, batch)))
            if not waiting:
                return
            size, future = waiting.popleft()
            some, features, lost = future.result()
            dropped.take(lost)
            done(size)
            if some:
                yield some, features
    finally:
        pool.shutdown(cancel_futures=True)


def in_parts(batches: Iterator[Features]) -> Iterator[Features]:
    """Batches gathered to `PART` images."""
    entries: list[Entry] = []
    features: list[np.ndarray] = []
    for some, rows in batches:
        entries += some
        features.append(rows)
        if len(entries) >= PART:
            yield entries, np.concatenate(features)
            entries, features = [], []
    if entries:
        yield entries, np.concatenate(features)
