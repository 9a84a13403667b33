"""One forward of our DiT and of diffusers', on the same random weights and inputs, at any size and on any device."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed
from torch import Tensor, nn

from wan22.variants import VARIANTS
from wan22_inference.engine.checkpoint_names import checkpoint_names
from wan22_inference.engine.devices import compute_dtype
from wan22_inference.engine.noise import latent_shape
from wan22_inference.engine.progress import Check
from wan22_inference.engine.rows8 import FP8, quantise_rows
from wan22_inference.engine.timesteps import Timesteps
from wan22_inference.engine.transformer import Transformer
from wan22_inference.engine.transformer_config import read_transformer_config
from wan22_testing.random_weights import random_transformer_weights
from wan22_testing.sizes import random_variant

TIMESTEP = 900.0
TEXT_TOKENS = 60
"""Of 512; the rest is padding."""

Forward = Callable[[], Tensor]


@dataclass(frozen=True)
class Work:
    """What is run: a variant's DiT, with fewer layers where float32 must fit too."""

    variant: str
    num_layers: int
    width: int
    height: int
    num_frames: int

    def __str__(self) -> str:
        return f"{self.variant}, {self.num_layers} layers, {self.width}x{self.height}x{self.num_frames}"

    @property
    def config(self) -> dict[str, Any]:
        """Diffusers' config."""
        variant = random_variant(self.variant)
        heads = max(2, variant.dim // 128)
        return {
            "num_attention_heads": heads,
            "attention_head_dim": variant.dim // heads,
            "in_channels": variant.in_channels,
            "out_channels": variant.latent_channels,
            "text_dim": 4096,
            "ffn_dim": variant.ffn_dim,
            "num_layers": self.num_layers,
        }


@dataclass(frozen=True)
class Sides:
    """The weights and the inputs of both sides."""

    work: Work
    weights: dict[str, Tensor]
    latents: Tensor
    text: Tensor

    def theirs(self, dtype: torch.dtype, prepare: Callable[[nn.Module], None] = lambda _: None) -> Forward:
        """Diffusers' forward, eager unless `prepare` compiles it, with the modules in float32 that it keeps so."""
        with torch.device("meta"):
            module = WanTransformer3DModel.from_config(self.work.config)
        config = module.config
        module.rope = WanRotaryPosEmbed(config.attention_head_dim, config.patch_size, config.rope_max_seq_len)
        kept = WanTransformer3DModel._keep_in_fp32_modules  # noqa: SLF001  # its loader looks there too
        state = {
            name: weight.to(torch.float32 if any(part in kept for part in name.split(".")) else dtype)
            for name, weight in self.weights.items()
        }
        module.load_state_dict(state, assign=True)
        module.to(self.latents.device).eval()
        prepare(module)
        timestep = self._timesteps().values
        if VARIANTS[self.work.variant].experts == 1:  # ti2v's pipeline gives a timestep for each token
            counts = torch.tensor(self._timesteps().tokens(self.latents.shape[3] * self.latents.shape[4] // 4))
            timestep = timestep.repeat_interleave(counts.to(timestep.device)).unsqueeze(0)
        latents, text = self.latents.to(dtype), self.text.to(dtype)

        @torch.inference_mode()
        def forward() -> Tensor:
            velocity: Tensor = module(latents, timestep, text, return_dict=False)[0]
            return velocity

        return forward

    def ours(
        self, dtype: torch.dtype, check: Check = lambda: None, *, fp8: bool = False, attention8: bool = False
    ) -> Forward:
        """Our forward; the text's keys and values are made before, as once a generation."""
        with torch.device("meta"):
            config = read_transformer_config(self.work.config, str(self.work))
            exact = VARIANTS[self.work.variant].exact_blocks
            module = Transformer(config, dtype, fp8=fp8, exact_blocks=exact, attention8=attention8)
        module.load_state_dict(our_state(module, self.weights), assign=True)
        module.requires_grad_(requires_grad=False).eval()
        with torch.inference_mode():
            context = module.text_context(self.text)
        timesteps = self._timesteps()

        @torch.inference_mode()
        def forward() -> Tensor:
            velocity: Tensor = module(self.latents, timesteps, context, check)
            return velocity

        return forward

    def _timesteps(self) -> Timesteps:
        frames = self.latents.shape[2]
        if VARIANTS[self.work.variant].experts == 2:
            return Timesteps(torch.tensor([TIMESTEP], device=self.latents.device), (frames,))
        return Timesteps(torch.tensor([0.0, TIMESTEP], device=self.latents.device), (1, frames - 1))


def our_state(module: Transformer, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights named as diffusers names them as the state of a module of ours, quantised where it is."""
    state: dict[str, Tensor] = {}
    for name, meta in module.state_dict().items():
        if name in state:
            continue  # a scale
        weight = weights[checkpoint_names(name.removesuffix("_scale"))[0]]
        if meta.dtype is FP8:
            rows = quantise_rows(weight)
            state |= {name: rows.data, f"{name}_scale": rows.scale}
        else:
            state[name] = weight.to(meta.dtype)
    return state


def make_sides(work: Work, seed: int, device: torch.device) -> Sides:
    """Draws weights and inputs."""
    with torch.device("meta"):
        shapes = {
            name: tensor.shape for name, tensor in WanTransformer3DModel.from_config(work.config).state_dict().items()
        }
    variant = random_variant(work.variant)
    generator = torch.Generator().manual_seed(seed)
    _, _, *size = latent_shape(variant, work.width, work.height, work.num_frames)
    text = torch.zeros(1, 512, 4096)
    text[:, :TEXT_TOKENS] = torch.randn(1, TEXT_TOKENS, 4096, generator=generator)
    return Sides(
        work,
        random_transformer_weights(shapes, dim=variant.dim, seed=seed, device=device),
        torch.randn(1, variant.in_channels, *size, generator=generator).to(device),
        text.to(device),
    )


def random_transformer(
    work: Work, seed: int, device: torch.device, *, fp8: bool = False, attention8: bool = False
) -> Transformer:
    """Our DiT with random weights, in the dtype that workers use on the device."""
    with torch.device("meta"):
        theirs = WanTransformer3DModel.from_config(work.config).state_dict()
        config = read_transformer_config(work.config, str(work))
        exact = VARIANTS[work.variant].exact_blocks
        module = Transformer(config, compute_dtype(device), fp8=fp8, exact_blocks=exact, attention8=attention8)
    shapes = {name: tensor.shape for name, tensor in theirs.items()}
    weights = random_transformer_weights(shapes, dim=random_variant(work.variant).dim, seed=seed, device=device)
    module.load_state_dict(our_state(module, weights), assign=True)
    module.requires_grad_(requires_grad=False).eval()
    return module


def error(value: Tensor, reference: Tensor) -> float:
    """Relative L2 error; infinite where a value is not finite."""
    if not bool(value.isfinite().all()):
        return float("inf")
    return float((value.float() - reference.float()).norm() / reference.float().norm())


def seconds(forward: Forward, device: torch.device, runs: int = 3) -> float:
    """The median time of a warm forward; on a CUDA device by its events."""
    forward()
    return sorted(_time(forward, device) for _ in range(runs))[runs // 2]


def _time(forward: Forward, device: torch.device) -> float:
    if device.type != "cuda":
        start = time.perf_counter()
        forward()
        return time.perf_counter() - start
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch's
    begin.record()
    forward()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1000.0


def peak_bytes(device: torch.device) -> int | None:
    """The most that the allocator has held since free_memory; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def free_memory(device: torch.device) -> None:
    """Gives back what nobody holds any more, and forgets the peak."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
