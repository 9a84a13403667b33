"""Weights that live in host memory and visit the device while they are used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class HostCopy:
    """Keeps a module's weights in host memory, page-locked where the device is a CUDA device.

    `visit` gives the module its weights on the device, bit for bit, and takes them away again.
    """

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        self._module = module
        self._device = device
        self._host = _each_once(module.state_dict(), lambda tensor: _locked(tensor, device))
        module.load_state_dict(self._host, assign=True)

    @contextmanager
    def visit(self) -> Iterator[None]:
        """The module is on the device inside, and its memory there is free again after."""
        there = _each_once(self._host, lambda tensor: tensor.to(self._device, non_blocking=True))
        self._module.load_state_dict(there, assign=True)
        del there
        try:
            yield
        finally:
            self._module.load_state_dict(self._host, assign=True)


def _each_once(tensors: Mapping[str, Tensor], move: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """The tensors moved; those that share memory under two names still do."""
    moved: dict[int, Tensor] = {}
    for tensor in tensors.values():
        if tensor.data_ptr() not in moved:
            moved[tensor.data_ptr()] = move(tensor)
    return {name: moved[tensor.data_ptr()] for name, tensor in tensors.items()}


def _locked(tensor: Tensor, device: torch.device) -> Tensor:
    host = tensor.to("cpu")
    return host.pin_memory() if device.type == "cuda" else host
