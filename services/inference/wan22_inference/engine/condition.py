"""What the DiT sees beside the text: how latents and image conditions become its input, for each kind of variant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from wan22.variants import TEMPORAL_STRIDE
from wan22_inference.engine.timesteps import Timesteps


class Condition(Protocol):
    """Turns latents and a timestep into the DiT's input."""

    def model_input(self, latents: Tensor, timestep: Tensor) -> tuple[Tensor, Timesteps]:
        """The DiT's latents and timesteps; `timestep` is the step's, of no dimension."""
        ...

    def finish(self, latents: Tensor) -> Tensor:
        """The latents to decode, from those after the last step."""
        ...


@dataclass(frozen=True)
class TextOnly:
    """t2v-a14b: the latents as they are."""

    def model_input(self, latents: Tensor, timestep: Tensor) -> tuple[Tensor, Timesteps]:
        """One timestep for all latent frames."""
        return latents, _one_for_all(latents, timestep)

    def finish(self, latents: Tensor) -> Tensor:
        """Unchanged."""
        return latents


@dataclass(frozen=True)
class ImageChannels:
    """i2v-a14b: 4 channels of mask and 16 of encoded condition beside the 16 of the latents."""

    channels: Tensor
    """(1, 20, T, h, w)."""

    def model_input(self, latents: Tensor, timestep: Tensor) -> tuple[Tensor, Timesteps]:
        """Latents, mask and condition as 36 channels."""
        return torch.cat([latents, self.channels], dim=1), _one_for_all(latents, timestep)

    def finish(self, latents: Tensor) -> Tensor:
        """Unchanged."""
        return latents


@dataclass(frozen=True)
class FirstFrame:
    """ti2v-5b: with an image the first latent frame is the image's, at timestep 0."""

    first_frame: Tensor | None
    """(1, 48, 1, h, w): the image's latents; None without an image."""

    def model_input(self, latents: Tensor, timestep: Tensor) -> tuple[Tensor, Timesteps]:
        """Two timesteps where there is an image and more than its frame, else one."""
        frames = latents.shape[2]
        if self.first_frame is None:
            return latents, _one_for_all(latents, timestep)
        if frames == 1:
            return self.first_frame, _one_for_all(latents, torch.zeros_like(timestep))
        values = torch.stack([torch.zeros_like(timestep), timestep])
        return self.finish(latents), Timesteps(values, (1, frames - 1))

    def finish(self, latents: Tensor) -> Tensor:
        """With the first latent frame put back."""
        if self.first_frame is None:
            return latents
        return torch.cat([self.first_frame, latents[:, :, 1:]], dim=2)


def _one_for_all(latents: Tensor, timestep: Tensor) -> Timesteps:
    return Timesteps(timestep.reshape(1), (latents.shape[2],))


Encode = Callable[[Tensor], Tensor]
"""The VAE's encoder: pixels (1, 3, F, H, W) to normalised latents."""


def image_channels(encode: Encode, first: Tensor, last: Tensor | None, num_frames: int) -> ImageChannels:
    """The condition of i2v: images (1, 3, H, W) in [-1, 1] at the ends of a video that is else grey, encoded.

    Source: WanImageToVideoPipeline.prepare_latents of diffusers; wan/image2video.py of the official repository.
    """
    video = first.new_zeros(1, 3, num_frames, *first.shape[2:])
    video[:, :, 0] = first
    if last is not None:
        video[:, :, -1] = last
    encoded = encode(video)
    return ImageChannels(torch.cat([_known_frames(encoded, last_is_known=last is not None), encoded], dim=1))


def _known_frames(encoded: Tensor, *, last_is_known: bool) -> Tensor:
    """(1, 4, T, h, w), 1 where a frame is given.

    The 4 channels of a latent frame are its 4 frames; the first latent frame has 1 frame, which stands for all 4.
    """
    _, _, latent_frames, height, width = encoded.shape
    mask = encoded.new_zeros(1, TEMPORAL_STRIDE, latent_frames, height, width)
    mask[:, :, 0] = 1
    if last_is_known:
        mask[:, -1, -1] = 1
    return mask


def first_frame(encode: Encode, image: Tensor | None) -> FirstFrame:
    """The condition of ti2v: the image (1, 3, H, W) in [-1, 1] as the first latent frame, if there is one."""
    return FirstFrame(None if image is None else encode(image.unsqueeze(2)))
