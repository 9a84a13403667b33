"""The denoise loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor

from wan22.errors import InternalError, Reason
from wan22_inference.engine.condition import Condition
from wan22_inference.engine.progress import Progress, Report, ShouldStop, Stage, check_stop
from wan22_inference.engine.schedule import Schedule


@dataclass(frozen=True)
class Expert:
    """A DiT and how strongly it is guided; 1 is not at all."""

    transformer: WanTransformer3DModel
    guidance_scale: float


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
) -> Tensor:
    """Runs all steps from noise (1, C, T, h, w) float32 and returns the latents to decode.

    Guidance is two forwards of batch 1, so that it gives the same bits with any neighbour. Raises Cancelled at the
    next step after `should_stop`, InternalError (NOT_FINITE) with the step at which NaN or infinity arose.
    """
    num_steps = len(schedule.timesteps)
    report(Progress(Stage.DENOISING, 0, num_steps))
    for step, timestep in enumerate(schedule.timesteps):
        check_stop(should_stop)
        expert = experts[schedule.expert(step)]
        hidden_states, timesteps = condition.model_input(latents, timestep)
        velocity = _predict(expert.transformer, hidden_states, timesteps, text.prompt)
        if expert.guidance_scale > 1.0 and text.negative is not None:
            unguided = _predict(expert.transformer, hidden_states, timesteps, text.negative)
            velocity = unguided + expert.guidance_scale * (velocity - unguided)
        latents = schedule.advance(velocity, step, latents)
        _check_finite(latents, step)
        report(Progress(Stage.DENOISING, step + 1, num_steps))
    return condition.finish(latents)


def _predict(transformer: WanTransformer3DModel, hidden_states: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
    """The velocity in float32; the DiT itself computes in the text's dtype."""
    velocity = transformer(
        hidden_states=hidden_states.to(text.dtype), timestep=timesteps, encoder_hidden_states=text, return_dict=False
    )[0]
    return velocity.float()  # type: ignore[no-any-return]  # diffusers is untyped


def _check_finite(latents: Tensor, step: int) -> None:
    if not bool(torch.isfinite(latents).all()):
        text = f"The latents are not finite after step {step + 1}: the weights or the precision do not fit the request."
        raise InternalError(text, reason=Reason.NOT_FINITE, metadata={"step": str(step + 1)})
