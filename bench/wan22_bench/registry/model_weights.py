"""Files of random weights to measure with: blocks of a DiT in bfloat16, and the same quantised by rows."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from wan22_inference.engine.rows8 import quantise_rows
from wan22_testing.random_weights import random_transformer_weights

DIM = 5120
"""Of A14B."""
SMALLEST = 80
DTYPES = {"BF16": torch.bfloat16, "F8_E4M3": torch.float8_e4m3fn, "F32": torch.float32}
"""Of the files made here, as safetensors names them."""
VAE_DIMS = {"t2v-a14b": 96, "t2v-a14b-tiny": 4}
"""Channels of the VAE's first level, by the variants that a whole model can be made of."""


@dataclass(frozen=True)
class Shape:
    """How many blocks of which width make about so many bytes."""

    dim: int
    blocks: int

    @classmethod
    def of(cls, size: int) -> Shape:
        """Blocks of A14B's width, or of a narrower one if one of them is too large; bfloat16."""
        dim = DIM
        while dim > SMALLEST and _block_bytes(dim) > size:
            dim //= 2
        return cls(dim, max(1, round(size / _block_bytes(dim))))


def make_weights(size: int, device: torch.device) -> dict[str, Tensor]:
    """About `size` bytes of blocks in bfloat16, under diffusers' names, on the CPU; made on the device."""
    shape = Shape.of(size)
    weights: dict[str, Tensor] = {}
    for number in range(shape.blocks):
        made = random_transformer_weights(_block(shape.dim, number), dim=shape.dim, seed=0, device=device)
        weights |= {name: tensor.cpu() for name, tensor in made.items()}
    return weights


def quantised(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same with matrices in float8, and the scales of their rows."""
    found: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if tensor.ndim == 2:
            rows = quantise_rows(tensor)
            found |= {name: rows.data, f"{name}_scale": rows.scale}
        else:
            found[name] = tensor
    return found


def write_weights(weights: dict[str, Tensor], path: Path) -> None:
    """Writes a safetensors file that is on the disk when this returns: else a direct read would write it first."""
    save_file(weights, path)
    sync(path)


def sync(path: Path) -> None:
    """Returns when the file is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def forget(path: Path) -> None:
    """Takes a file that is on the disk out of the page cache."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def remember(path: Path) -> None:
    """Brings a file into the page cache."""
    with path.open("rb", buffering=0) as file:
        hashlib.file_digest(file, "md5")  # reads it all; what comes out does not matter


def _block(dim: int, number: int) -> dict[str, torch.Size]:
    ffn = 13824 * dim // DIM
    shapes = {f"attn{n}.to_{part}.weight": torch.Size([dim, dim]) for n in (1, 2) for part in ("q", "k", "v", "out.0")}
    shapes |= {f"attn{n}.to_{part}.bias": torch.Size([dim]) for n in (1, 2) for part in ("q", "k", "v", "out.0")}
    shapes |= {f"attn{n}.norm_{part}.weight": torch.Size([dim]) for n in (1, 2) for part in ("q", "k")}
    shapes |= {"ffn.net.0.proj.weight": torch.Size([ffn, dim]), "ffn.net.0.proj.bias": torch.Size([ffn])}
    shapes |= {"ffn.net.2.weight": torch.Size([dim, ffn]), "ffn.net.2.bias": torch.Size([dim])}
    return {f"blocks.{number}.{name}": shape for name, shape in shapes.items()}


def _block_bytes(dim: int) -> int:
    return 2 * sum(shape.numel() for shape in _block(dim, 0).values())
