"""The VAE's two directions: pixels to normalised latents, and latents to frames as they become ready."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d, unpatchify
from torch import Tensor

from wan22.errors import InternalError, Reason

Frame = npt.NDArray[np.uint8]
"""(height, width, 3), RGB."""


@torch.inference_mode()
def encode(vae: AutoencoderKLWan, video: Tensor) -> Tensor:
    """The latents of pixels in [-1, 1], (1, 3, F, H, W), normalised: (1, C, (F - 1) / 4 + 1, h, w) float32.

    The mode of the posterior, as the official encoder gives it; nothing is drawn.
    """
    mode = vae.encode(video.to(vae.dtype)).latent_dist.mode().float()
    mean, std = _statistics(vae, mode)
    normalised: Tensor = (mode - mean) / std
    return normalised


@torch.inference_mode()
def decode(vae: AutoencoderKLWan, latents: Tensor) -> Iterator[Frame]:
    """Yields the frames of normalised latents (1, C, T, h, w): one for the first latent frame, four for each other.

    Raises InternalError (NOT_FINITE) when pixels are NaN. Source: AutoencoderKLWan._decode of diffusers, cut at its
    loop over latent frames.
    """
    mean, std = _statistics(vae, latents)
    hidden = vae.post_quant_conv((latents * std + mean).to(vae.dtype))
    history: list[Tensor | str | None] = [None] * sum(isinstance(m, WanCausalConv3d) for m in vae.decoder.modules())
    for index in range(hidden.shape[2]):
        first = index == 0
        pixels = vae.decoder(hidden[:, :, index : index + 1], feat_cache=history, feat_idx=[0], first_chunk=first)
        if vae.config.patch_size is not None:
            pixels = unpatchify(pixels, patch_size=vae.config.patch_size)
        yield from _frames(pixels, index)


def _frames(pixels: Tensor, latent_frame: int) -> Iterator[Frame]:
    if bool(torch.isnan(pixels).any()):
        text = f"The decoded frames hold NaN, first in latent frame {latent_frame + 1}: the VAE overflowed."
        raise InternalError(text, reason=Reason.NOT_FINITE, metadata={"latent_frame": str(latent_frame + 1)})
    levels = ((pixels.float().clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)
    yield from levels[0].permute(1, 2, 3, 0).contiguous().cpu().numpy()


def _statistics(vae: AutoencoderKLWan, like: Tensor) -> tuple[Tensor, Tensor]:
    shape = (1, -1, 1, 1, 1)
    mean = torch.tensor(vae.config.latents_mean, device=like.device, dtype=like.dtype).view(shape)
    std = torch.tensor(vae.config.latents_std, device=like.device, dtype=like.dtype).view(shape)
    return mean, std
