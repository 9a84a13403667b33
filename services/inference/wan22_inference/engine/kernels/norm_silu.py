"""The VAE's norm over channels and its SiLU, in one pass."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

_VALUES = 4096
"""Of a program, masked ones counted."""


@triton.jit(do_not_specialize=["num_rows"])
def _norm_silu(
    x_ptr,
    gamma_ptr,
    out_ptr,
    num_rows,
    eps,
    CHANNELS: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, WIDTH)
    inside = (row < num_rows)[:, None] & (channel < CHANNELS)[None, :]
    place = row[:, None] * CHANNELS + channel[None, :]
    x = tl.load(x_ptr + place, inside, 0.0).to(tl.float32)
    gamma = tl.load(gamma_ptr + channel, channel < CHANNELS, 0.0).to(tl.float32)
    factor = tl.rsqrt(tl.sum(x * x, 1) / CHANNELS + eps)
    x = x * factor[:, None] * gamma[None, :]
    x = x * tl.sigmoid(x)
    tl.store(out_ptr + place, x.to(out_ptr.dtype.element_ty), inside)


def norm_silu(x: Tensor, gamma: Tensor, eps: float, out: Tensor) -> None:
    """See Operations.norm_silu; of each item of the batch, `out` has its pixels on end in memory."""
    channels = x.shape[1]
    width = int(triton.next_power_of_2(channels))
    rows = max(1, _VALUES // width)
    for item, target in zip(x.movedim(1, -1), out.movedim(1, -1), strict=True):
        pixels = item.contiguous()  # a tile's may lie apart
        num_rows = pixels.numel() // channels
        _norm_silu[(triton.cdiv(num_rows, rows),)](
            pixels,
            gamma,
            target.view(-1),  # refuses what is not contiguous
            num_rows,
            eps,
            CHANNELS=channels,
            WIDTH=width,
            ROWS=rows,
            num_warps=4,
        )
