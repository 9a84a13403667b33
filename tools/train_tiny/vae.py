"""The two VAEs: WAN2.1's, 8 pixels a latent, and WAN2.2's, 16; both 4 frames a latent, the first frame alone.

WAN2.2 runs its VAEs latent frame by latent frame, with a memory of the frames before. All convolutions are causal, so
that a whole clip at once gives the same; which is how they are trained, since it is five times quicker.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanResample, patchify, unpatchify
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from tools.train_tiny.run import Pool, Run, store
from torch import Tensor
from torch.nn import functional

from wan22_testing.shapes.world import random_scene, render
from wan22_testing.sizes import VAE_22

CONFIG_21: dict[str, Any] = {"base_dim": 8, "z_dim": 16}
CONFIG_22: dict[str, Any] = {**VAE_22, "base_dim": 8, "decoder_base_dim": 8, "z_dim": 32}
SIDES = ((64, 16, 8192), (128, 4, 2048))
"""Sides of the clips, clips a step, and clips to learn from at a time."""
KL = 1e-6


class WholeResample(WanResample):  # type: ignore[misc]  # diffusers has no types
    """Twice or half the resolution, of a clip's frames all at once."""

    def forward(self, x: Tensor, feat_cache: None = None, feat_idx: object = None) -> Tensor:  # noqa: ARG002
        """The first frame is never doubled, nor paired with another."""
        if self.mode == "upsample3d":
            pairs = self.time_conv(x[:, :, 1:]).unflatten(1, (2, -1)).movedim(1, 3)
            x = torch.cat([x[:, :, :1], pairs.flatten(2, 3)], 2)
        frames = self.resample(x.transpose(1, 2).flatten(0, 1))
        x = frames.unflatten(0, (len(x), -1)).transpose(1, 2)
        return torch.cat([x[:, :, :1], self.time_conv(x)], 2) if self.mode == "downsample3d" else x


def for_whole_clips(vae: AutoencoderKLWan) -> AutoencoderKLWan:
    """The same VAE, which `posterior` and `pixels` alone take now."""
    for module in vae.modules():
        if isinstance(module, WanResample):
            module.__class__ = WholeResample
    return vae


def posterior(vae: AutoencoderKLWan, clips: Tensor) -> DiagonalGaussianDistribution:
    """What clips are encoded as."""
    patch = vae.config.patch_size
    clips = clips if patch is None else patchify(clips, patch)
    return DiagonalGaussianDistribution(vae.quant_conv(vae.encoder(clips)))


def pixels(vae: AutoencoderKLWan, latents: Tensor) -> Tensor:
    """What latents are decoded to."""
    clips: Tensor = vae.decoder(vae.post_quant_conv(latents), first_chunk=True)
    patch = vae.config.patch_size
    return clips if patch is None else unpatchify(clips, patch)


def load(folder: Path, device: torch.device) -> AutoencoderKLWan:
    """A trained VAE, frozen."""
    vae = AutoencoderKLWan.from_pretrained(folder, torch_dtype=torch.float32).to(device).eval().requires_grad_(False)
    return for_whole_clips(vae)


@torch.no_grad()
def encode(vae: AutoencoderKLWan, clips: Tensor) -> Tensor:
    """Latents as the DiT sees them, of mean 0 and deviation 1 in each channel."""
    latents: Tensor = posterior(vae, clips).mode()
    mean, deviation = (_column(value, latents) for value in (vae.config.latents_mean, vae.config.latents_std))
    return (latents - mean) / deviation


@torch.no_grad()
def decode(vae: AutoencoderKLWan, latents: Tensor) -> Tensor:
    """Clips in [-1, 1] of latents as the DiT makes them."""
    mean, deviation = (_column(value, latents) for value in (vae.config.latents_mean, vae.config.latents_std))
    return pixels(vae, latents * deviation + mean).clamp(-1, 1)


def train(run: Run, config: dict[str, Any]) -> None:
    """Into DIR/STAGE."""
    folder = run.out / run.stage
    unit = {"latents_mean": [0.0] * config["z_dim"], "latents_std": [1.0] * config["z_dim"]}
    vae = for_whole_clips(AutoencoderKLWan(**(config | unit)).to(run.device))
    if folder.exists():
        vae.load_state_dict(load(folder, run.device).state_dict())

    def loss(clips: Tensor) -> Tensor:
        clips = clips.float()
        with torch.autocast(run.device.type, torch.bfloat16):
            distribution = posterior(vae, clips)
            again = pixels(vae, distribution.sample())
            spread: Tensor = distribution.kl().mean()
        off: Tensor = again.float() - clips
        return off.square().mean() * 10 + off.abs().mean() + KL * spread

    @torch.no_grad()
    def save(averages: Sequence[AutoencoderKLWan]) -> None:
        (average,) = averages
        latents = torch.cat([posterior(average, _clips(run, run.clips(32), 64)).mode() for _ in range(8)])
        mean, deviation = latents.mean((0, 2, 3, 4)), latents.std((0, 2, 3, 4))
        average.register_to_config(latents_mean=mean.tolist(), latents_std=deviation.tolist())
        store(AutoencoderKLWan.from_config(average.config), average, folder)
        there = load(folder, run.device)
        run.say(", ".join(f"PSNR {_psnr_at(there, run, side):.2f} dB at {side}x{side}" for side in (64, 128)))

    small, large = (
        (Pool(partial(_rows, run, side), run.clips(clips), run.batch(batch), new=128, every=8), loss)
        for side, batch, clips in SIDES
    )
    run.fit([vae], [small, small, large], save)


def _psnr_at(vae: AutoencoderKLWan, run: Run, side: int) -> float:
    """Of 16 new clips there and back, of values whose peak is 2."""
    clips = _clips(run, 16, side)
    return float(10 * torch.log10(4 / functional.mse_loss(clips, decode(vae, encode(vae, clips)))))


def _rows(run: Run, side: int, count: int) -> tuple[Tensor]:
    return (_clips(run, count, side).bfloat16(),)


def _clips(run: Run, count: int, side: int) -> Tensor:
    clips = render([random_scene(run.rng) for _ in range(count)], side, run.generator)
    return clips.contiguous(memory_format=torch.channels_last_3d)


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, device=like.device).view(1, -1, 1, 1, 1)
