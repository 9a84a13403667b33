"""Our VAE and diffusers' with the same random weights, at sizes for a CPU."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from wan22_inference.engine.vae.checkpoint_names import checkpoint_names
from wan22_inference.engine.vae.config import read_vae_config
from wan22_inference.engine.vae.vae import Vae

CONFIGS: dict[str, dict[str, Any]] = {
    "2.1": {"base_dim": 4},
    "2.1, wider": {"base_dim": 16},
    "2.2": {
        "base_dim": 8,
        "decoder_base_dim": 12,
        "z_dim": 48,
        "latents_mean": [0.1 * (index % 7 - 3) for index in range(48)],
        "latents_std": [0.5 + 0.1 * (index % 5) for index in range(48)],
        "is_residual": True,
        "in_channels": 12,
        "out_channels": 12,
        "patch_size": 2,
        "scale_factor_spatial": 16,
    },
}


@cache
def both(name: str, dtype: torch.dtype = torch.float32) -> tuple[Vae, Any]:
    """Ours, which decodes in `dtype`, and diffusers' in float32."""
    torch.manual_seed(0)
    theirs = AutoencoderKLWan(**CONFIGS[name]).eval().requires_grad_(requires_grad=False)
    state = {key: draw(key, value) for key, value in theirs.state_dict().items()}
    theirs.load_state_dict(state)
    return ours(CONFIGS[name], state, dtype), theirs


def ours(config: dict[str, Any], state: dict[str, Tensor], dtype: torch.dtype) -> Vae:
    """Our VAE with diffusers' weights."""
    read = read_vae_config(config)
    with torch.device("meta"):
        vae = Vae(read, dtype)
    wanted = vae.state_dict()
    names = {name: checkpoint_names(name, read)[0] for name in wanted}
    vae.load_state_dict({name: state[names[name]].to(wanted[name].dtype) for name in wanted}, assign=True)
    vae.to_channels_last()
    return vae.requires_grad_(requires_grad=False).eval()


def draw(name: str, like: Tensor) -> Tensor:
    """Scaled by fan-in, so that activations keep their size."""
    noise = torch.randn_like(like, dtype=torch.float32)
    if name.endswith("bias"):
        return 0.1 * noise
    if name.endswith("gamma"):
        return 1.0 + 0.2 * noise
    return noise / math.sqrt(like[0].numel())


def latents(vae: Vae, frames: int, height: int, width: int) -> Tensor:
    """Normalised latents of a video of `frames` frames."""
    generator = torch.Generator().manual_seed(frames + height)
    shape = (1, vae.config.latent_channels, (frames - 1) // 4 + 1, height, width)
    return torch.randn(shape, generator=generator)


def pixels(frames: int, height: int, width: int) -> Tensor:
    """A video in [-1, 1]."""
    generator = torch.Generator().manual_seed(frames + height)
    return torch.rand((1, 3, frames, height, width), generator=generator) * 2.0 - 1.0


def decode(vae: Vae, x: Tensor, side: int | None = None) -> Tensor:
    """All frames (1, 3, F, H, W), uncut."""
    return torch.cat(list(vae.decode_pixels(x, lambda: None, side=side)), dim=2)
