"""Random weights for a DiT of any size that make errors and speed mean something, by one recipe for all who compare.

Trained weights are not at hand where this runs. Plain noise would flatter low precision: attention would be uniform and
no channel would stand out. So gates are of order 1, norms of queries and keys have gains of 2 to 3, which makes
attention choose, and a few channels of the residual stream are tens of times larger than the rest.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import torch
from torch import Tensor

OUTLIER_GAIN = 10.0
OUTLIERS = ("patch_embedding.weight", "attn1.to_out.0.weight", "ffn.net.2.weight")
"""What writes to the residual stream, and so can make some of its channels large."""


def random_transformer_weights(
    shapes: Mapping[str, torch.Size], *, dim: int, seed: int, device: torch.device
) -> dict[str, Tensor]:
    """A bfloat16 tensor for each of diffusers' parameter names; each depends on the seed and its own name alone.

    The bits are those of the device's generator: compare on one device, in one process or with one seed.
    """
    return {name: _weight(name, shape, dim, seed, device) for name, shape in shapes.items()}


def outlier_channels(dim: int, seed: int) -> list[int]:
    """The channels of the residual stream that are large: 1 in 1,024, and at least one."""
    generator = torch.Generator().manual_seed(seed)
    return sorted(torch.randperm(dim, generator=generator)[: max(1, dim // 1024)].tolist())


def _weight(name: str, shape: torch.Size, dim: int, seed: int, device: torch.device) -> Tensor:
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    generator = torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    noise = torch.randn(shape, generator=generator, device=device, dtype=torch.float32)
    leaf = name.rpartition(".")[2]
    if leaf == "bias":
        weight = 0.02 * noise
    elif leaf == "scale_shift_table":
        weight = 0.3 * noise
        if shape[1] == 6:  # of a block: shift, scale, gate of the attention, then of the feed-forward
            weight[:, 2::3] += 1.0
    elif ".norm_q." in name or ".norm_k." in name:
        weight = 2.0 + torch.rand(shape, generator=generator, device=device)
    elif len(shape) == 1:
        weight = 1.0 + 0.1 * noise
    else:
        weight = noise / math.sqrt(shape[1:].numel())
        if name.endswith("time_proj.weight"):
            weight *= 0.3
        if name.endswith(OUTLIERS):
            weight[outlier_channels(dim, seed)] *= OUTLIER_GAIN
    return weight.to(torch.bfloat16)
