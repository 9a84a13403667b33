"""Several processes that train one model, a GPU each: they take steps of their own, and now and then are averaged."""

from __future__ import annotations

import atexit
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, distributed

MEET_EVERY = 16
"""Steps."""


def join(device: torch.device) -> None:
    """Meets the other processes, where torchrun has started several, until this one ends."""
    if "WORLD_SIZE" not in os.environ:
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    atexit.register(distributed.destroy_process_group)


class Together:
    """The processes that have joined, or this one alone."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._size = distributed.get_world_size() if distributed.is_initialized() else 1
        self._before: Kept | None = None
        self.rank = distributed.get_rank() if distributed.is_initialized() else 0

    def meets(self, step: int) -> bool:
        """Whether `mean` is due at this step; alone, always."""
        return self._size == 1 or step % MEET_EVERY == 0

    def begin(self, parameters: Sequence[Tensor]) -> None:
        """Gives all the parameters of the first."""
        for parameter in parameters if self._size > 1 else ():
            distributed.broadcast(parameter.detach(), 0)

    @torch.no_grad()
    def mean(self, parameters: Sequence[Tensor], value: float) -> float:
        """Gives all the mean of their parameters, and returns the mean of the values of the call before.

        For this call's, the host would have to wait until the GPU is idle. The first call returns its own.
        """
        if self._size == 1:
            return value
        own = torch.tensor([value], device=self._device)
        flat = torch.cat([own, *(parameter.flatten() for parameter in parameters)])
        distributed.all_reduce(flat)
        sizes = [1, *(parameter.numel() for parameter in parameters)]
        own, *means = (flat / self._size).split(sizes)  # type: ignore[no-untyped-call]
        for parameter, mean in zip(parameters, means, strict=True):
            parameter.copy_(mean.view_as(parameter))
        before, self._before = self._before, Kept.of(own)
        return value if before is None else before.value()


@dataclass(frozen=True)
class Kept:
    """A number on its way from a device."""

    copy: Tensor
    there: torch.cuda.Event | None

    @classmethod
    def of(cls, number: Tensor) -> Self:
        """Asks for it, and waits for nothing."""
        copy = number.to("cpu", non_blocking=True)
        if number.device.type != "cuda":
            return cls(copy, None)
        there = torch.cuda.Event()  # type: ignore[no-untyped-call]
        there.record()
        return cls(copy, there)

    def value(self) -> float:
        """Once it is there."""
        if self.there is not None:
            self.there.synchronize()
        return float(self.copy)
