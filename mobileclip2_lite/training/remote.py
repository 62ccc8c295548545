"""A training whose model and checkpoints go to a bucket: it works on this disk, and leaves there what others need.

Ours. Writes `checkpoints/slot-0.pt` and `slot-1.pt` in turn, with the log up to there, and then `latest.json`, which
names the one that is whole; at the end the model's files, and the manifest last. Slots are written over, since nothing
in a bucket is deleted. A bucket that takes no checkpoint for a while ends no training. Gives up: what a tracker draws
before the end.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from mobileclip2_lite.training import checkpoints
from mobileclip2_lite.work import cache
from mobileclip2_lite.work.backends import StoreError
from mobileclip2_lite.work.files import pretty, read_object, sha256_bytes, sha256_file, write_atomic, write_note
from mobileclip2_lite.work.folder import StageMismatch
from mobileclip2_lite.work.place import StorePath


class Remote:
    """The folder in a bucket of one training, and the folder on this disk that stands for it."""

    def __init__(self, place: StorePath, key: str) -> None:
        """Nothing is asked of the store yet.

        Args:
            place: where the model is wanted.
            key: of the training's work: another training has another folder here.
        """
        self.place, self.key, self.slot = place, key, 0
        self.folder = cache.made_folder("trainings", sha256_bytes(f"{place}\n{key}".encode())[:24])

    def latest(self) -> dict | None:
        """What the bucket says of its newest checkpoint: step, slot and hash.

        Raises:
            StageMismatch: it is another training's.
        """
        note = self.place / "checkpoints" / "latest.json"
        if not note.is_file():
            return None
        found = read_object(note, "remove it and the other checkpoints; the training begins anew")
        if found["key"] != self.key:
            raise StageMismatch(
                f"{self.place} holds checkpoints of a training with other settings or data. Nothing was touched: name "
                "another folder"
            )
        return found

    def fetch(self) -> None:
        """Bring the bucket's newest checkpoint here, if there is none as new.

        Raises:
            StoreError: it is not whole, or another process writes there.
        """
        found = self.latest()
        if found is None:
            return
        self.slot = 1 - found["slot"]
        here = self.folder / "checkpoints"
        if any(step >= found["step"] for step in checkpoints.list_steps(here)):
            return
        here.mkdir(parents=True, exist_ok=True)
        path = here / f"step-{found['step']:08d}.pt"
        beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
        slot = self.place / "checkpoints" / f"slot-{found['slot']}.pt"
        if slot.store.download(beside) != found["sha256"]:
            beside.unlink()
            raise StoreError(f"{slot} is not the checkpoint that latest.json names: does another process train there?")
        write_atomic(self.folder / "log.jsonl", slot.with_suffix(".jsonl").read_bytes())
        os.replace(beside, path)

    def save(self, path: Path, step: int) -> None:
        """Put a checkpoint and the log up to it into the older slot; `latest.json` names it when it is whole.

        Where the bucket does not take it, a warning says so: the one before stands there, the new one on this disk.
        """
        try:
            self._save(path, step)
        except (StoreError, FileNotFoundError) as error:  # gone: the bucket itself
            warnings.warn(
                f"the checkpoint of step {step} lies in {path.parent}, and not in {self.place} ({error}); the one "
                "before it stands there, training goes on, and the next is put there again",
                stacklevel=2,
            )

    def _save(self, path: Path, step: int) -> None:
        slot = self.place / "checkpoints" / f"slot-{self.slot}.pt"
        slot.store.replace(path)
        slot.with_suffix(".jsonl").store.replace(self.folder / "log.jsonl")
        note = {"key": self.key, "step": step, "slot": self.slot, "sha256": sha256_file(path)}
        write_note(self.place / "checkpoints" / "latest.json", pretty(note))
        self.slot = 1 - self.slot

    def finish(self) -> None:
        """Put the finished model there, the manifest last."""
        last = "manifest.json"
        names = sorted(path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file())
        kept = [
            name for name in names if not name.startswith((".", "checkpoints/")) and name not in (last, "progress.json")
        ]
        for name in [*kept, last]:
            (self.place / name).store.create(self.folder / name)
