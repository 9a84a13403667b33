"""True clips through the engine's VAE and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from wan22_bench.quality.pictures import as_values, square_error
from wan22_inference.engine.vae.vae import Vae


def round_trips(vae: Vae, clips: Iterable[Tensor], device: torch.device) -> Iterator[tuple[Tensor, float]]:
    """Each clip (3, frames, height, width) on the CPU as it comes back, in 256 levels, and its square error."""
    for clip in clips:
        latents = vae.encode(clip.unsqueeze(0).to(device), _never)
        back = as_values(vae.decode(latents, _never))
        yield back, square_error(back, clip)


def _never() -> None:
    """Nobody stops it."""
