"""The record of a training on a disk that takes no more for a while."""

from __future__ import annotations

import errno
import os
import warnings

import pytest

from mobileclip2_lite.training.log import Log, read


class Full:
    """A file whose disk has room for so many bytes more."""

    def __init__(self, file, room: int) -> None:
        self.file, self.room, self.fileno, self.close = file, room, file.fileno, file.close

    def write(self, data: bytes) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = self.file.write(data[: self.room])
        self.room -= taken
        return taken


def test_a_full_disk_costs_lines_of_the_log_and_not_the_training(tmp_path):
    log = Log(tmp_path, 0, "none", "run", {})
    log.write({"step": 1})
    log.file = Full(log.file, 5)
    with pytest.warns(UserWarning, match=r"lines of the log are lost .*No space left.*log\.jsonl.*training goes on"):
        log.write({"step": 2})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        log.write({"step": 3})
    log.file.room = 1000
    log.write({"step": 4})
    log.close()
    assert [line["step"] for line in read(tmp_path / "log.jsonl")] == [1, 4], "no half line between"
