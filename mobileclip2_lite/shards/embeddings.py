"""Embeddings as bytes: named rows in a safetensors member, as bfloat16, float32, or integers with row scales.

Paper: MobileCLIP (arXiv 2311.17049) section 5 finds bfloat16 harmless; int8 and int6 are ours (docs/lab_log.md says
what they do). Reads and writes bytes only; one row is read without touching the others.
Taught by notebooks/00_start_here.ipynb.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

STORAGE = ("bf16", "int8", "int6", "fp32")
SCALE = "#scale"
"""Tensor (rows,) float32 with the scales of all integer rows, tensor after tensor in the order of their names."""
LEVELS = {"int8": 127, "int6": 31}
"""Largest integer of a row: its largest magnitude. int6 is kept as value + 32, four values in three bytes."""
_BYTES = {"BF16": 2, "I8": 1, "U8": 1, "F32": 4, "F16": 2}


class Place(NamedTuple):
    """Where a tensor stands in its file."""

    dtype: str
    shape: tuple[int, int]
    """(rows, dimension), of the numbers and not of the bytes"""
    first: int
    """first byte"""
    stride: int
    """bytes a row"""
    scale: int
    """first byte of its row scales, 0 for floats"""


def encode(embeddings: Mapping[str, Tensor], storage: str = "bf16") -> bytes:
    """Named float tensors (rows, D) as one safetensors file; the same tensors always give the same bytes.

    Raises:
        ValueError: `storage` has no such name, a tensor is not two-dimensional or not finite, or its dimension is not a
            multiple of four with int6; names the tensor.
    """
    import torch
    from safetensors.torch import save

    if storage not in STORAGE:
        raise ValueError(f"storage {storage!r} is not one of {', '.join(STORAGE)}")
    out, scales = {}, []
    for name in sorted(embeddings):
        rows = embeddings[name].detach().to("cpu", torch.float32)
        if rows.ndim != 2 or not bool(torch.isfinite(rows).all()):
            raise ValueError(
                f"embedding {name!r} of shape {tuple(rows.shape)} is not a finite (rows, dimension) matrix"
            )
        if storage in LEVELS:
            if storage == "int6" and rows.shape[1] % 4:
                raise ValueError(
                    f"embedding {name!r}: int6 needs a dimension that is a multiple of 4, not {rows.shape[1]}"
                )
            scale = rows.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / LEVELS[storage]
            values = (rows / scale).round()
            out[name] = values.to(torch.int8) if storage == "int8" else _pack6(values)
            scales.append(scale[:, 0])
        else:  # safetensors refuses tensors that share memory
            out[name] = rows.to(torch.bfloat16) if storage == "bf16" else rows.clone()
    if scales:
        out[SCALE] = torch.cat(scales)
    return save(out)


def _pack6(values: Tensor) -> Tensor:
    """Integers -31 to 31 (rows, D) as bytes (rows, 3 D / 4)."""
    import torch

    a, b, c, d = (values.to(torch.int32) + 32).unflatten(1, (-1, 4)).unbind(2)
    word = a | b << 6 | c << 12 | d << 18
    return torch.stack([word & 255, word >> 8 & 255, word >> 16], 2).flatten(1).to(torch.uint8)


def _unpack6(packed: np.ndarray) -> np.ndarray:
    """The inverse of `_pack6` for one or more rows in one array."""
    triples = packed.reshape(-1, 3).astype(np.int32)
    word = triples[:, 0] | triples[:, 1] << 8 | triples[:, 2] << 16
    return np.stack([word & 63, word >> 6 & 63, word >> 12 & 63, word >> 18], 1) - 32


def decode(data: bytes) -> dict[str, Tensor]:
    """All tensors of `encode`, as float32.

    Raises:
        ValueError: the bytes are not safetensors.
    """
    import torch

    table = header(data)
    return {name: torch.from_numpy(rows(data, name, table=table)) for name in table}


def header(data: bytes | memoryview) -> dict[str, Place]:
    """Where each tensor stands, by name.

    Raises:
        ValueError: the bytes are not safetensors, or end before the header says.
    """
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > len(data) - 8:
        raise ValueError(f"not safetensors: {len(data)} bytes, a header of {size}")
    table, end = _parse(bytes(data[8 : 8 + size]))
    if end > len(data):
        raise ValueError(f"safetensors cut short at {len(data)} of {end} bytes")
    return table


@lru_cache(maxsize=256)
def _parse(text: bytes) -> tuple[dict[str, Place], int]:
    """The table and the file's size; samples of one shard mostly share one header, so parsing it once is enough."""
    try:
        entries = json.loads(text)
        start, last, integer_rows, table = 8 + len(text), 0, 0, {}
        scales = entries.pop(SCALE, None)
        entries.pop("__metadata__", None)
        for name in sorted(entries):
            dtype, shape, (first, end) = (entries[name][key] for key in ("dtype", "shape", "data_offsets"))
            if len(shape) != 2 or _BYTES.get(dtype, 0) * shape[0] * shape[1] != end - first:
                raise ValueError(f"tensor {name!r} of type {dtype} and shape {shape}")
            scale = 0
            if dtype in ("I8", "U8"):
                if scales is None:
                    raise ValueError(f"integer tensor {name!r} without row scales {SCALE!r}")
                scale = start + scales["data_offsets"][0] + 4 * integer_rows
                integer_rows += shape[0]
            width = shape[1] * 4 // 3 if dtype == "U8" else shape[1]
            table[name] = Place(dtype, (shape[0], width), start + first, shape[1] * _BYTES[dtype], scale)
            last = max(last, end)
        if scales is not None:
            if scales["dtype"] != "F32" or scales["shape"] != [integer_rows]:
                raise ValueError(f"row scales of shape {scales['shape']} for {integer_rows} rows")
            last = max(last, scales["data_offsets"][1])
        return table, start + last
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"not safetensors: {error}") from error


def rows(
    data: bytes | memoryview, name: str, index: int | None = None, table: Mapping[str, Place] | None = None
) -> np.ndarray:
    """Rows of one tensor as float32: all (N, D), or row `index` (D,), of which alone the bytes are read.

    Args:
        table: `header(data)`, if it is at hand.

    Raises:
        ValueError: no tensor has that name, or it has no such row.
    """
    table = header(data) if table is None else table
    if name not in table:
        raise ValueError(f"no tensor {name!r}; there are {', '.join(table) or 'none'}")
    place = table[name]
    if index is None:
        return _slice(data, place, 0, place.shape[0])
    if not 0 <= index < place.shape[0]:
        raise ValueError(f"row {index} of {place.shape[0]}")
    return _slice(data, place, index, 1)[0]


def _slice(data: bytes | memoryview, place: Place, row: int, count: int) -> np.ndarray:
    """`count` rows from `row` on, as float32 (count, D)."""
    shape = (count, place.shape[1])
    raw = np.frombuffer(data, np.uint8, count * place.stride, place.first + row * place.stride)
    if place.dtype == "BF16":
        return (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(shape)
    if place.dtype in ("F32", "F16"):
        return raw.view(np.float32 if place.dtype == "F32" else np.float16).astype(np.float32).reshape(shape)
    values = _unpack6(raw) if place.dtype == "U8" else raw.view(np.int8)
    scales = np.frombuffer(data, np.float32, count, place.scale + 4 * row)
    return values.reshape(shape).astype(np.float32) * scales[:, None]
