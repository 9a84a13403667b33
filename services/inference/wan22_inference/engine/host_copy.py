"""Weights that live in host memory and visit the device while they are used."""

from __future__ import annotations

from collections.abc import Iterator
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
        self._host = {name: _locked(tensor, device) for name, tensor in module.state_dict().items()}
        module.load_state_dict(self._host, assign=True)

    @contextmanager
    def visit(self) -> Iterator[None]:
        """The module is on the device inside, and its memory there is free again after."""
        there = {name: tensor.to(self._device, non_blocking=True) for name, tensor in self._host.items()}
        self._module.load_state_dict(there, assign=True)
        del there
        try:
            yield
        finally:
            self._module.load_state_dict(self._host, assign=True)


def _locked(tensor: Tensor, device: torch.device) -> Tensor:
    host = tensor.to("cpu")
    return host.pin_memory() if device.type == "cuda" else host
