"""Several processes that train one model, a GPU each: they take steps of their own, and now and then are averaged."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor, distributed


def join(device: torch.device) -> None:
    """Meets the other processes, where torchrun has started several."""
    if "WORLD_SIZE" not in os.environ:
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")


class Together:
    """The processes that have joined, or this one alone."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._size = distributed.get_world_size() if distributed.is_initialized() else 1
        self.rank = distributed.get_rank() if distributed.is_initialized() else 0

    def begin(self, parameters: Sequence[Tensor]) -> None:
        """Gives all the parameters of the first."""
        for parameter in parameters if self._size > 1 else ():
            distributed.broadcast(parameter.detach(), 0)

    @torch.no_grad()
    def mean(self, parameters: Sequence[Tensor], value: float) -> float:
        """Gives all the mean of their parameters, and returns the mean of a value."""
        if self._size == 1:
            return value
        mean = torch.tensor(value, device=self._device)
        for each in (mean, *(parameter.detach() for parameter in parameters)):
            distributed.all_reduce(each)
            each.div_(self._size)
        return float(mean)
