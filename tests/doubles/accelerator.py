"""A GPU that is none: tensors keep their numbers on the CPU, say that they are on `cuda`, and mix with no others.

While the double is in use, `.to("cuda")` gives such a tensor, `.cpu()` a plain one, and an operation between both kinds
fails as it does on a machine with a GPU. So a stage that forgets its model or its inputs fails here, too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

CUDA = torch.device("cuda", 0)


class OnGpu(torch.Tensor):
    """A tensor that is on the accelerator."""

    __torch_function__ = torch._C._disabled_torch_function_impl


_DEVICE = torch.Tensor.device.__get__
_IS_CUDA = torch.Tensor.is_cuda.__get__


class Accelerator(TorchFunctionMode):
    """Every operation of torch, with an eye on where its tensors are."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0
        """Operations of which a tensor was on the accelerator."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = dict(kwargs or {})
        if func == _DEVICE:
            return CUDA if isinstance(args[0], OnGpu) else func(*args)
        if func == _IS_CUDA:
            return isinstance(args[0], OnGpu)
        if getattr(func, "__name__", "") == "__get__":  # of a property: a plain alias would be no leaf, for one
            return tree_map(_on_gpu, func(*args)) if isinstance(args[0], OnGpu) else func(*args)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        here = [isinstance(tensor, OnGpu) for tensor in tensors]
        if func is torch._has_compatible_shallow_copy_type:  # asked by Module.to: may data be put in place?
            return len(set(here)) == 1
        if func is torch.Tensor.__deepcopy__ and any(here):
            copied = _on_gpu(_plain(args[0]).detach().clone())
            if isinstance(args[0], torch.nn.Parameter):
                copied.requires_grad_(args[0].requires_grad)._is_param = True
            return copied
        target = _target(func, args, kwargs)
        if target is None and any(here):
            self.operations += 1
            if any(not on and tensor.ndim for on, tensor in zip(here, tensors, strict=True)):
                raise RuntimeError(f"{getattr(func, '__name__', func)}: tensors on cuda:0 and cpu")
        if func is torch.Tensor.cpu:
            return _plain(args[0])
        if target is not None:
            args, kwargs = tree_map(_to_cpu, (args, kwargs))
        plain = tree_map(lambda leaf: _plain(leaf) if isinstance(leaf, OnGpu) else leaf, (args, kwargs))
        result = func(*plain[0], **plain[1])
        on_gpu = target == "cuda" if target is not None else any(here)
        if func in (torch.Tensor.numpy, torch.Tensor.__array__) and any(here):
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if not on_gpu:
            return result
        return tree_map(_on_gpu, result)


def _target(func: Any, args: tuple, kwargs: dict) -> str | None:
    """The device that an operation was told to give its result on."""
    if "device" in kwargs and kwargs["device"] is not None:
        return torch.device(kwargs["device"]).type
    if func is torch.Tensor.to:
        for value in args[1:]:
            if isinstance(value, torch.device) or (isinstance(value, str) and value.split(":")[0] in ("cpu", "cuda")):
                return torch.device(value).type
            if isinstance(value, torch.Tensor):
                return "cuda" if isinstance(value, OnGpu) else "cpu"
    return "cuda" if func is torch.Tensor.cuda else None


def _to_cpu(value: Any) -> Any:
    if isinstance(value, torch.device) or (isinstance(value, str) and value.startswith("cuda")):
        return torch.device("cpu")
    return value


def _on_gpu(value: Any) -> Any:
    return value.as_subclass(OnGpu) if isinstance(value, torch.Tensor) else value


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    with torch._C.DisableTorchFunction():
        return tensor.as_subclass(torch.Tensor)


@contextlib.contextmanager
def accelerator(monkeypatch: Any) -> Iterator[Accelerator]:
    """A machine with one such GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with Accelerator() as mode:
        yield mode
