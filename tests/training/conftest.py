"""What the training's tests are given: a tiny reinforced folder, and a tiny model to train on it."""

from __future__ import annotations

from pathlib import Path

import pytest
from doubles.tiny_training import write_data, write_model


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "reinforced")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "tiny")
