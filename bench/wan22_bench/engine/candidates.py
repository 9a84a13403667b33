"""Other ways to what the engine computes, each beside the engine's own, at full size.

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
from wan22_inference.engine.text_keys import TextKeys, join_padding
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


def _convolution(sizes: Sizes, device: torch.device) -> tuple[Make, Make]:
    frames, weight, bias = _frames(sizes, device)
    ops = operations(device)
    return lambda: ops.convolve(frames, weight, bias), lambda: plain_operations.convolve(frames, weight, bias)


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


def _text(sizes: Sizes, device: torch.device) -> tuple[Make, Make]:
    """The norm of the queries is part of both."""
    x, weight = _random(device, sizes, 1, sizes.tokens, sizes.dim), _random(device, sizes, sizes.dim)
    heads = max(2, sizes.dim // 128)
    embeddings = torch.zeros(1, MAX_PROMPT_TOKENS, 1)
    embeddings[:, :TEXT_TOKENS] = 1.0
    joined, padding = join_padding(embeddings)
    key, value = (_random(device, sizes, 1, joined.shape[1], heads, sizes.dim // heads) for _ in range(2))
    text = TextKeys(key, value, padding)
    whole = text.with_all_padding()
    ops = operations(device)
    return lambda: ops.attend_text(x.clone(), weight, 1e-6, text), lambda: ops.attend_text(
        x.clone(), weight, 1e-6, whole
    )


CANDIDATES = (
    Candidate("VAE 2.1, convolution of 3x3x3 at the pixels' level: cuDNN's", _convolution),
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
)
