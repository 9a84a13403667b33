"""The denoise loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from wan22.errors import InternalError, Reason
from wan22_inference.engine.condition import Condition
from wan22_inference.engine.pace import Pace
from wan22_inference.engine.progress import Check, Progress, Report, ShouldStop, Stage
from wan22_inference.engine.schedule import Schedule
from wan22_inference.engine.shared_start import SharedStart
from wan22_inference.engine.shortcuts import ForwardPlan, Residual, Residuals, Turn
from wan22_inference.engine.timesteps import Timesteps
from wan22_inference.engine.transformer import TextContext

AfterStep = Callable[[int, Tensor, Callable[[], Tensor]], None]
"""Hears of a step: steps done, the latents then, and what makes the clean latents that it predicted."""


class Velocity(Protocol):
    """A DiT as the loop sees it: engine/transformer.py's Transformer."""

    def text_context(self, embeddings: Tensor) -> TextContext:
        """What the forward needs of a text (1, 512, dim)."""
        ...

    def __call__(
        self,
        latents: Tensor,
        timesteps: Timesteps,
        text: TextContext,
        check: Check,
        residual: Residual | None = None,
        shared: SharedStart | None = None,
    ) -> Tensor:
        """The velocity of latents (1, C, T, h, w), in any dtype; `residual` and `shared` are as in transformer.py."""
        ...


@dataclass(frozen=True)
class Expert:
    """A DiT and how strongly it is guided; 1 is not at all."""

    transformer: Velocity
    guidance_scale: float
    prepare: Callable[[], None] = lambda: None
    """Called when its turn comes: its weights may have to be fetched."""


@dataclass(frozen=True)
class Text:
    """Embeddings, (1, 512, dim) each; `negative` may be None where no expert is guided."""

    prompt: Tensor
    negative: Tensor | None


def denoise(
    latents: Tensor,
    schedule: Schedule,
    experts: Sequence[Expert],
    condition: Condition,
    text: Text,
    *,
    report: Report,
    should_stop: ShouldStop,
    first_step: int = 0,
    plan: ForwardPlan | None = None,
    share_start: bool = False,
    after_step: AfterStep = lambda _step, _latents, _clean: None,
) -> Tensor:
    """Runs the steps from `first_step` on, from latents (1, C, T, h, w) float32, and returns the latents to decode.

    `after_step` hears of each step but the last. `plan` says which forwards are left out; without one none is. With
    `share_start` the two forwards of a step compute once what they have in common: the same bits sooner, for the memory
    of one more tensor like the DiT's stream.

    Guidance is two forwards of batch 1, so that it gives the same bits with any neighbour. Raises Cancelled at the
    next block after `should_stop`, InternalError (NOT_FINITE) with the step at which NaN or infinity arose.
    """
    num_steps = len(schedule.timesteps)
    report(Progress(Stage.DENOISING, first_step, num_steps))
    pace = Pace(latents.device, should_stop)
    running: _Running | None = None
    for step in range(first_step, num_steps):
        timestep = schedule.timesteps[step]
        expert = experts[schedule.expert(step)]
        if running is None or running.expert is not expert:
            running = None  # frees the other expert's contexts before these are made
            running = _start(expert, text)
        model_latents, timesteps = condition.model_input(latents, timestep)

        turns = (Turn.RUN, Turn.RUN) if plan is None else (plan.prompt[step], plan.negative[step])
        both_run = running.negative is not None and turns == (Turn.RUN, Turn.RUN)
        shared = SharedStart() if share_start and both_run else None

        def forward(text: TextContext, kept: Residual, turn: Turn) -> Tensor:
            kept.reuse = turn is Turn.REUSE
            residual = kept if plan is not None and plan.reuses else None
            return expert.transformer(model_latents, timesteps, text, pace.check, residual, shared).float()  # noqa: B023  # called at once

        velocity = forward(running.prompt, running.residuals.prompt, turns[0])
        if running.negative is not None and turns[1] is not Turn.LEAVE_OUT:
            unguided = forward(running.negative, running.residuals.negative, turns[1])
            velocity = unguided + expert.guidance_scale * (velocity - unguided)
        before, latents = latents, schedule.advance(velocity, step, latents)
        _check_finite(latents, step)
        report(Progress(Stage.DENOISING, step + 1, num_steps))
        if step + 1 < num_steps:
            after_step(step + 1, latents, partial(_clean, schedule, condition, velocity, step, before))
    return condition.finish(latents)


def _clean(schedule: Schedule, condition: Condition, velocity: Tensor, step: int, latents: Tensor) -> Tensor:
    return condition.finish(schedule.clean(velocity, step, latents))


@dataclass(frozen=True)
class _Running:
    """The expert whose turn it is, and what it makes of the texts."""

    expert: Expert
    prompt: TextContext
    negative: TextContext | None
    """None where the expert is not guided."""
    residuals: Residuals = field(default_factory=Residuals)


def _start(expert: Expert, text: Text) -> _Running:
    expert.prepare()
    negative = None
    if expert.guidance_scale > 1.0 and text.negative is not None:
        negative = expert.transformer.text_context(text.negative)
    return _Running(expert, expert.transformer.text_context(text.prompt), negative)


def _check_finite(latents: Tensor, step: int) -> None:
    if not bool(torch.isfinite(latents).all()):
        text = f"The latents are not finite after step {step + 1}: the weights or the precision do not fit the request."
        raise InternalError(text, reason=Reason.NOT_FINITE, metadata={"step": str(step + 1)})
