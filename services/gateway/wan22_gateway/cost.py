"""What a generation costs: work units from its shape, and seconds from a pool's measured speed."""

from __future__ import annotations

from wan22.parameters import Parameters
from wan22.variants import MAX_PROMPT_TOKENS, Variant

SECONDS_PER_UNIT = 2.0
"""Seconds a PFLOP before a pool has finished its first generation: one H100 at 0.5 PFLOP/s, diffusers' eager rate."""
DECODE_PFLOP_PER_MEGAPIXEL = 0.275 / (832 * 480 * 81 / 1e6)
"""VAE decode, counted at 832x480x81 for VAE 2.1."""


def work_units(variant: Variant, parameters: Parameters) -> float:
    """PFLOP of one generation: the DiT's forwards (two a step with guidance) and the VAE's decode."""
    tokens = variant.tokens(parameters.width, parameters.height, parameters.num_frames)
    dim, ffn = variant.dim, variant.ffn_dim
    linear = 2 * (tokens * (6 * dim * dim + 2 * dim * ffn) + MAX_PROMPT_TOKENS * 2 * dim * dim)
    attention = 4 * tokens * (tokens + MAX_PROMPT_TOKENS) * dim
    forward = variant.num_layers * (linear + attention) / 1e15
    scales = [s for s in (parameters.guidance_scale_high, parameters.guidance_scale_low) if s is not None]
    forwards = parameters.num_inference_steps * (1 + sum(scale > 1.0 for scale in scales) / len(scales))
    pixels = parameters.width * parameters.height * parameters.num_frames
    return forwards * forward + DECODE_PFLOP_PER_MEGAPIXEL * pixels / 1e6


def predicted_seconds(units: float, seconds_per_unit: float | None) -> float:
    """Seconds of worker time, by the pool's fitted speed where there is one."""
    return units * (SECONDS_PER_UNIT if seconds_per_unit is None else seconds_per_unit)
