from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan
from tools.train_tiny.vae import CONFIG_21, CONFIG_22, for_whole_clips, pixels, posterior


@pytest.mark.parametrize("config", [CONFIG_21, CONFIG_22], ids=["2.1", "2.2"])
def test_a_whole_clip_at_once_gives_what_frame_by_frame_does(config: dict[str, Any]) -> None:
    torch.manual_seed(0)
    unit = {"latents_mean": [0.0] * config["z_dim"], "latents_std": [1.0] * config["z_dim"]}
    by_frame = AutoencoderKLWan(**(config | unit)).eval().requires_grad_(False)
    whole = for_whole_clips(copy.deepcopy(by_frame))
    clips = torch.rand(1, 3, 9, 32, 32) * 2 - 1
    latents = by_frame.encode(clips).latent_dist.mode()
    torch.testing.assert_close(posterior(whole, clips).mode(), latents, rtol=0, atol=1e-5)
    decoded = by_frame.decode(latents).sample
    torch.testing.assert_close(pixels(whole, latents).clamp(-1, 1), decoded, rtol=0, atol=1e-4)
