"""The convolution of 96 channels over 3 x 3 x 3 taps, which takes half of VAE 2.1's decoding, as one matrix product.

cuDNN answers 96 channels by a kernel of the previous generation. Here a program makes a run of pixels of one frame: for
each of 27 taps and each third of the channels a product of shifted pixels, zeros where they are outside, and weights.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

CHANNELS = 96
TAPS = (3, 3, 3)
PIXELS, WARPS, STAGES = 128, 4, 3
"""Of a program: pixels, warps, and steps on the way from memory."""
_WIDE, _NARROW = 64, 32
"""Output channels by powers of two; the narrow part is also how many input channels a step takes."""


@triton.jit(do_not_specialize=["height", "width"])
def _convolve(
    x_ptr,
    weight_ptr,
    bias_ptr,
    out_ptr,
    height,
    width,
    CHANNELS: tl.constexpr,
    WIDE: tl.constexpr,
    NARROW: tl.constexpr,
    PIXELS: tl.constexpr,
) -> None:
    parts: tl.constexpr = CHANNELS // NARROW
    area = height * width
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    row, column = pixel // width, pixel % width
    frame = tl.program_id(1).to(tl.int64) * area * CHANNELS
    part = tl.arange(0, NARROW)
    wide = tl.arange(0, WIDE)
    narrow = WIDE + tl.arange(0, NARROW)
    out_wide = tl.zeros((PIXELS, WIDE), tl.float32)
    out_narrow = tl.zeros((PIXELS, NARROW), tl.float32)
    for step in tl.range(0, 27 * parts):
        tap = step // parts
        down, right = tap // 3 % 3 - 1, tap % 3 - 1
        there = (row + down >= 0) & (row + down < height) & (column + right >= 0) & (column + right < width)
        shifted = pixel + (tap // 9 * height + down) * width + right
        at = shifted[:, None] * CHANNELS + step % parts * NARROW + part[None, :]
        at = tl.max_contiguous(tl.multiple_of(at, (1, 8)), (1, 8))
        x = tl.load(x_ptr + frame + at, (there & (pixel < area))[:, None], 0.0)
        weights = weight_ptr + (step * NARROW + part)[:, None] * CHANNELS
        out_wide = tl.dot(x, tl.load(weights + wide[None, :]), out_wide, input_precision="ieee")
        out_narrow = tl.dot(x, tl.load(weights + narrow[None, :]), out_narrow, input_precision="ieee")
    out_wide += tl.load(bias_ptr + wide).to(tl.float32)[None, :]
    out_narrow += tl.load(bias_ptr + narrow).to(tl.float32)[None, :]
    to = out_ptr + frame + pixel[:, None] * CHANNELS
    tl.store(to + wide[None, :], out_wide.to(out_ptr.dtype.element_ty), (pixel < area)[:, None])
    tl.store(to + narrow[None, :], out_narrow.to(out_ptr.dtype.element_ty), (pixel < area)[:, None])


def fits(frames: Tensor, weight: Tensor) -> bool:
    """Whether it is this convolution, of frames whose places fit 32 bits."""
    count, channels, length, height, width = frames.shape
    return (
        count == 1
        and frames.dtype in {torch.bfloat16, torch.float16}
        and tuple(weight.shape) == (CHANNELS, CHANNELS, *TAPS)
        and length >= TAPS[0]
        and (TAPS[0] * height + 1) * width * channels < 2**31
    )


def convolve(frames: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """See Operations.convolve; frames (1, 96, T, H, W) and the result are in channels_last_3d."""
    _, channels, length, height, width = frames.shape
    by_tap = weight.permute(2, 3, 4, 1, 0).contiguous()  # tap, input channel, output channel
    out = torch.empty(
        (1, channels, length - TAPS[0] + 1, height, width),
        dtype=frames.dtype,
        device=frames.device,
        memory_format=torch.channels_last_3d,
    )
    _convolve[(triton.cdiv(height * width, PIXELS), out.shape[2])](
        frames.permute(0, 2, 3, 4, 1).view(-1),  # refuses what is not contiguous
        by_tap,
        bias,
        out,
        height,
        width,
        CHANNELS=CHANNELS,
        WIDE=_WIDE,
        NARROW=_NARROW,
        PIXELS=PIXELS,
        num_warps=WARPS,
        num_stages=STAGES,
    )
    return out
