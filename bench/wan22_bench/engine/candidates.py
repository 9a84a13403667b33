"""Ways to compute what the engine computes that are not taken yet, each beside the one that is, at full size.

`wan22 bench engine --candidates` times both and tells how far apart their results are; what wins goes into the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own convention
from torch import Tensor

from wan22.variants import MAX_PROMPT_TOKENS
from wan22_bench.report import Row
from wan22_inference.engine import plain_operations
from wan22_inference.engine.operations import operations
from wan22_inference.engine.rows8 import Rows8, quantise_rows
from wan22_inference.engine.text_keys import TextKeys
from wan22_testing.forwards import TEXT_TOKENS, error, free_memory, seconds

Make = Callable[[], Tensor]


@dataclass(frozen=True)
class Candidate:
    """Two ways to the same result; both are made by one call, with their inputs."""

    what: str
    make: Callable[[Sizes, torch.device], tuple[Make, Make]]
    """The engine's own way, and the candidate's."""


@dataclass(frozen=True)
class Sizes:
    """Of what is computed: the 14B's at 832x480x81, or tiny ones."""

    tokens: int = 32_760
    dim: int = 5120
    ffn_dim: int = 13_824
    channels: int = 96
    height: int = 480
    width: int = 832
    dtype: torch.dtype = torch.bfloat16


TINY = Sizes(tokens=32, dim=64, ffn_dim=96, channels=8, height=6, width=10, dtype=torch.float32)


@torch.inference_mode()
def rows(device: torch.device, sizes: Sizes) -> Iterator[Row]:
    """A row each: milliseconds of the candidate, and as the peer those of the engine's way."""
    for candidate in CANDIDATES:
        free_memory(device)
        ours, other = candidate.make(sizes, device)
        yield Row(
            id=None,
            what=f"{candidate.what}; peer: as the engine does it; the error is their difference",
            value=1000 * seconds(other, device, runs=5),
            unit="ms",
            peer=1000 * seconds(ours, device, runs=5),
            error=error(other(), ours()),
        )


def folded_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The convolution by 3 x 3 of frames (N, C, H, W) whose pixels are each repeated in two rows and columns.

    By one of 2 x 2 of the pixels as they are, whose results are each of the four that come of one: of three neighbours
    two are the same pixel, and their weights are summed, in float32, and rounded once. Four ninths of the operations.
    """
    folded = _folded(weight.float()).to(x.dtype).contiguous(memory_format=torch.channels_last)
    results = F.conv2d(x, folded, bias.repeat(4), padding=1)
    count, _, height, width = results.shape
    parts = torch.unflatten(results, 1, (2, 2, len(weight)))
    halves = [
        torch.stack([parts[:, a, b, :, a : height - 1 + a, b : width - 1 + b] for b in (0, 1)], dim=-1) for a in (0, 1)
    ]
    whole = torch.stack(halves, dim=-3)  # (N, C, H, row of two, W, column of two)
    return whole.reshape(count, len(weight), 2 * (height - 1), 2 * (width - 1))


def _folded(weight: Tensor) -> Tensor:
    """(C', C, 3, 3) to (2 x 2 x C', C, 2, 2), by row and column of the four."""
    upper = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]], device=weight.device)
    lower = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]], device=weight.device)
    sums = torch.stack([upper, lower])
    return torch.einsum("aik,bjl,ockl->abocij", sums, sums, weight).flatten(0, 2)


def repeated_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The same as the VAE does it: the pixels are repeated, then convolved."""
    count, channels, height, width = x.shape
    pixels = x.movedim(1, -1).reshape(count, height, 1, width, 1, channels).expand(-1, -1, 2, -1, 2, -1)
    frames = pixels.reshape(count, 2 * height, 2 * width, channels).movedim(-1, 1)
    return F.conv2d(frames, weight, bias, padding=1)


def conv_of_frames(frames: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A convolution of 3 x 3 x 3 of frames (1, C, T + 2, H, W), by one of 3 x 3 of three frames' channels together."""
    count = frames.shape[2] - 2
    together = torch.cat([frames[0, :, shift : shift + count] for shift in range(3)]).transpose(0, 1)
    flat = weight.transpose(1, 2).flatten(1, 2).contiguous(memory_format=torch.channels_last)
    together = together.contiguous(memory_format=torch.channels_last)
    return F.conv2d(together, flat, bias, padding=1).transpose(0, 1).unsqueeze(0)


def wider_conv(frames: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The same with output channels of zeros up to a multiple of 64, which are cut off."""
    more = -len(weight) % 64
    wide = F.pad(weight, (0, 0, 0, 0, 0, 0, 0, 0, 0, more)).contiguous(memory_format=torch.channels_last_3d)
    return F.conv3d(frames, wide, F.pad(bias, (0, more)), padding=(0, 1, 1))[:, : len(weight)]


def _random(device: torch.device, sizes: Sizes, *shape: int) -> Tensor:
    drawn = torch.randn(shape, generator=torch.Generator(device).manual_seed(len(shape)), device=device)
    return drawn.to(sizes.dtype)


def _frames(sizes: Sizes, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Six frames of which four are new, and a convolution's weight and bias."""
    frames = _random(device, sizes, 1, sizes.channels, 6, sizes.height, sizes.width)
    weight = _random(device, sizes, sizes.channels, sizes.channels, 3, 3, 3) / (27 * sizes.channels) ** 0.5
    bias = _random(device, sizes, sizes.channels)
    last = torch.channels_last_3d
    return frames.contiguous(memory_format=last), weight.contiguous(memory_format=last), bias


def _conv(other: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[[Sizes, torch.device], tuple[Make, Make]]:
    def make(sizes: Sizes, device: torch.device) -> tuple[Make, Make]:
        frames, weight, bias = _frames(sizes, device)
        return lambda: F.conv3d(frames, weight, bias, padding=(0, 1, 1)), lambda: other(frames, weight, bias)

    return make


def _upsampling(sizes: Sizes, device: torch.device) -> tuple[Make, Make]:
    last = torch.channels_last
    x = _random(device, sizes, 4, 2 * sizes.channels, sizes.height // 2, sizes.width // 2).contiguous(
        memory_format=last
    )
    weight = _random(device, sizes, sizes.channels, 2 * sizes.channels, 3, 3) / (18 * sizes.channels) ** 0.5
    bias = _random(device, sizes, sizes.channels)
    weight = weight.contiguous(memory_format=last)
    return lambda: repeated_conv(x, weight, bias), lambda: folded_conv(x, weight, bias)


def _norm_silu(sizes: Sizes, device: torch.device) -> tuple[Make, Make]:
    """The engine's is the fused one on a GPU: here the candidate is the plain one."""
    frames, _, gamma = _frames(sizes, device)
    ours, plain = torch.empty_like(frames), torch.empty_like(frames)

    def fused() -> Tensor:
        operations(device).norm_silu(frames, gamma, 1e-24, ours)
        return ours

    def by_torch() -> Tensor:
        plain_operations.norm_silu(frames, gamma, 1e-24, plain)
        return plain

    return fused, by_torch


def _qkv(*, fp8: bool) -> Callable[[Sizes, torch.device], tuple[Make, Make]]:
    def make(sizes: Sizes, device: torch.device) -> tuple[Make, Make]:
        x = _random(device, sizes, sizes.tokens, sizes.dim)
        weight, bias = (
            _random(device, sizes, 3 * sizes.dim, sizes.dim) / sizes.dim**0.5,
            _random(device, sizes, 3 * sizes.dim),
        )
        if not fp8:
            parts = list(zip(weight.chunk(3), bias.chunk(3), strict=True))
            apart = lambda: torch.cat([F.linear(x, *part) for part in parts], dim=1)  # noqa: E731  # one of a pair
            return apart, lambda: F.linear(x, weight, bias)
        rows8, whole = quantise_rows(x), quantise_rows(weight)
        cut = [Rows8(*part) for part in zip(whole.data.chunk(3), whole.scale.chunk(3), strict=True)]
        ops = operations(device)

        def separate() -> Tensor:
            made = [ops.matmul_rows(rows8, part, some) for part, some in zip(cut, bias.chunk(3), strict=True)]
            return torch.cat(made, dim=1)

        return separate, lambda: ops.matmul_rows(rows8, whole, bias)

    return make


def _exact_sums(sizes: Sizes, device: torch.device) -> tuple[Make, Make]:
    x = quantise_rows(_random(device, sizes, sizes.tokens, sizes.ffn_dim))
    weight = quantise_rows(_random(device, sizes, sizes.dim, sizes.ffn_dim) / sizes.ffn_dim**0.5)
    bias = _random(device, sizes, sizes.dim)
    ops = operations(device)

    def other() -> Tensor:
        if device.type != "cuda":
            return plain_operations.matmul_rows(x, weight, bias)
        scales = x.scale.reshape(-1, 1), weight.scale.reshape(1, -1)
        return torch._scaled_mm(x.data, weight.data.t(), *scales, bias=bias, out_dtype=bias.dtype)  # noqa: SLF001  # has no other name

    return lambda: ops.matmul_rows(x, weight, bias), other


def _text(sizes: Sizes, device: torch.device) -> tuple[Make, Make]:
    """The norm of the queries is part of both."""
    x, weight = _random(device, sizes, 1, sizes.tokens, sizes.dim), _random(device, sizes, sizes.dim)
    heads = max(2, sizes.dim // 128)
    key, value = (_random(device, sizes, 1, TEXT_TOKENS + 1, heads, sizes.dim // heads) for _ in range(2))
    text = TextKeys(key, value, MAX_PROMPT_TOKENS - TEXT_TOKENS)
    whole = TextKeys(_with_padding(key, text.padding), _with_padding(value, text.padding), 1)
    ops = operations(device)
    return lambda: ops.attend_text(x.clone(), weight, 1e-6, text), lambda: ops.attend_text(
        x.clone(), weight, 1e-6, whole
    )


def _with_padding(joined: Tensor, padding: int) -> Tensor:
    return torch.cat([joined, joined[:, -1:].expand(-1, padding - 1, -1, -1)], dim=1)


CANDIDATES = (
    Candidate(
        "VAE 2.1, convolution of 3x3x3 at the pixels' level: channels of three frames together", _conv(conv_of_frames)
    ),
    Candidate("VAE 2.1, the same: output channels up to a multiple of 64", _conv(wider_conv)),
    Candidate("VAE 2.1, the last upsampling: by a convolution of 2x2 of the pixels as they are", _upsampling),
    Candidate("VAE 2.1, norm and SiLU of 6 frames at the pixels' level: by torch", _norm_silu),
    Candidate(
        f"attention to a text of {TEXT_TOKENS} tokens, with the norm and a copy of the queries: all padding multiplied",
        _text,
    ),
    Candidate(
        "queries, keys and values, bf16: one product; the engine's way has the copy that joins its three",
        _qkv(fp8=False),
    ),
    Candidate(
        "queries, keys and values, fp8: one product; the engine's way has the copy that joins its three", _qkv(fp8=True)
    ),
    Candidate("the feed-forward's second product, fp8: partial sums in float32", _exact_sums),
)
