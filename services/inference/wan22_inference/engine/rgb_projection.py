"""Latents as colours without the VAE: one linear map of a latent's channels, fitted to the VAE itself."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from wan22_inference.engine.preview import MAX_PICTURES
from wan22_inference.engine.progress import Check

SIDE = 8
"""Latents a side of the pictures that it is fitted to: the fit is to take a fraction of a step."""
NUM_FRAMES = 5
"""Two latent frames: the first holds one frame and each other four, and the map is to suit both."""
CELLS = (2, 3, 5, 8)
"""Patches of colour a side, one picture each."""
NOISE = 0.3
"""Deviation of what is added to the pictures' latents, so that every channel is seen to act; latents have about 1."""
RIDGE = 1e-3
"""Keeps a channel that says nothing of the colours at a factor of 0."""


class Coder(Protocol):
    """A VAE as it is seen here: engine/vae/vae.py's Vae."""

    def encode(self, video: Tensor, check: Check) -> Tensor:
        """The latents (1, C, T, h, w) of pixels (1, 3, F, H, W) in [-1, 1]."""
        ...

    def decode_pixels(self, latents: Tensor, check: Check) -> Iterator[Tensor]:
        """The pixels of one latent frame after the other, (1, 3, 1 or 4, H, W)."""
        ...


@dataclass(frozen=True)
class RgbProjection:
    """The colours of a latent are its channels times `weights` plus `bias`, in [-1, 1]."""

    weights: Tensor
    """(C, 3) float32, on the VAE's device."""
    bias: Tensor
    """(3,)."""

    def pictures(self, latents: Tensor) -> Tensor:
        """At most 8 of the latent frames (1, C, T, h, w), evenly spread, as pictures (F, h, w, 3) uint8."""
        chosen = latents[0, :, :: math.ceil(latents.shape[2] / MAX_PICTURES)].float()
        colours = chosen.permute(1, 2, 3, 0) @ self.weights + self.bias
        return ((colours.clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)


@torch.inference_mode()
def fit_rgb_projection(vae: Coder, stride: int, device: torch.device) -> RgbProjection:
    """The map whose colours come nearest, by least squares, to what a VAE of so many pixels a latent decodes.

    It is fitted to moving patches of colour, encoded, with noise on their latents: near what a video's latents are, for
    trained weights, and for any weights the map that is best there. Raises RuntimeError when the VAE overflows.
    """
    generator = torch.Generator("cpu").manual_seed(0)
    latents, colours = [], []
    for cells in CELLS:
        encoded = vae.encode(_patches(cells, SIDE * stride, generator).to(device), _never)
        noisy = encoded + NOISE * torch.randn(encoded.shape, generator=generator).to(device)
        latents.append(noisy[0].flatten(1).T.double().cpu())
        colours.append(_decoded(vae, noisy, stride).double().cpu())
    return _solve(torch.cat(latents), torch.cat(colours), device)


def _patches(cells: int, side: int, generator: torch.Generator) -> Tensor:
    """Patches of colour that move sideways: (1, 3, NUM_FRAMES, side, side) in [-1, 1]."""
    colours = torch.rand((1, 3, cells, cells), generator=generator) * 2.0 - 1.0
    picture = functional.interpolate(colours, (side, side), mode="bilinear" if cells % 2 else "nearest")
    return torch.stack([picture.roll(number * side // 64, -1) for number in range(NUM_FRAMES)], dim=2)


def _decoded(vae: Coder, latents: Tensor, stride: int) -> Tensor:
    """The mean colour of each latent's pixels: (T x h x w, 3)."""
    found = []
    for pixels in vae.decode_pixels(latents, _never):
        shown = pixels[0].float().clamp(-1.0, 1.0).mean(dim=1)
        found.append(functional.avg_pool2d(shown, stride).flatten(1).T)
    return torch.cat(found)


def _solve(latents: Tensor, colours: Tensor, device: torch.device) -> RgbProjection:
    """Ridge regression, float64 on the CPU."""
    if not bool(torch.isfinite(latents).all() and torch.isfinite(colours).all()):
        raise RuntimeError("the VAE's colours are not finite, so that latents cannot be shown as such")
    mean, mean_colour = latents.mean(dim=0), colours.mean(dim=0)
    centred = latents - mean
    square = centred.T @ centred + RIDGE * len(latents) * torch.eye(latents.shape[1], dtype=latents.dtype)
    weights = torch.linalg.solve(square, centred.T @ (colours - mean_colour))
    bias = mean_colour - mean @ weights
    return RgbProjection(weights.float().to(device), bias.float().to(device))


def _never() -> None:
    """What the VAE calls between latent frames: these are too few to be stopped."""
