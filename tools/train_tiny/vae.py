"""The two VAEs: WAN2.1's, 8 pixels a latent, and WAN2.2's, 16; both 4 frames a latent, the first frame alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from tools.train_tiny.run import Run, store
from torch import Tensor
from torch.nn import functional

from wan22_testing.shapes.world import random_scene, render

CONFIG_21: dict[str, Any] = {"base_dim": 8, "z_dim": 16}
CONFIG_22: dict[str, Any] = {
    "base_dim": 8,
    "decoder_base_dim": 12,
    "z_dim": 48,
    "is_residual": True,
    "in_channels": 12,
    "out_channels": 12,
    "patch_size": 2,
    "scale_factor_spatial": 16,
}
SIDES = ((64, 1.0), (64, 1.0), (96, 0.5), (128, 0.25))
"""Sides of the clips, taken in turn, and the share of a batch that each gets."""
KL = 1e-6


def train_21(run: Run) -> None:
    """Into DIR/vae21."""
    _train(run, CONFIG_21, run.out / "vae21")


def train_22(run: Run) -> None:
    """Into DIR/vae22."""
    _train(run, CONFIG_22, run.out / "vae22")


def load(folder: Path, device: torch.device) -> AutoencoderKLWan:
    """A trained VAE, frozen."""
    return AutoencoderKLWan.from_pretrained(folder, torch_dtype=torch.float32).to(device).eval().requires_grad_(False)


@torch.no_grad()
def encode(vae: AutoencoderKLWan, clips: Tensor) -> Tensor:
    """Latents as the DiT sees them, of mean 0 and deviation 1 in each channel."""
    latents: Tensor = vae.encode(clips).latent_dist.mode()
    mean, deviation = (_column(value, latents) for value in (vae.config.latents_mean, vae.config.latents_std))
    return (latents - mean) / deviation


@torch.no_grad()
def decode(vae: AutoencoderKLWan, latents: Tensor) -> Tensor:
    """Clips in [-1, 1] of latents as the DiT makes them."""
    mean, deviation = (_column(value, latents) for value in (vae.config.latents_mean, vae.config.latents_std))
    clips: Tensor = vae.decode(latents * deviation + mean).sample
    return clips


def psnr(clips: Tensor, others: Tensor) -> float:
    """Of values in [-1, 1], whose peak is 2, in dB."""
    return float(10 * torch.log10(4 / functional.mse_loss(clips, others)))


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, device=like.device).view(1, -1, 1, 1, 1)


def _train(run: Run, config: dict[str, Any], folder: Path) -> None:
    unit = {"latents_mean": [0.0] * config["z_dim"], "latents_std": [1.0] * config["z_dim"]}
    vae = AutoencoderKLWan(**config, **unit).to(run.device)
    if folder.exists():
        vae.load_state_dict(load(folder, run.device).state_dict())
    batch, step = run.batch(32), 0

    def loss(_passed: float) -> Tensor:
        nonlocal step
        side, share = SIDES[step % len(SIDES)]
        step += 1
        clips = _clips(run, max(1, int(batch * share)), side)
        with torch.autocast(run.device.type, torch.bfloat16):
            posterior = vae.encode(clips).latent_dist
            latents = posterior.sample(run.generator)
            again = vae.decode(latents).sample
            spread: Tensor = posterior.kl().mean()
        off: Tensor = again.float() - clips
        return off.square().mean() * 10 + off.abs().mean() + KL * spread

    @torch.no_grad()
    def save(averages: Sequence[AutoencoderKLWan]) -> None:
        (average,) = averages
        measured = [_clips(run, batch, 64) for _ in range(8)]
        latents = torch.cat([average.encode(clips).latent_dist.mode() for clips in measured])
        mean, deviation = latents.mean((0, 2, 3, 4)), latents.std((0, 2, 3, 4))
        average.register_to_config(latents_mean=mean.tolist(), latents_std=deviation.tolist())
        store(AutoencoderKLWan.from_config(average.config), average, folder)
        there = load(folder, run.device)
        run.say(", ".join(f"PSNR {_psnr_at(there, run, side):.2f} dB at {side}x{side}" for side in (64, 128)))

    run.fit([vae], loss, save)


def _psnr_at(vae: AutoencoderKLWan, run: Run, side: int) -> float:
    """Of 16 new clips there and back."""
    clips = _clips(run, 16, side)
    return psnr(clips, decode(vae, encode(vae, clips)))


def _clips(run: Run, count: int, side: int) -> Tensor:
    return render([random_scene(run.rng) for _ in range(count)], side, run.generator)
