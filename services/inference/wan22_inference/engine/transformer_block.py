"""One block of the DiT: self-attention, cross-attention to the text, feed-forward."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wan22_inference.engine.adaptable import Adaptable, NormWeights
from wan22_inference.engine.attention import attention
from wan22_inference.engine.attention8 import Attend8, choose8, keys8, queries8, values8
from wan22_inference.engine.linear import Fp8Linear, Linear, LinearLayer
from wan22_inference.engine.operations import Operations, operations
from wan22_inference.engine.rope import Rotary
from wan22_inference.engine.rows8 import Operand, split_tokens
from wan22_inference.engine.shared_start import SharedStart
from wan22_inference.engine.stream import Stream
from wan22_inference.engine.text_keys import TextKeys
from wan22_inference.engine.transformer_config import TransformerConfig


@dataclass(frozen=True)
class BlockKind:
    """What the blocks compute in."""

    dtype: torch.dtype
    """Of the residual stream, attention and whatever is not float32 anyway."""
    fp8: bool
    """Whether weights of the linear layers, and what is multiplied by them, are quantised by rows."""
    attention8: bool = False
    """Whether self-attention is in float8, where the device can."""

    def linear(self, in_features: int, out_features: int) -> LinearLayer:
        """A layer with uninitialised weights."""
        return (Fp8Linear if self.fp8 else Linear)(in_features, out_features, self.dtype)


class Block(Adaptable):
    """Adds three branches to the residual stream, the first and the last of them modulated by the timestep.

    The stream is of the compute dtype, as in diffusers (the official model keeps it in float32); each sum is made in
    float32 and rounded once. Modulation and norms are float32.
    """

    def __init__(self, config: TransformerConfig, kind: BlockKind) -> None:
        super().__init__()
        self.eps = config.eps
        self.fp8 = kind.fp8
        self.modulation = nn.Parameter(torch.empty(1, 6, config.dim, dtype=torch.float32))
        self.self_attention = SelfAttention(config, kind)
        self.cross_norm = NormWeights(config.dim, torch.float32, bias=True)
        self.cross_attention = CrossAttention(config, kind)
        self.feed_forward = FeedForward(config, kind)

    def forward(
        self, stream: Stream, time: Tensor, rotary: Rotary, text: TextKeys, shared: SharedStart | None = None
    ) -> None:
        """Adds this block's branches to the stream.

        `time` (R, 6, dim) float32 is the timesteps' part of the modulation, a row for each run of the stream's tokens;
        `text` is what cross_attention.context made of the text. The first branch is `shared`, if there is such a thing.
        """
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = (self.value("modulation") + time).unbind(1)
        weight, bias = (self.cross_norm.value(name).expand(len(time), -1) for name in ("weight", "bias"))

        def first() -> Tensor:
            out: Tensor = self.self_attention(stream.norm(1 + scale, shift, self.eps, fp8=self.fp8), rotary)
            return out

        stream.add(first() if shared is None else shared.take_or_make(first), gate)
        stream.add(self.cross_attention(stream.norm(weight, bias, self.eps, fp8=self.fp8), text))
        stream.add(self.feed_forward(stream.norm(1 + ffn_scale, ffn_shift, self.eps, fp8=self.fp8)), ffn_gate)


class _Attention(nn.Module):
    """The projections of an attention, and the norms of queries and keys over all heads together."""

    def __init__(self, config: TransformerConfig, kind: BlockKind) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.eps = config.eps
        self.query = kind.linear(config.dim, config.dim)
        self.key = kind.linear(config.dim, config.dim)
        self.value = kind.linear(config.dim, config.dim)
        self.out = kind.linear(config.dim, config.dim)
        self.query_norm = NormWeights(config.dim, kind.dtype)
        self.key_norm = NormWeights(config.dim, kind.dtype)


class SelfAttention(_Attention):
    """Every token of the video looks at every other."""

    def __init__(self, config: TransformerConfig, kind: BlockKind) -> None:
        super().__init__(config, kind)
        self.fp8 = kind.fp8
        self.attention8 = kind.attention8

    def forward(self, x: Operand, rotary: Rotary) -> Tensor:
        """X and the result are (B, L, dim)."""
        ops = operations(rotary.cos.device)
        attend = choose8(rotary.cos.device, 2 * rotary.cos.shape[1]).attend if self.attention8 else None
        if attend is not None:
            return self._in_float8(attend, ops, x, rotary)
        q = ops.norm_rotate_heads(self.query(x), self.query_norm.value("weight"), self.num_heads, self.eps, rotary)
        k = ops.norm_rotate_heads(self.key(x), self.key_norm.value("weight"), self.num_heads, self.eps, rotary)
        v = self.value(x).unflatten(2, (self.num_heads, -1))
        attended = attention(q, k, v).flatten(2)
        del q, k, v  # here memory is at its peak
        out: Tensor = self.out(attended)
        return out

    def _in_float8(self, attend: Attend8, ops: Operations, x: Operand, rotary: Rotary) -> Tensor:
        q = queries8(ops, self.query(x), self.query_norm.value("weight"), self.num_heads, self.eps, rotary)
        k = keys8(ops, self.key(x), self.key_norm.value("weight"), self.num_heads, self.eps, rotary)
        v, mean = values8(ops, self.value(x), self.num_heads)
        attended = attend(q, k, v).flatten(2)
        del q, k, v
        whole = (
            ops.quantise(attended, mean)
            if self.fp8
            else (attended + mean.unsqueeze(1)).to(self.query_norm.weight.dtype)
        )
        out: Tensor = self.out(whole)
        return out


class CrossAttention(_Attention):
    """Every token of the video looks at the text, padding included."""

    def context(self, text: Tensor, padding: int) -> TextKeys:
        """What a text (B, M, dim), whose last token stands for `padding`, is to all queries; the same in all steps."""
        ops = operations(text.device)
        key = ops.norm_heads(self.key(text), self.key_norm.value("weight"), self.num_heads, self.eps)
        return TextKeys(key, self.value(text).unflatten(2, (self.num_heads, -1)), padding)

    def forward(self, x: Operand, text: TextKeys) -> Tensor:
        """X and the result are (B, L, dim); `text` is of `context`."""
        query = self.query(x)
        attended = operations(query.device).attend_text(query, self.query_norm.value("weight"), self.eps, text)
        del query
        out: Tensor = self.out(attended)
        return out


class FeedForward(nn.Module):
    """Two matrix products with a GELU between them."""

    def __init__(self, config: TransformerConfig, kind: BlockKind) -> None:
        super().__init__()
        self.linear_in = kind.linear(config.dim, config.ffn_dim)
        self.linear_out = kind.linear(config.ffn_dim, config.dim)
        self.chunk: int | None = None
        """Tokens that are taken at a time, to need less memory; None is all at once."""

    def forward(self, x: Operand) -> Tensor:
        """X and the result are (B, L, dim)."""
        if self.chunk is None:
            return self._whole(x)
        return torch.cat([self._whole(part) for part in split_tokens(x, self.chunk)], dim=1)

    def _whole(self, x: Operand) -> Tensor:
        out: Tensor = self.linear_out(self.linear_in.gelu(x))
        return out
