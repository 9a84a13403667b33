"""The initial noise: drawn on the CPU, so that every device starts from the same numbers."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from wan22.variants import TEMPORAL_STRIDE, Variant


def latent_shape(variant: Variant, width: int, height: int, num_frames: int) -> tuple[int, int, int, int, int]:
    """Batch, channels, latent frames, latent height, latent width of one video."""
    latent_frames = (num_frames - 1) // TEMPORAL_STRIDE + 1
    stride = variant.spatial_stride
    return 1, variant.latent_channels, latent_frames, height // stride, width // stride


def make_generator(seed: int) -> Generator:
    """The generation's one source of chance, on the CPU; the seed is in [0, 2^63 - 1]."""
    return Generator("cpu").manual_seed(seed)


def draw_noise(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Standard normal float32 on the CPU."""
    return torch.randn(shape, generator=generator, dtype=torch.float32)
