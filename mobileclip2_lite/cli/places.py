"""What stands for a folder or a file on the command line: a path of this machine, or a store's address.

Every command is registered through `Commands`, which hands it places instead of paths: `s3://bucket/x` never becomes a
folder of that odd name here, an address that can't be used is refused before any work, and what a command reads or
writes there is the business of the one function that does. docs/stores.md has the table.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tyro

from mobileclip2_lite.work.json_lines import NEEDS_DISK as APPENDED
from mobileclip2_lite.work.place import StorePath, on_disk, place_of

WRITTEN = ("out", "html", "output", "links", "place", "train", "test")
"""Parameters that name what a command writes."""
EDITED = "its files are added to and compared line by line: name a folder or a file of a disk"
"""Why recorded results lie on a disk."""
__all__ = ["APPENDED", "EDITED", "WRITTEN", "Commands", "needs_disk"]


def needs_disk(**why: str) -> Callable[[Callable], Callable]:
    """Mark a command's parameters for which no store will do.

    Args:
        why: parameter -> what a disk is needed for, and what to do instead.
    """

    def marked(command: Callable) -> Callable:
        command.needs_disk = why
        return command

    return marked


class Commands:
    """The commands of `mobileclip2-lite`, each called with places where its parameters are paths."""

    def __init__(self) -> None:
        self.app = tyro.extras.SubcommandApp()
        self.functions: dict[str, Callable] = {}
        """Name -> command, as it was written."""

    def command(self, function: Callable | None = None, *, name: str | None = None) -> Callable:
        """Register a command, as tyro's `command` does."""
        if function is None:
            return functools.partial(self.command, name=name)
        called = name or function.__name__
        self.functions[called] = function
        self.app.command(with_places(function), name=called)
        return function

    def run(self, arguments: list[str], description: str) -> None:
        """Call the command that the arguments name."""
        self.app.cli(args=arguments, prog="mobileclip2-lite", description=description)


def with_places(command: Callable) -> Callable:
    """The command with every path among its arguments made a place.

    Raises, when called:
        ValueError: an address is of no known store, holds a credential, can't be written, or stands where only a disk
            will do.
    """

    @functools.wraps(command)
    def called(*args: Any, **kwargs: Any) -> Any:
        given = inspect.signature(command).bind(*args, **kwargs).arguments
        return command(**{name: _placed(command, name, value) for name, value in given.items()})

    return called


def _placed(command: Callable, name: str, value: Any) -> Any:
    if isinstance(value, tuple) and any(isinstance(one, Path) for one in value):
        return tuple(_placed(command, name, one) for one in value)
    if not isinstance(value, Path):
        return value
    if why := getattr(command, "needs_disk", {}).get(name):
        return on_disk(value, why)
    place = place_of(value)
    if name in WRITTEN and isinstance(place, StorePath) and not place.store.writable:
        raise ValueError(f"{place} can only be read: name a bucket or a folder to write")
    return place
