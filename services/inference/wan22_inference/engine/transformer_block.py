"""One block of the DiT: self-attention, cross-attention to the text, feed-forward."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wan22_inference.engine.attention import attention
from wan22_inference.engine.operations import (
    add_gated,
    gelu,
    layer_norm,
    modulated_norm,
    norm_heads,
    norm_rotate_heads,
)
from wan22_inference.engine.rope import Rotary
from wan22_inference.engine.transformer_config import TransformerConfig


class Block(nn.Module):
    """Adds three branches to the residual stream, the first and the last of them modulated by the timestep.

    The stream is of the compute dtype, as in diffusers (the official model keeps it in float32); each sum is made in
    float32 and rounded once. Modulation and norms are float32.
    """

    def __init__(self, config: TransformerConfig, dtype: torch.dtype) -> None:
        super().__init__()
        self.eps = config.eps
        self.modulation = nn.Parameter(torch.empty(1, 6, config.dim, dtype=torch.float32))
        self.self_attention = SelfAttention(config, dtype)
        self.cross_norm = nn.LayerNorm(config.dim, config.eps, dtype=torch.float32)
        self.cross_attention = CrossAttention(config, dtype)
        self.feed_forward = FeedForward(config, dtype)

    def forward(
        self, x: Tensor, time: Tensor, lengths: tuple[int, ...], rotary: Rotary, text: tuple[Tensor, Tensor]
    ) -> Tensor:
        """The stream x (B, L, dim) with this block's branches added, in place.

        `time` (R, 6, dim) float32 is the timesteps' part of the modulation, one row for each run of `lengths` tokens;
        `text` is what cross_attention.context made of the text.
        """
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = (self.modulation + time).unbind(1)
        branch = self.self_attention(modulated_norm(x, scale, shift, lengths, self.eps), rotary)
        x = add_gated(x, branch, gate, lengths)
        x += self.cross_attention(layer_norm(x, self.cross_norm.weight, self.cross_norm.bias, self.eps), text)
        branch = self.feed_forward(modulated_norm(x, ffn_scale, ffn_shift, lengths, self.eps))
        return add_gated(x, branch, ffn_gate, lengths)


class _Attention(nn.Module):
    """The projections of an attention, and the norms of queries and keys over all heads together."""

    def __init__(self, config: TransformerConfig, dtype: torch.dtype) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.eps = config.eps
        self.query = nn.Linear(config.dim, config.dim, dtype=dtype)
        self.key = nn.Linear(config.dim, config.dim, dtype=dtype)
        self.value = nn.Linear(config.dim, config.dim, dtype=dtype)
        self.out = nn.Linear(config.dim, config.dim, dtype=dtype)
        self.query_norm = nn.RMSNorm(config.dim, config.eps, dtype=dtype)
        self.key_norm = nn.RMSNorm(config.dim, config.eps, dtype=dtype)


class SelfAttention(_Attention):
    """Every token of the video looks at every other."""

    def forward(self, x: Tensor, rotary: Rotary) -> Tensor:
        """X and the result are (B, L, dim)."""
        q = norm_rotate_heads(self.query(x), self.query_norm.weight, self.num_heads, self.eps, rotary)
        k = norm_rotate_heads(self.key(x), self.key_norm.weight, self.num_heads, self.eps, rotary)
        v = self.value(x).unflatten(2, (self.num_heads, -1))
        out: Tensor = self.out(attention(q, k, v).flatten(2))
        return out


class CrossAttention(_Attention):
    """Every token of the video looks at the text, padding included."""

    def context(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, 512, H, D) of an embedded text (B, 512, dim); the same in all steps."""
        key = norm_heads(self.key(text), self.key_norm.weight, self.num_heads, self.eps)
        return key, self.value(text).unflatten(2, (self.num_heads, -1))

    def forward(self, x: Tensor, text: tuple[Tensor, Tensor]) -> Tensor:
        """X and the result are (B, L, dim); `text` is of `context`."""
        q = norm_heads(self.query(x), self.query_norm.weight, self.num_heads, self.eps)
        out: Tensor = self.out(attention(q, *text).flatten(2))
        return out


class FeedForward(nn.Module):
    """Two matrix products with a GELU between them."""

    def __init__(self, config: TransformerConfig, dtype: torch.dtype) -> None:
        super().__init__()
        self.linear_in = nn.Linear(config.dim, config.ffn_dim, dtype=dtype)
        self.linear_out = nn.Linear(config.ffn_dim, config.dim, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """X and the result are (B, L, dim)."""
        out: Tensor = self.linear_out(gelu(self.linear_in(x)))
        return out
