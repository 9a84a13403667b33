"""One forward of a DiT at full size, in bfloat16 and quantised, beside diffusers compiled with FlashAttention-3."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from wan22_bench.engine.peers import Prepare, compiled, compiled_fp8, eager
from wan22_bench.engine.peers import fp8 as torchao_fp8
from wan22_bench.report import Row
from wan22_inference.engine.devices import full_float32
from wan22_testing.forwards import Sides, Work, error, free_memory, make_sides, peak_bytes, seconds

SEEDS = (1, 2, 3)
"""Of the weights; times are those of the first."""


@dataclass(frozen=True)
class Goal:
    """A row of the benchmark."""

    id: str
    work: Work
    fp8: bool
    goal: float
    """Seconds on one H100, as is the floor."""
    floor: float

    @property
    def peer(self) -> Prepare:
        """What diffusers' module becomes."""
        return compiled_fp8 if self.fp8 else compiled

    @property
    def what(self) -> str:
        """For people."""
        ours, theirs = ("fp8 linear layers, ", ", torchao's fp8") if self.fp8 else ("", "")
        return f"one forward, {self.work}, {ours}bf16; peer: diffusers compiled, FlashAttention-3{theirs}"


_480P, _720P = Work("t2v-a14b", 40, 832, 480, 81), Work("t2v-a14b", 40, 1280, 720, 81)
_5B = Work("ti2v-5b", 30, 1280, 704, 121)
GOALS = (
    Goal("P1", _480P, fp8=False, goal=2.36, floor=2.32),
    Goal("P2", _480P, fp8=True, goal=1.92, floor=1.88),
    Goal("P5b", _720P, fp8=False, goal=9.1, floor=8.9),
    Goal("P5", _720P, fp8=True, goal=8.1, floor=7.9),
    Goal("P6b", _5B, fp8=False, goal=0.76, floor=0.74),
    Goal("P6", _5B, fp8=True, goal=0.62, floor=0.60),
)
CUT = (Work("t2v-a14b", 8, 480, 320, 17), Work("ti2v-5b", 8, 480, 320, 17))
"""Where errors are measured: 8 layers, so that the float32 reference fits beside the others."""


def measure(ids: set[str], device: torch.device) -> Iterator[Row]:
    """The rows of these ids, and the errors that they come with."""
    goals = [goal for goal in GOALS if goal.id in ids]
    errors = {}
    for work in CUT:
        for fp8 in sorted({goal.fp8 for goal in goals if goal.work.variant == work.variant}):
            row = _error_row(work, device, fp8=fp8)
            errors[work.variant, fp8] = row.value
            yield row
    for work in dict.fromkeys(goal.work for goal in goals):
        free_memory(device)
        sides = make_sides(work, SEEDS[0], device)
        for goal in goals:
            if goal.work == work:
                yield _time_row(goal, sides, errors[work.variant, goal.fp8], device)
        del sides


def _time_row(goal: Goal, sides: Sides, relative_error: float | None, device: torch.device) -> Row:
    _start_over(device)
    peer = seconds(sides.theirs(torch.bfloat16, goal.peer), device)
    _start_over(device)
    ours = sides.ours(torch.bfloat16, fp8=goal.fp8)
    return Row(
        id=goal.id,
        what=goal.what,
        value=seconds(ours, device),
        unit="s",
        goal=goal.goal,
        floor=goal.floor,
        peer=peer,
        error=relative_error,
        peak_bytes=peak_bytes(device),
    )


def _error_row(work: Work, device: torch.device, *, fp8: bool) -> Row:
    """Relative errors to diffusers in float32, without TF32: means over the seeds."""
    ours, theirs = 0.0, 0.0
    prepare = torchao_fp8 if fp8 else eager
    for seed in SEEDS:
        _start_over(device)
        sides = make_sides(work, seed, device)
        with full_float32():
            reference = sides.theirs(torch.float32)()
        theirs += error(sides.theirs(torch.bfloat16, prepare)(), reference) / len(SEEDS)
        ours += error(sides.ours(torch.bfloat16, fp8=fp8)(), reference) / len(SEEDS)
    kind = "fp8 linear layers" if fp8 else "bf16"
    return Row(
        id=None,
        what=f"relative error to fp32, {work}, {kind}; peer: diffusers{', torchao' if fp8 else ''}",
        value=ours,
        unit="1",
        goal=theirs * (1.0 if fp8 else 1.05),
        peer=theirs,
    )


def _start_over(device: torch.device) -> None:
    """Forgets what was compiled and gives memory back."""
    torch._dynamo.reset()  # noqa: SLF001  # torch's way to do it
    gc.collect()
    free_memory(device)
