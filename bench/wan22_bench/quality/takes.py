"""The ways to make videos of prompts that are compared: variants, and options of the engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from wan22_inference.engine.options import EngineOptions, TextEncoderPlace

T2V, I2V, TI2V = "t2v-a14b-tiny", "i2v-a14b-tiny", "ti2v-5b-tiny"


def _plain(_: int) -> EngineOptions:
    return EngineOptions()


@dataclass(frozen=True, kw_only=True)
class Take:
    """One way."""

    what: str
    variant: str = T2V
    first_frame: bool = False
    """Whether it is given the first frame of a true clip."""
    turbo: bool = False
    """Whether it is profile `turbo`, with the adapters for that."""
    engine: Callable[[int], EngineOptions] = _plain
    """The options of the engine for so many latents a side."""
    fp8: bool = False
    """Whether it is imported in float8."""
    resumed: bool = False
    """Whether it goes on from a checkpoint of half of the steps."""
    alone: bool = False
    """Whether all of the device must be its own: a limit counts what others take."""
    absent: str | None = None
    """Why there is no such thing."""


VARIANTS_TAKES: Mapping[str, Take] = {
    "t2v": Take(what="quality"),
    "ti2v": Take(what="quality, from text alone", variant=TI2V),
    "i2v": Take(what="quality, from a true clip's first frame", variant=I2V, first_frame=True),
    "turbo": Take(what="turbo, 4 steps without guidance", turbo=True),
}
LEAST_LIMIT = 4 << 30
"""Bytes of a device within which experts always stay in host memory, and all else of a tiny model fits."""
OPTIONS: Mapping[str, Take] = {
    "fp8": Take(what="imported in float8", fp8=True),
    "tiles": Take(what="VAE in four tiles", engine=lambda latents: EngineOptions(vae_tile=latents // 2)),
    "text-host": Take(
        what="text encoder in host memory", engine=lambda _: EngineOptions(text_encoder=TextEncoderPlace.HOST)
    ),
    "text-cpu": Take(what="text encoder on the CPU", engine=lambda _: EngineOptions(text_encoder=TextEncoderPlace.CPU)),
    "blocks": Take(
        what="experts' blocks in host memory between turns",
        engine=lambda _: EngineOptions(vram_limit=LEAST_LIMIT),
        alone=True,
    ),
    "vae-float16": Take(what="VAE decodes in float16", engine=lambda _: EngineOptions(vae_decode_dtype="float16")),
    "no-embedding-cache": Take(what="no embedding is kept", engine=lambda _: EngineOptions(embedding_cache_bytes=0)),
    "resume": Take(what="resumed from a checkpoint at half of the steps", resumed=True),
    "step-cache": Take(what="results of earlier steps kept and used again", absent="the engine has no such option"),
}
TAKES: Mapping[str, Take] = {**VARIANTS_TAKES, **OPTIONS}
