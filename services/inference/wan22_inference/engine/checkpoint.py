"""Where a denoise loop stands: enough to go on from there, on equal numerics, to the same bits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from wan22.errors import DataLoss, Reason

_FORMAT = "wan22-checkpoint-1"
_LATENTS, _SOLVER = "latents", "solver."


@dataclass(frozen=True)
class Checkpoint:
    """The state after `step` steps; 34 MB for 832x480x81 and 84 MB for ti2v's 1280x704x121, as float32."""

    step: int
    """Steps done, at least 1."""
    latents: Tensor
    """(1, C, T, h, w) float32."""
    solver: Mapping[str, Tensor]
    """What Schedule.history gives."""

    def tensors(self) -> dict[str, Tensor]:
        """All that is kept, by name."""
        return {_LATENTS: self.latents} | {_SOLVER + name: tensor for name, tensor in self.solver.items()}


def dump(tensors: Mapping[str, Tensor]) -> bytes:
    """A checkpoint's tensors, on the CPU, as a safetensors file; equal tensors give equal bytes."""
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    data: bytes = save(whole, {"format": _FORMAT})  # one entry: safetensors writes several in any order
    return data


def parse(data: bytes, step: int) -> Checkpoint:
    """The checkpoint of a file that `dump` made after so many steps. Raises DataLoss (DAMAGED_CHECKPOINT)."""
    try:
        tensors = load(data)
        latents = tensors.pop(_LATENTS)
    except (SafetensorError, KeyError) as error:
        raise DataLoss(f"The checkpoint cannot be read ({error}).", reason=Reason.DAMAGED_CHECKPOINT) from error
    return Checkpoint(step, latents, {name.removeprefix(_SOLVER): tensor for name, tensor in tensors.items()})
