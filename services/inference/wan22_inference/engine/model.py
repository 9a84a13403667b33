"""One model version in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from wan22.variants import Variant
from wan22_inference.engine.arrivals import Arrivals
from wan22_inference.engine.options import Shortcuts
from wan22_inference.engine.placement import Placement
from wan22_inference.engine.rgb_projection import RgbProjection, fit_rgb_projection
from wan22_inference.engine.text import TextEncoder
from wan22_inference.engine.transformer import Transformer
from wan22_inference.engine.vae.vae import Vae

TRANSFORMERS = ("transformer", "transformer_2")
"""The names of the experts among a model's parts, and of their folders."""
VAE = "vae"


@dataclass(frozen=True)
class Model:
    """A variant's modules with their weights, on one device."""

    variant: Variant
    device: torch.device
    text_encoder: TextEncoder
    transformers: tuple[Transformer, ...]
    """The high-noise expert and the low-noise one, or the only one."""
    vae: Vae
    placement: Placement
    arrivals: Arrivals = field(default_factory=Arrivals)
    """What is still being loaded of TRANSFORMERS and VAE: their weights are to be waited for. Structure, dtypes and
    sizes are there from the start."""
    shortcuts: Shortcuts = field(default_factory=Shortcuts)
    """Which forwards are left out of each generation."""

    def as_pictures(self, latents: Tensor) -> Tensor:
        """At most 8 of the latent frames as pictures (F, h, w, 3) uint8, a pixel a latent; only once the VAE is here.

        The first call fits the projection to the VAE, which takes two passes over small pictures.
        """
        return self._projection.pictures(latents)

    @cached_property
    def _projection(self) -> RgbProjection:
        return fit_rgb_projection(self.vae, self.vae.config.spatial_stride, self.device)
