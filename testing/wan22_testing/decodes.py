"""One decode by our VAE and by diffusers', by the same random weights and latents, at any size and on any device."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from wan22_inference.engine.vae.checkpoint_names import checkpoint_names
from wan22_inference.engine.vae.config import read_vae_config
from wan22_inference.engine.vae.vae import Vae
from wan22_testing.forwards import seconds
from wan22_testing.sizes import VAE_22


@dataclass(frozen=True, eq=False)
class Decoding:
    """What is decoded: a VAE, and a video's size."""

    name: str
    config: dict[str, Any]
    width: int
    height: int
    num_frames: int

    def __str__(self) -> str:
        return f"VAE {self.name}, {self.width}x{self.height}x{self.num_frames}"


DECODE_21 = Decoding("2.1", {"base_dim": 96}, 832, 480, 81)
DECODE_22 = Decoding("2.2", VAE_22 | {"base_dim": 160, "decoder_base_dim": 256}, 1280, 704, 121)
"""At full size."""
TINY_DECODE_21 = Decoding("2.1", {"base_dim": 4}, 64, 48, 9)
TINY_DECODE_22 = Decoding("2.2", VAE_22 | {"base_dim": 8, "decoder_base_dim": 12}, 64, 96, 9)


class DecodeSides:
    """The weights and latents of both sides."""

    def __init__(self, work: Decoding, device: torch.device) -> None:
        self._work = work
        self._config = read_vae_config(work.config)
        with torch.device("meta"):
            shapes = AutoencoderKLWan(**work.config).state_dict()
        generator = torch.Generator(device).manual_seed(1)
        self._weights = {name: _draw(name, tensor.shape, generator) for name, tensor in shapes.items()}
        stride = self._config.spatial_stride
        size = (1, self._config.latent_channels, (work.num_frames - 1) // 4 + 1, work.height // stride)
        self._latents = torch.randn((*size, work.width // stride), generator=generator, device=device)

    @torch.inference_mode()
    def theirs(self, dtype: torch.dtype) -> Tensor:
        """Diffusers' frames in [-1, 1], eager."""
        return self._their_module(dtype).decode(self._raw().to(dtype), return_dict=False)[0].clamp(-1, 1)  # type: ignore[no-any-return]  # untyped

    def time_theirs(self, dtype: torch.dtype, device: torch.device) -> float:
        """Seconds of a warm decode."""
        module, raw = self._their_module(dtype), self._raw().to(dtype)

        @torch.inference_mode()
        def run() -> Tensor:
            frames: Tensor = module.decode(raw, return_dict=False)[0]
            return frames

        return seconds(run, device)

    def ours(self, dtype: torch.dtype, side: int | None = None) -> Tensor:
        """Our frames in [-1, 1]."""
        return torch.cat(list(self._our_module(dtype).decode_pixels(self._latents, _go_on, side=side)), 2).clamp(-1, 1)

    def time_ours(self, dtype: torch.dtype, device: torch.device) -> float:
        """Seconds of a warm decode, with the frames on the host."""
        module = self._our_module(dtype)

        def run() -> Tensor:
            count = sum(1 for _ in module.decode(self._latents, _go_on))
            return torch.tensor(count)

        return seconds(run, device)

    def _raw(self) -> Tensor:
        device = self._latents.device
        mean, std = (torch.tensor(v, device=device).view(1, -1, 1, 1, 1) for v in (self._config.mean, self._config.std))
        return self._latents * std + mean

    def _their_module(self, dtype: torch.dtype) -> Any:
        with torch.device("meta"):
            module = AutoencoderKLWan(**self._work.config)
        module.load_state_dict({name: weight.to(dtype) for name, weight in self._weights.items()}, assign=True)
        return module.eval()

    def _our_module(self, dtype: torch.dtype) -> Vae:
        with torch.device("meta"):
            module = Vae(self._config, dtype)
        wanted = module.state_dict()
        names = {name: checkpoint_names(name, self._config)[0] for name in wanted}
        state = {name: self._weights[names[name]].to(meta.dtype) for name, meta in wanted.items()}
        module.load_state_dict(state, assign=True)
        module.to_channels_last()
        return module.requires_grad_(requires_grad=False).eval()


def _go_on() -> None:
    """Nobody wants to stop."""


def _draw(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    noise = torch.randn(shape, generator=generator, device=generator.device)
    if name.endswith("bias"):
        return 0.1 * noise
    if name.endswith("gamma"):
        return 1.0 + 0.2 * noise
    return noise / math.sqrt(shape[1:].numel())


def psnr(value: Tensor, reference: Tensor) -> float:
    """Of frames in [-1, 1], dB; the peak is 2."""
    return float(10 * torch.log10(4.0 / (value.float() - reference.float()).square().mean()))
