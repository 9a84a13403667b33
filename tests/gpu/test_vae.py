"""The VAE decoders at full size beside diffusers', by the same random weights; the same at tiny sizes on a CPU."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from wan22_inference.engine.devices import full_float32
from wan22_inference.engine.vae.checkpoint_names import checkpoint_names
from wan22_inference.engine.vae.config import read_vae_config
from wan22_inference.engine.vae.vae import Vae
from wan22_testing.forwards import error, free_memory, peak_bytes, seconds
from wan22_testing.random_model import VAE_22

Figures = list[dict[str, Any]]


@dataclass(frozen=True)
class Decoding:
    """What is decoded: a VAE, and a video's size."""

    name: str
    config: dict[str, Any]
    width: int
    height: int
    num_frames: int
    row: dict[str, Any]
    """The benchmark's id, goal and floor."""

    def __str__(self) -> str:
        return f"VAE {self.name}, {self.width}x{self.height}x{self.num_frames}"


FULL = [
    Decoding("2.1", {"base_dim": 96}, 832, 480, 81, {"id": "P7a", "goal": 0.9, "floor": 0.6}),
    Decoding(
        "2.2",
        VAE_22 | {"base_dim": 160, "decoder_base_dim": 256},
        1280,
        704,
        121,
        {"id": "P7b", "goal": 3.8, "floor": 2.8},
    ),
]
TINY = [
    Decoding("2.1", {"base_dim": 4}, 64, 48, 9, {}),
    Decoding("2.2", VAE_22 | {"base_dim": 8, "decoder_base_dim": 12}, 64, 96, 9, {}),
]


class Sides:
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


def measure(work: Decoding, device: torch.device) -> dict[str, Any]:
    """A row of figures: seconds of a decode in bfloat16, ours as `value` and eager diffusers' as `peer`."""
    free_memory(device)
    sides = Sides(work, device)
    with full_float32():
        reference = sides.theirs(torch.float32).cpu()
        free_memory(device)
        ours_float32 = error(sides.ours(torch.float32).cpu(), reference)
    free_memory(device)
    theirs = psnr(sides.theirs(torch.bfloat16).cpu(), reference)
    free_memory(device)
    peer = sides.time_theirs(torch.bfloat16, device)
    peer_peak = peak_bytes(device)
    free_memory(device)
    ours = psnr(sides.ours(torch.bfloat16).cpu(), reference)
    free_memory(device)
    return {
        "what": f"decode, {work}, bf16, frames on the host; peer: diffusers, eager, frames on the device",
        "unit": "s",
        "value": sides.time_ours(torch.bfloat16, device),
        "peer": peer,
        "peak_bytes": peak_bytes(device),
        "peer_peak_bytes": peer_peak,
        "psnr": ours,
        "peer_psnr": theirs,
        "float32_error": ours_float32,
    }


@pytest.mark.gpu
@pytest.mark.parametrize("work", FULL, ids=str)
def test_a_full_decode_is_faster_and_as_true_as_diffusers(work: Decoding, cuda: torch.device, figures: Figures) -> None:
    row = measure(work, cuda)
    figures.append(row | work.row)
    assert row["float32_error"] < 1e-4
    assert row["psnr"] >= row["peer_psnr"]
    assert row["value"] < row["peer"]


@pytest.mark.gpu
def test_tiles_at_full_size_give_the_frames_of_the_whole(cuda: torch.device, figures: Figures) -> None:
    free_memory(cuda)
    work = Decoding("2.1", {"base_dim": 96}, 832, 480, 9, {})
    sides = Sides(work, cuda)
    with full_float32():
        difference = float((sides.ours(torch.float32, side=40) - sides.ours(torch.float32)).abs().max())
    what = f"largest difference of tiles to the whole in float32, {work}"
    figures.append({"what": what, "unit": "1", "value": difference, "goal": 1e-3})
    assert difference <= 1e-3


@pytest.mark.parametrize("work", TINY, ids=str)
def test_a_decode_is_measured_alike_at_tiny_sizes(work: Decoding) -> None:
    row = measure(work, torch.device("cpu"))
    assert row["float32_error"] < 1e-5
    assert abs(row["psnr"] - row["peer_psnr"]) < 3.0
    assert row["value"] > 0.0
    assert row["peer"] > 0.0
