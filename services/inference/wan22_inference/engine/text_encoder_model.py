"""UMT5's encoder: a text's tokens to their embeddings.

Transformers' UMT5EncoderModel is the same, operation by operation, and takes seconds to import. Each result is rounded
where it rounds, so that both have the same bits. Its clamps, which are for float16 alone, are left out: the engine
never computes in that.

Sources: UMT5EncoderModel of transformers; T5Encoder in wan/modules/t5.py of Wan-Video/Wan2.2.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own convention
from torch import Tensor, nn

from wan22_inference.engine.text_encoder_config import TextEncoderConfig


class TextEncoderModel(nn.Module):
    """Embeds tokens, lets each look at all others in every block, and norms what comes out."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = _Table(config.vocab_size, config.dim)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.num_layers))
        self.norm = _Norm(config)

    def forward(self, tokens: Tensor, count: int) -> Tensor:
        """(B, L, dim) of tokens (B, L), of which the first `count` of each row are text, and none sees the others."""
        length = tokens.shape[1]
        position = torch.arange(length, device=tokens.device)
        buckets = self._buckets(position[None, :] - position[:, None])
        # whole rather than broadcast, as transformers has it: kernels are chosen by strides
        seen = (position < count).repeat(1, 1, length, 1) if count < length else None
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, buckets, seen)
        out: Tensor = self.norm(x)
        return out

    def _buckets(self, offset: Tensor) -> Tensor:
        """The kind of each offset from one token to another: half of the kinds for those behind, half for those ahead.

        Of a half, half are single distances, and the rest grow by a constant factor up to `max_distance`.
        """
        half = self.config.num_buckets // 2
        single = half // 2
        distance = offset.abs()
        octaves = torch.log(distance.float() / single) / math.log(self.config.max_distance / single)
        far = (single + (octaves * (half - single)).to(torch.long)).clamp(max=half - 1)
        return (offset > 0).to(torch.long) * half + torch.where(distance < single, distance, far)


class _Block(nn.Module):
    """Adds attention and feed-forward to the residual stream, each of its norm."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.attention_norm = _Norm(config)
        self.attention = _Attention(config)
        self.feed_forward_norm = _Norm(config)
        self.feed_forward = _FeedForward(config)

    def forward(self, x: Tensor, buckets: Tensor, seen: Tensor | None) -> Tensor:
        """X and the result are (B, L, dim)."""
        x = x + self.attention(self.attention_norm(x), buckets, seen)
        out: Tensor = x + self.feed_forward(self.feed_forward_norm(x))
        return out


class _Table(nn.Module):
    """A row for each index. Unlike nn.Embedding it draws no weights: on the meta device that imports torch._dynamo."""

    def __init__(self, rows: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, dim))

    def forward(self, index: Tensor) -> Tensor:
        """(..., dim) of whole numbers (...)."""
        return F.embedding(index, self.weight)


class _Norm(nn.Module):
    """Root mean square norm: the mean in float32, the gain in the stream's dtype."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.eps = config.eps
        self.weight = nn.Parameter(torch.ones(config.dim))

    def forward(self, x: Tensor) -> Tensor:
        """X and the result are (..., dim)."""
        mean_square = x.float().pow(2).mean(-1, keepdim=True)
        return self.weight * (x * torch.rsqrt(mean_square + self.eps)).to(self.weight.dtype)


class _Attention(nn.Module):
    """Scores are not scaled, and have a bias for each kind of distance, of this layer and head."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        inner = config.num_heads * config.head_dim
        self.query = nn.Linear(config.dim, inner, bias=False)
        self.key = nn.Linear(config.dim, inner, bias=False)
        self.value = nn.Linear(config.dim, inner, bias=False)
        self.out = nn.Linear(inner, config.dim, bias=False)
        self.position_bias = _Table(config.num_buckets, config.num_heads)

    def forward(self, x: Tensor, buckets: Tensor, seen: Tensor | None) -> Tensor:
        """X and the result are (B, L, dim), `buckets` (L, L), queries by keys; `seen` is true of keys that count."""
        query, key, value = (
            project(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        bias = self.position_bias(buckets).permute(2, 0, 1).unsqueeze(0)
        if seen is not None:
            bias = torch.where(seen, bias, torch.finfo(bias.dtype).min)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=1.0)
        out: Tensor = self.out(attended.transpose(1, 2).flatten(2))
        return out


class _FeedForward(nn.Module):
    """Two products side by side, one of them a gate through GELU, and one after them."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.dim, config.ffn_dim, bias=False)
        self.linear_in = nn.Linear(config.dim, config.ffn_dim, bias=False)
        self.linear_out = nn.Linear(config.ffn_dim, config.dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """X and the result are (B, L, dim)."""
        out: Tensor = self.linear_out(_gelu(self.gate(x)) * self.linear_in(x))
        return out


def _gelu(x: Tensor) -> Tensor:
    """GELU by a hyperbolic tangent, each operation rounded to the dtype of x, as the encoder was trained."""
    return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))))
