"""Which forwards of a generation are left out, for speed at the price of exactness; none unless a worker is told to.

All of it is settled before the first step, from the schedule alone: the same steps are left out whatever is computed,
and a generation can go on at every step that uses nothing of an earlier one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from torch import Tensor

from wan22_inference.engine import mag_curves
from wan22_inference.engine.options import Shortcuts

MAX_REUSES = 2
"""Steps on end that may reuse what one has added; the authors' own setting, as are the shares below."""


class Turn(Enum):
    """What becomes of one forward."""

    RUN = "run"
    REUSE = "reuse"
    LEAVE_OUT = "leave out"


@dataclass(frozen=True)
class Curve:
    """Ratios of magnitude, one a step; the first of each expert is of no use."""

    prompt: tuple[float, ...]
    negative: tuple[float, ...]
    high_steps: int
    kept_shares: tuple[float, ...]
    """Of each expert's steps, the share from its first on that is always run; an expert without curve has 1."""


@dataclass
class Residual:
    """What the blocks added to one text's stream when they last ran."""

    value: Tensor | None = None
    """(B, L, dim)."""
    reuse: bool = False
    """Whether the next forward adds that instead of running its blocks."""


@dataclass(frozen=True)
class ForwardPlan:
    """The turns of each step, of the prompt and of the negative prompt."""

    prompt: tuple[Turn, ...]
    negative: tuple[Turn, ...]

    @property
    def reuses(self) -> bool:
        """Whether anything is kept from one step for another."""
        return Turn.REUSE in (*self.prompt, *self.negative)

    def starts_anew(self, step: int) -> bool:
        """Whether a step needs nothing of those before it, so that a generation can go on there."""
        return Turn.REUSE not in (self.prompt[step], self.negative[step])


@dataclass
class Residuals:
    """Of the expert whose turn it is; made anew for the next one and for each generation."""

    prompt: Residual = field(default_factory=Residual)
    negative: Residual = field(default_factory=Residual)


def plan(shortcuts: Shortcuts, curve: Curve | None, steps: Sequence[int]) -> ForwardPlan:
    """The turns of the steps of each expert, whose numbers `steps` has; without a curve nothing is reused."""
    prompt: list[Turn] = []
    negative: list[Turn] = []
    for expert, count in enumerate(steps):
        ratios = None if curve is None or shortcuts.mag_cache is None else _of_expert(curve, expert, count)
        kept = 1.0 if curve is None else curve.kept_shares[expert]
        guided = math.ceil(shortcuts.guided_share * count)
        for turns, number in ((prompt, 0), (negative, 1)):
            if ratios is None:
                own = [Turn.RUN] * count
            else:
                own = _reuse(ratios[number], shortcuts.mag_cache or 0.0, first=max(1, int(kept * count + 0.5)))
            if turns is negative:
                own[guided:] = [Turn.LEAVE_OUT] * (count - guided)
            turns.extend(own)
    return ForwardPlan(tuple(prompt), tuple(negative))


def published_curve(variant: str, *, image: bool) -> Curve | None:
    """The curve of a variant, small or not, with the authors' shares of steps that are always run."""
    name = variant.removesuffix("-tiny")
    if name == "t2v-a14b":
        return _curve(mag_curves.T2V, 26, (0.4, 0.4))
    if name == "i2v-a14b":
        return _curve(mag_curves.I2V, 15, (1.0, 0.1))
    if name == "ti2v-5b":
        return _curve(mag_curves.TI2V_IMAGE if image else mag_curves.TI2V_TEXT, 50, (0.2,))
    return None


def _curve(ratios: Sequence[float], high_steps: int, kept_shares: tuple[float, ...]) -> Curve:
    return Curve((1.0, *ratios[0::2]), (1.0, *ratios[1::2]), high_steps, kept_shares)


def _of_expert(curve: Curve, expert: int, count: int) -> tuple[list[float], list[float]]:
    """Its part of the curve for so many steps: of each the ratio of the nearest step measured, as the authors do it."""
    part = slice(0, curve.high_steps) if expert == 0 else slice(curve.high_steps, None)
    return _stretched(curve.prompt[part], count), _stretched(curve.negative[part], count)


def _stretched(ratios: Sequence[float], count: int) -> list[float]:
    if count == 1:
        return [ratios[-1]]
    return [ratios[round(index * (len(ratios) - 1) / (count - 1))] for index in range(count)]


def _reuse(ratios: Sequence[float], threshold: float, first: int) -> list[Turn]:
    """MagCache's rule from the step `first` on: reuse while the estimated errors since the last run sum up to less."""
    turns = [Turn.RUN] * min(first, len(ratios))
    ratio, error, reuses = 1.0, 0.0, 0
    for step in range(first, len(ratios)):
        ratio *= ratios[step]
        error += abs(1.0 - ratio)
        reuses += 1
        if error < threshold and reuses <= MAX_REUSES:
            turns.append(Turn.REUSE)
        else:
            turns.append(Turn.RUN)
            ratio, error, reuses = 1.0, 0.0, 0
    return turns
