"""Weights that live in host memory and visit the device while they are used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from wan22_inference.engine.loading.locked import host_rooms
from wan22_inference.engine.loading.rooms import laid_out, room_bytes


class HostCopy:
    """Keeps a module's weights in host memory, page-locked where the device is a CUDA device.

    `visit` gives the module its weights on the device, bit for bit, and takes them away again.
    """

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        self._module = module
        self._device = device
        state = module.state_dict()
        rooms = host_rooms([room_bytes({name: tensor}) for name, tensor in state.items()], device)
        self._host: dict[str, Tensor] = {}
        for (name, tensor), room in zip(state.items(), rooms, strict=True):
            self._host |= laid_out({name: tensor}, room)
            self._host[name].copy_(tensor)
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
