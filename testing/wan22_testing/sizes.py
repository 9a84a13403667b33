"""Sizes of random models: as published, and small."""

from __future__ import annotations

from typing import Any

from wan22.variants import VARIANTS, Variant

UMT5_XXL = {"vocab_size": 256_384, "d_model": 4096, "d_kv": 64, "num_heads": 64, "d_ff": 10240, "num_layers": 24}
UMT5_TINY = {"vocab_size": 1_000, "d_model": 4096, "d_kv": 8, "num_heads": 2, "d_ff": 16, "num_layers": 1}
"""Sizes of the text encoder: as published, and small."""
VAE_22: dict[str, Any] = {
    "z_dim": 48,
    "latents_mean": [0.0] * 48,
    "latents_std": [1.0] * 48,
    "is_residual": True,
    "in_channels": 12,
    "out_channels": 12,
    "patch_size": 2,
    "scale_factor_spatial": 16,
}
"""diffusers' configuration of VAE 2.2, but for its widths."""


def random_variant(name: str) -> Variant:
    """A variant as random models have it: a published one as it is, a tiny one smaller than it was trained."""
    variant = VARIANTS[name]
    channels = 16 if variant.experts == 2 else 48
    return variant.sized(dim=48, num_layers=2, ffn_dim=96, latent_channels=channels) if variant.small else variant
