"""What tests let other processes do: importable there, unlike a test's own module."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path
from types import SimpleNamespace

from mobileclip2_lite.work.backends import StoreError
from mobileclip2_lite.work.place import here, place_of


class Worker:
    """Notes who does what; some items are not well."""

    def __init__(self, notes: Path) -> None:
        self.notes = notes

    def __call__(self, item: str) -> str | None:
        with open(self.notes / f"{item}.{time.time_ns()}.{os.getpid()}", "w"):
            pass
        tries = len(list(self.notes.glob(f"{item}.*")))
        if item.startswith("poison") or (item.startswith("once") and tries < 2):
            os.kill(os.getpid(), signal.SIGKILL)
        if item.startswith("wrong"):
            raise ValueError(f"{item} is wrong")
        if item.startswith("slow"):
            while len({path.name.split(".")[0] for path in self.notes.iterdir()}) < 3:  # others have gone on
                time.sleep(0.05)
        if item.startswith("taken") and tries < 3:
            return None
        return item.upper()


def look(url: str) -> None:
    """End with a status that says whether a store could be used."""
    try:
        place_of(url).is_file()
    except StoreError as error:
        os._exit(3 if "forked" in str(error) else 4)
    os._exit(0)


def stay(port: int | str) -> None:
    """Call whoever listens, and stay: the line breaks when this process ends."""
    with socket.create_connection(("127.0.0.1", int(port))):
        time.sleep(600)


def train_for_ever(recipe, folder: Path, kind: str, seed: int, progress: bool = True) -> None:
    """In place of a training; the recipe's name is the port."""
    stay(recipe.name)


class Endless:
    """A stream of which no batch comes."""

    def __init__(self, port: int | str) -> None:
        self.port, self.datasets = port, [SimpleNamespace(folder=place_of("memory://nothing"))]

    def __len__(self) -> int:
        return 2

    def __getitem__(self, place: int) -> None:
        stay(self.port)


def ask_for(url: str, pipe) -> None:
    """Ask for a copy of a store's folder, say where it is, and stay."""
    pipe.send(here(url))
    time.sleep(600)
