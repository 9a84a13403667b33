"""Tunes each policy on the training part, and compares them on the part held back, at an equal share in time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wan22_bench.scaling.families import Family
from wan22_bench.scaling.simulator import Outcome, Setup, Simulation
from wan22_bench.scaling.trace import DAY, Trace


@dataclass(frozen=True)
class Part:
    """Days of a trace; simulated to the end of the last."""

    trace: Trace
    days: int


@dataclass(frozen=True, kw_only=True)
class Point:
    """What settings come to on one part."""

    settings: dict[str, Any]
    share: float
    """Started within the objective."""
    gpu_hours: float
    starts: int


def simulate(family: Family, settings: dict[str, Any], part: Part, setup: Setup, *, timeline: bool = False) -> Outcome:
    """One run."""
    return Simulation(part.trace, setup, family.make(settings), horizon=part.days * DAY, timeline=timeline).run()


def points(family: Family, choices: Sequence[dict[str, Any]], part: Part, setup: Setup) -> list[Point]:
    """One point for each of the settings."""
    found = []
    for settings in choices:
        outcome = simulate(family, settings, part, setup)
        share = outcome.share_within(setup.objective_seconds)
        found.append(Point(settings=settings, share=share, gpu_hours=outcome.gpu_hours, starts=outcome.loads))
    return found


def frontier(candidates: Sequence[Point]) -> list[Point]:
    """Those that no other beats in both share and GPU-hours, cheapest first."""
    best: list[Point] = []
    for point in sorted(candidates, key=lambda point: (point.gpu_hours, -point.share)):
        if not best or point.share > best[-1].share:
            best.append(point)
    return best


def cheapest(candidates: Sequence[Point], share: float) -> Point:
    """The fewest GPU-hours with at least that share; where none has it, the greatest share."""
    enough = [point for point in candidates if point.share >= share]
    if enough:
        return min(enough, key=lambda point: point.gpu_hours)
    return max(candidates, key=lambda point: point.share)


@dataclass(frozen=True)
class OnCurve:
    """Where a policy's curve stands at a share."""

    gpu_hours: float
    starts: float
    reached: bool
    """False where the policy never has that share: the figures are then those of its greatest."""


def at_share(candidates: Sequence[Point], share: float) -> OnCurve:
    """Interpolates a policy's own curve, its frontier, at the given share."""
    curve = frontier(candidates)
    above = next((index for index, point in enumerate(curve) if point.share >= share), None)
    if above is None:
        return OnCurve(curve[-1].gpu_hours, curve[-1].starts, reached=False)
    if above == 0:
        return OnCurve(curve[0].gpu_hours, curve[0].starts, reached=True)
    low, high = curve[above - 1], curve[above]
    weight = (share - low.share) / (high.share - low.share)
    return OnCurve(
        low.gpu_hours + weight * (high.gpu_hours - low.gpu_hours),
        low.starts + weight * (high.starts - low.starts),
        reached=True,
    )


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """A policy tuned on the training part, and what came of it on the held one."""

    family: Family
    chosen: Point
    """On the training part."""
    held: Outcome
    held_point: Point
    default: Outcome
    """Of the policy's own defaults, on the held part."""
    curve: Sequence[Point]
    """The training part's frontier, played on the held part."""


def some_of(grid: Sequence[dict[str, Any]], count: int, seed: int) -> list[dict[str, Any]]:
    """The defaults and others drawn from the grid, `count` in all; the whole grid where it has no more."""
    if count >= len(grid):
        return list(grid)
    drawn = np.random.default_rng(seed).choice(len(grid) - 1, size=count - 1, replace=False) + 1
    return [grid[index] for index in [0, *sorted(drawn)]]


def tune(
    family: Family,
    choices: Sequence[dict[str, Any]],
    training: Part,
    held: Part,
    setup: Setup,
    share: float,
    progress: Callable[[str], None],
) -> Tuned:
    """Chooses on the training part alone; the held part is only played."""
    tried = points(family, choices, training, setup)
    chosen = cheapest(tried, share)
    curve = points(family, [point.settings for point in frontier(tried)], held, setup)
    outcome = simulate(family, chosen.settings, held, setup, timeline=True)
    held_share = outcome.share_within(setup.objective_seconds)
    held_point = Point(settings=chosen.settings, share=held_share, gpu_hours=outcome.gpu_hours, starts=outcome.loads)
    progress(
        f"{family.name}, load {setup.load_seconds:g} s: {len(tried)} settings; chosen {chosen.settings}, "
        f"training {chosen.share:.4f} at {chosen.gpu_hours:.1f} GPU-hours, "
        f"held {held_share:.4f} at {outcome.gpu_hours:.1f}"
    )
    default = simulate(family, family.grid[0], held, setup)
    return Tuned(family=family, chosen=chosen, held=outcome, held_point=held_point, default=default, curve=curve)
