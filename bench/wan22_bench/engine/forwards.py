"""One forward of a DiT at full size, in bfloat16 and quantised, beside diffusers compiled with FlashAttention-3."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from wan22_bench.engine.device_memory import DeviceMemory
from wan22_bench.engine.peers import EAGER_PEERS, eager, restore_attention
from wan22_bench.engine.scale import Scale
from wan22_bench.report import Row
from wan22_inference.engine.devices import full_float32
from wan22_testing.forwards import Forward, Sides, Work, error, free_memory, make_sides, seconds
from wan22_testing.modes import Mode


@dataclass(frozen=True)
class Goal:
    """A row of the benchmark."""

    id: str
    mode: Mode
    goal: float
    """Seconds on one H100, as is the floor."""
    floor: float


GOALS = (
    Goal("P1", Mode.BF16, goal=2.36, floor=2.32),
    Goal("P2", Mode.FP8, goal=1.92, floor=1.88),
    Goal("P2f", Mode.ALL_FP8, goal=1.66, floor=1.58),
    Goal("P5b", Mode.BF16, goal=9.1, floor=8.9),
    Goal("P5", Mode.FP8, goal=8.1, floor=7.9),
    Goal("P5f", Mode.ALL_FP8, goal=6.8, floor=6.6),
    Goal("P6b", Mode.BF16, goal=0.76, floor=0.74),
    Goal("P6", Mode.FP8, goal=0.62, floor=0.60),
    Goal("P6f", Mode.ALL_FP8, goal=0.53, floor=0.50),
)
ACCEPTANCE = {Mode.BF16: 1.05, Mode.FP8: 1.0, Mode.ALL_FP8: 0.5}
"""Our error over the peer's."""


class Forwards:
    """Times forwards of both sides, each once, and draws weights for as long as rows of the same work ask for them."""

    def __init__(self, scale: Scale, device: torch.device) -> None:
        self.scale = scale
        self.device = device
        self._sides: Sides | None = None
        self._peers: dict[tuple[Work, Mode], float] = {}

    def rows(self, ids: set[str], *, errors_too: bool = True) -> Iterator[Row]:
        """The rows of these ids, and the errors that they come with, unless these are not wanted."""
        goals = [goal for goal in GOALS if goal.id in ids]
        errors: dict[tuple[bool, Mode], float | None] = {}
        for work in self.scale.errors if errors_too else ():
            modes = {goal.mode for goal in goals if _same_model(work, self.work(goal))}
            for mode, row in self._errors(work, sorted(modes, key=list(Mode).index)):
                errors[is_5b(work), mode] = row.value
                yield row
        for goal in goals:
            yield self._time(goal, errors.get((is_5b(self.work(goal)), goal.mode)))
        self.let_go()

    def work(self, goal: Goal) -> Work:
        """What a row runs."""
        return self.scale.forwards[goal.id[:2]]

    def peer_seconds(self, work: Work, mode: Mode) -> float:
        """Of a warm forward of the peer, timed in this process once."""
        if (work, mode) not in self._peers:
            sides = self._sides_of(work)
            self._start_over()
            forward = sides.theirs(torch.bfloat16, self.scale.peers[mode])
            self._peers[work, mode] = self._seconds(forward)
            restore_attention()
        return self._peers[work, mode]

    def let_go(self) -> None:
        """Frees the weights."""
        self._sides = None
        self._start_over()

    def ours(self, goal: Goal) -> Forward:
        """Our forward of a row."""
        return self._sides_of(self.work(goal)).ours(torch.bfloat16, fp8=goal.mode.fp8, attention8=goal.mode.attention8)

    def _time(self, goal: Goal, relative_error: float | None) -> Row:
        work = self.work(goal)
        peer = self.peer_seconds(work, goal.mode)
        self._start_over()
        with DeviceMemory(self.device) as memory:
            value = self._seconds(self.ours(goal))
        against = "diffusers, eager" if self.scale.dry else "diffusers compiled, FlashAttention-3"
        if goal.mode.fp8 and not self.scale.dry:
            against += ", torchao's fp8" + (", self-attention cast to fp8" if goal.mode.attention8 else "")
        return Row(
            id=goal.id,
            what=f"one forward, {work}, {goal.mode.value}; peer: {against}; the memory is both sides' weights too",
            value=value,
            unit="s",
            goal=None if self.scale.dry else goal.goal,
            floor=None if self.scale.dry else goal.floor,
            peer=peer,
            error=relative_error,
            peak_bytes=memory.peak,
        )

    def _errors(self, work: Work, modes: list[Mode]) -> Iterator[tuple[Mode, Row]]:
        """Relative errors to diffusers in float32, without TF32: means over the seeds."""
        ours, theirs = dict.fromkeys(modes, 0.0), dict.fromkeys(modes, 0.0)
        seeds = self.scale.seeds if modes else ()
        for seed in seeds:
            self._start_over()
            sides = make_sides(work, seed, self.device)
            with full_float32():
                reference = sides.theirs(torch.float32)()
            for mode in modes:
                self._start_over()
                prepare = eager if self.scale.dry else EAGER_PEERS[mode]
                theirs[mode] += error(sides.theirs(torch.bfloat16, prepare)(), reference) / len(seeds)
                restore_attention()
                ours[mode] += error(
                    sides.ours(torch.bfloat16, fp8=mode.fp8, attention8=mode.attention8)(), reference
                ) / len(seeds)
        for mode in modes:
            against = "diffusers" + (", torchao" if mode.fp8 and not self.scale.dry else "")
            yield (
                mode,
                Row(
                    id=None,
                    what=f"relative error to fp32, {work}, {mode.value}; peer: {against}",
                    value=ours[mode],
                    unit="1",
                    goal=None if self.scale.dry else theirs[mode] * ACCEPTANCE[mode],
                    peer=theirs[mode],
                ),
            )

    def _sides_of(self, work: Work) -> Sides:
        if self._sides is None or self._sides.work != work:
            self.let_go()
            self._sides = make_sides(work, self.scale.seeds[0], self.device)
        return self._sides

    def _seconds(self, forward: Forward) -> float:
        """The median of three, or of fewer where a forward takes long."""
        once = seconds(forward, self.device, runs=1)
        return once if once > 4.0 else seconds(forward, self.device)

    def _start_over(self) -> None:
        """Forgets what was compiled and gives memory back; on a CPU nothing is compiled, and little held."""
        if self.device.type != "cuda":
            return
        torch._dynamo.reset()  # noqa: SLF001  # torch's way to do it
        gc.collect()
        free_memory(self.device)


def is_5b(work: Work) -> bool:
    """Whether it is of ti2v-5b, which has one expert."""
    return work.variant.startswith("ti2v")


def _same_model(one: Work, other: Work) -> bool:
    return one.variant == other.variant
