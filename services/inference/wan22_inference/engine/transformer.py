"""The DiT of WAN2.2, one module for all variants: latents, timesteps and text to a velocity.

The same function as wan/modules/model.py of the official repository and WanTransformer3DModel of diffusers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own convention
from torch import Tensor, nn

from wan22_inference.engine.adaptable import Adaptable, Branch
from wan22_inference.engine.block_stream import BlockStream
from wan22_inference.engine.linear import Linear
from wan22_inference.engine.plain_operations import gelu
from wan22_inference.engine.progress import Check
from wan22_inference.engine.rope import rotary
from wan22_inference.engine.shared_start import SharedStart
from wan22_inference.engine.shortcuts import Residual
from wan22_inference.engine.stream import Stream
from wan22_inference.engine.text_keys import TextKeys, join_padding
from wan22_inference.engine.timesteps import Timesteps, sinusoid
from wan22_inference.engine.transformer_block import Block, BlockKind
from wan22_inference.engine.transformer_config import PATCH, TransformerConfig

EXACT_BLOCKS = 2
"""Blocks at the start whose attention is never in float8: all that follow make more of an error there."""


@dataclass(frozen=True)
class TextContext:
    """What one DiT's cross-attentions need of one text; made once a generation, since no step changes it."""

    blocks: tuple[TextKeys, ...]
    """Keys and values of each block."""


class Transformer(nn.Module):
    """A DiT with uninitialised weights: build it on the meta device and fill it from a checkpoint.

    Matrix products and the residual stream are of `dtype`. Modulation, norms of the stream and the time embedding are
    float32 whatever it is: the official model's are, and diffusers' too but for its projection of the time embedding.
    With `fp8` the linear layers of all blocks but the first `exact_blocks` hold quantised weights, as engine/linear.py
    says; with `attention8`
    self-attention but the first two blocks' is in float8, as engine/attention8.py says, where the device can.
    """

    def __init__(
        self,
        config: TransformerConfig,
        dtype: torch.dtype,
        *,
        fp8: bool = False,
        exact_blocks: int = 0,
        attention8: bool = False,
    ) -> None:
        super().__init__()
        self.config = config
        self.dtype = dtype
        self.attention8 = attention8
        self.patch_embedding = PatchEmbedding(config, dtype)
        self.time_embedding = TimeEmbedding(config)
        self.text_embedding = TextEmbedding(config, dtype)
        kinds = (
            BlockKind(dtype, fp8 and index >= exact_blocks, attention8 and index >= EXACT_BLOCKS)
            for index in range(config.num_layers)
        )
        self.blocks: list[Block] = nn.ModuleList(Block(config, kind) for kind in kinds)  # type: ignore[assignment]  # iterates as such
        self.head = Head(config, dtype)
        self.block_stream: BlockStream | None = None
        """Where the blocks' weights are, if not on the device."""

    def stream_blocks(self, device: torch.device) -> BlockStream:
        """Takes the blocks' weights to host memory and all others to the device."""
        self.block_stream = BlockStream(self.blocks, device)
        for module in (self.patch_embedding, self.time_embedding, self.text_embedding, self.head):
            module.to(device)
        return self.block_stream

    def set_feed_forward_chunk(self, tokens: int | None) -> None:
        """Lets the feed-forward take so many tokens at a time, which takes less memory; None is all at once."""
        for block in self.blocks:
            block.feed_forward.chunk = tokens

    def _placed_blocks(self) -> Iterator[Block]:
        """The blocks in order, each with its weights on the device."""
        yield from self.blocks if self.block_stream is None else self.block_stream  # type: ignore[misc]  # the same ones

    def text_context(self, embeddings: Tensor) -> TextContext:
        """The context of a text from its embeddings (1, 512, text_dim), padded with zeros."""
        joined, padding = join_padding(embeddings.to(self.dtype))
        text = self.text_embedding(joined)
        return TextContext(tuple(block.cross_attention.context(text, padding) for block in self._placed_blocks()))

    def forward(
        self,
        latents: Tensor,
        timesteps: Timesteps,
        text: TextContext,
        check: Check,
        residual: Residual | None = None,
        shared: SharedStart | None = None,
    ) -> Tensor:
        """The velocity (B, out_channels, T, h, w) in the compute dtype of latents (B, in_channels, T, h, w).

        h and w are even. All of the batch have the same timesteps. `check` is called before each block. What the blocks
        add to the stream is left in `residual`, if there is one; where it says so, that is added in their place. The
        two forwards of a step may have one `shared`, if both run their blocks.
        """
        _, _, frames, height, width = latents.shape
        grid = (frames // PATCH[0], height // PATCH[1], width // PATCH[2])
        lengths = timesteps.tokens(grid[1] * grid[2])
        time, modulation = self.time_embedding(timesteps.values)
        x = self.patch_embedding(latents.to(self.dtype))
        if residual is not None and residual.reuse:
            check()
            return from_patches(self.head(Stream(_with(x, residual), lengths), time), grid)
        start = None if residual is None else x.clone()
        table = rotary(grid, self.config.head_dim, latents.device)
        stream = Stream(x, lengths)
        for block, context in zip(self._placed_blocks(), text.blocks, strict=True):
            check()
            block(stream, modulation, table, context, shared)
            shared = None  # from here on the stream has seen the text
        velocity = from_patches(self.head(stream, time), grid)
        if residual is not None and start is not None:
            residual.value = torch.sub(x, start, out=start)  # the head's norm has made the last sum, in x
        return velocity


def _with(x: Tensor, residual: Residual) -> Tensor:
    if residual.value is None:
        raise RuntimeError("a residual is to be reused before there is one")
    return x.add_(residual.value)


class PatchEmbedding(nn.Module):
    """Latents to tokens: a convolution whose kernel is its stride, hence a matrix product."""

    def __init__(self, config: TransformerConfig, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.dim, config.in_channels, *PATCH, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(config.dim, dtype=dtype))
        self.branch: Branch | None = None
        """What adapters add."""

    def forward(self, latents: Tensor) -> Tensor:
        """(B, C, T, h, w) to (B, L, dim), in order of frame, row, column."""
        patches = to_patches(latents)
        out = F.linear(patches, self.weight.flatten(1), self.bias)
        return out if self.branch is None else self.branch.add_to(out, patches)


class TimeEmbedding(nn.Module):
    """Timesteps to what they modulate, in float32."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.freq_dim = config.freq_dim
        self.linear_in = Linear(config.freq_dim, config.dim, torch.float32)
        self.linear_out = Linear(config.dim, config.dim, torch.float32)
        self.projection = Linear(config.dim, 6 * config.dim, torch.float32)

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """(R,) timesteps to the head's part (R, dim) and the blocks' (R, 6, dim)."""
        time = self.linear_out(F.silu(self.linear_in(sinusoid(values, self.freq_dim))))
        return time, torch.unflatten(self.projection(F.silu(time)), 1, (6, -1))


class TextEmbedding(nn.Module):
    """The text encoder's embeddings to the DiT's width."""

    def __init__(self, config: TransformerConfig, dtype: torch.dtype) -> None:
        super().__init__()
        self.linear_in = Linear(config.text_dim, config.dim, dtype)
        self.linear_out = Linear(config.dim, config.dim, dtype)

    def forward(self, embeddings: Tensor) -> Tensor:
        """(B, M, text_dim) to (B, M, dim)."""
        out: Tensor = self.linear_out(gelu(self.linear_in(embeddings)))
        return out


class Head(Adaptable):
    """Tokens to patches of velocity."""

    def __init__(self, config: TransformerConfig, dtype: torch.dtype) -> None:
        super().__init__()
        self.eps = config.eps
        self.modulation = nn.Parameter(torch.empty(1, 2, config.dim, dtype=torch.float32))
        patch = PATCH[0] * PATCH[1] * PATCH[2]
        self.linear = Linear(config.dim, patch * config.out_channels, dtype)

    def forward(self, stream: Stream, time: Tensor) -> Tensor:
        """(B, L, dim) to (B, L, 4 x out_channels)."""
        shift, scale = (self.value("modulation") + time.unsqueeze(1)).unbind(1)
        out: Tensor = self.linear(stream.norm(1 + scale, shift, self.eps, fp8=False))
        return out


def to_patches(latents: Tensor) -> Tensor:
    """(B, C, T, h, w) to (B, L, C x patch): within a token by channel, frame, row, column, as the weight has it."""
    batch, channels, frames, height, width = latents.shape
    t, p, q = PATCH
    cut = latents.reshape(batch, channels, frames // t, t, height // p, p, width // q, q)
    return cut.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(1, 3)


def from_patches(tokens: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """(B, L, patch x C), within a token by frame, row, column, channel, to (B, C, T, h, w)."""
    cut = torch.unflatten(torch.unflatten(tokens, 2, (*PATCH, -1)), 1, grid)
    return cut.permute(0, 7, 1, 4, 2, 5, 3, 6).flatten(6).flatten(4, 5).flatten(2, 3)
