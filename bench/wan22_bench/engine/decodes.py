"""A decode by each VAE at full size, beside diffusers'."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from wan22_bench.engine.device_memory import DeviceMemory
from wan22_bench.engine.scale import Scale
from wan22_bench.report import Row
from wan22_inference.engine.devices import full_float32
from wan22_testing.decodes import DecodeSides, psnr
from wan22_testing.forwards import free_memory


@dataclass(frozen=True)
class Goal:
    """A row of the benchmark."""

    id: str
    goal: float
    """Seconds on one H100, as is the floor."""
    floor: float


GOALS = (Goal("P7a", goal=0.9, floor=0.6), Goal("P7b", goal=3.8, floor=2.8))


def rows(ids: set[str], scale: Scale, device: torch.device) -> Iterator[Row]:
    """The rows of these ids, each after one with its PSNR."""
    for goal in GOALS:
        if goal.id in ids:
            yield from _rows(goal, scale, device)


def _rows(goal: Goal, scale: Scale, device: torch.device) -> Iterator[Row]:
    work = scale.decodes[goal.id]
    free_memory(device)
    sides = DecodeSides(work, device)
    with full_float32():
        reference = sides.theirs(torch.float32).cpu()
    free_memory(device)
    theirs = psnr(sides.theirs(torch.bfloat16).cpu(), reference)
    free_memory(device)
    ours = psnr(sides.ours(torch.bfloat16).cpu(), reference)
    yield Row(
        id=None,
        what=f"PSNR to fp32, {work}, bf16, peak 2; peer: diffusers",
        value=ours,
        unit="dB",
        goal=None if scale.dry else theirs,
        at_least=True,
        peer=theirs,
    )
    free_memory(device)
    peer = sides.time_theirs(torch.bfloat16, device)
    free_memory(device)
    with DeviceMemory(device) as memory:
        value = sides.time_ours(torch.bfloat16, device)
    yield Row(
        id=goal.id,
        what=f"decode, {work}, bf16, frames on the host; peer: diffusers, eager, frames on the device",
        value=value,
        unit="s",
        goal=None if scale.dry else goal.goal,
        floor=None if scale.dry else goal.floor,
        peer=peer,
        peak_bytes=memory.peak,
    )


def peer_seconds(id: str, scale: Scale, device: torch.device) -> float:  # noqa: A002  # as rows have it
    """Of diffusers' decode of a row."""
    free_memory(device)
    seconds = DecodeSides(scale.decodes[id], device).time_theirs(torch.bfloat16, device)
    free_memory(device)
    return seconds
