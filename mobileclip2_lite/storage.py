"""Embeddings as bytes: named rows in a safetensors member, as bfloat16, int8 with row scales or float32.

Paper: MobileCLIP (arXiv 2311.17049) section 5 finds bfloat16 harmless; int8 is ours. Reads and writes bytes only; one
row is read without touching the others. Taught by notebooks/20_reinforce.ipynb.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

STORAGE = ("bf16", "int8", "fp32")
SCALE = "#scale"
"""Suffix of the tensor that holds an int8 tensor's row scales, float32 (rows, 1)."""
_BYTES = {"BF16": 2, "I8": 1, "F32": 4, "F16": 2}


def encode(embeddings: Mapping[str, Tensor], storage: str = "bf16") -> bytes:
    """Named float tensors (rows, D) as one safetensors file; the same tensors always give the same bytes.

    Raises:
        ValueError: `storage` has no such name, or a tensor is not two-dimensional or not finite; names the tensor.
    """
    import torch
    from safetensors.torch import save

    if storage not in STORAGE:
        raise ValueError(f"storage {storage!r} is not one of {', '.join(STORAGE)}")
    out = {}
    for name in sorted(embeddings):
        rows = embeddings[name].detach().to("cpu", torch.float32)
        if rows.ndim != 2 or not bool(torch.isfinite(rows).all()):
            raise ValueError(
                f"embedding {name!r} of shape {tuple(rows.shape)} is not a finite (rows, dimension) matrix"
            )
        if storage == "int8":
            scale = rows.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / 127
            out[name] = (rows / scale).round().to(torch.int8)
            out[name + SCALE] = scale
        else:
            out[name] = (
                rows.to(torch.bfloat16) if storage == "bf16" else rows.clone()
            )  # safetensors refuses shared memory
    return save(out)


def decode(data: bytes) -> dict[str, Tensor]:
    """All tensors of `encode`, as float32.

    Raises:
        ValueError: the bytes are not safetensors.
    """
    import torch

    table = header(data)
    return {name: torch.from_numpy(rows(data, name)) for name in table if not name.endswith(SCALE)}


def header(data: bytes | memoryview) -> dict[str, tuple[str, tuple[int, ...], int, int]]:
    """Where each tensor stands: name -> (dtype, shape, first byte, end).

    Raises:
        ValueError: the bytes are not safetensors, or end before the header says.
    """
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > len(data) - 8:
        raise ValueError(f"not safetensors: {len(data)} bytes, a header of {size}")
    table = _parse(bytes(data[8 : 8 + size]))
    if table and max(end for *_, end in table.values()) > len(data):
        raise ValueError(f"safetensors cut short at {len(data)} bytes")
    return table


@lru_cache(maxsize=256)
def _parse(text: bytes) -> dict[str, tuple[str, tuple[int, ...], int, int]]:
    """Samples of one shard mostly share one header, so parsing it once is enough."""
    try:
        entries = json.loads(text)
        start = 8 + len(text)
        table = {}
        for name, entry in entries.items():
            if name == "__metadata__":
                continue
            (first, end), shape = entry["data_offsets"], tuple(entry["shape"])
            if entry["dtype"] not in _BYTES or _BYTES[entry["dtype"]] * int(np.prod(shape)) != end - first:
                raise ValueError(f"tensor {name!r} of type {entry['dtype']} and shape {shape}")
            table[name] = (entry["dtype"], shape, start + first, start + end)
        return table
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"not safetensors: {error}") from error


def rows(
    data: bytes | memoryview, name: str, index: int | None = None, table: Mapping[str, tuple] | None = None
) -> np.ndarray:
    """Rows of one tensor as float32: all (N, D), or row `index` (D,), of which alone the bytes are read.

    Args:
        table: `header(data)`, if it is at hand.

    Raises:
        ValueError: no tensor has that name, or it has no such row.
    """
    table = header(data) if table is None else table
    if name not in table:
        raise ValueError(f"no tensor {name!r}; there are {', '.join(sorted(table)) or 'none'}")
    values = _slice(data, table[name], index)
    if table[name][0] == "I8":
        if name + SCALE not in table:
            raise ValueError(f"int8 tensor {name!r} has no row scales {name + SCALE!r}")
        values = values * _slice(data, table[name + SCALE], index)
    return values


def _slice(data: bytes | memoryview, entry: tuple, index: int | None) -> np.ndarray:
    dtype, shape, first, end = entry
    if index is not None:
        if not 0 <= index < shape[0]:
            raise ValueError(f"row {index} of {shape[0]}")
        width = (end - first) // shape[0]
        first, shape, end = first + index * width, shape[1:], first + (index + 1) * width
    if dtype == "BF16":
        raw = np.frombuffer(data, np.uint16, (end - first) // 2, first).astype(np.uint32) << 16
        return raw.view(np.float32).reshape(shape)
    kind = {"I8": np.int8, "F32": np.float32, "F16": np.float16}[dtype]
    return np.frombuffer(data, kind, (end - first) // _BYTES[dtype], first).astype(np.float32).reshape(shape)
