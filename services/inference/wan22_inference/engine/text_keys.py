"""What cross-attention looks at: the tokens of a text, and all of its padding as one key that counts for all of it.

WAN2.2 pads a text with zeros to 512 tokens and masks none of them. All tokens of padding have one key and one value, so
that attention to them is attention to that one with the logarithm of their number added to its score: the same softmax,
for the sum of n equal terms e^s is e^(s + log n). A prompt of 60 tokens so has 64 keys in place of 512.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own convention
from torch import Tensor

from wan22_inference.engine.attention import attention

MOST = 256
"""Keys above which a text keeps its padding: there is less to leave out, and attention's kernels are for many keys."""
MULTIPLE = 32
"""Keys are as many, or times as many: products of few rows may have other bits with more threads."""


@dataclass(frozen=True)
class TextKeys:
    """Keys and values of one cross-attention for texts of one length."""

    key: Tensor
    """(B, M, H, D), as is the value."""
    value: Tensor
    padding: int
    """How many tokens the last one stands for, at least 1."""

    def attend(self, q: Tensor) -> Tensor:
        """Softmax attention of q (B, L, H, D), by torch or by kernels made for many keys."""
        if self.padding == 1 or q.dtype is not torch.float32:  # half precision would round the logarithm by percents
            whole = self.with_all_padding()
            return attention(q, whole.key, whole.value)
        bonus = torch.zeros(1, 1, 1, self.key.shape[1], device=q.device)
        bonus[..., -1] = math.log(self.padding)
        q, key, value = (each.transpose(1, 2) for each in (q, self.key, self.value))
        return F.scaled_dot_product_attention(q, key, value, attn_mask=bonus).transpose(1, 2)

    def with_all_padding(self) -> TextKeys:
        """The same, each token by itself."""
        return self if self.padding == 1 else TextKeys(self._repeated(self.key), self._repeated(self.value), 1)

    def _repeated(self, joined: Tensor) -> Tensor:
        return torch.cat([joined, joined[:, -1:].expand(-1, self.padding - 1, -1, -1)], dim=1)


def join_padding(embeddings: Tensor) -> tuple[Tensor, int]:
    """Embeddings of texts (B, N, dim), padded with zeros, with less padding; and how much of it their last token is.

    Of several texts the longest says how much is padding. They are left as they are where more than MOST would stay.
    """
    count = embeddings.shape[1]
    used = (embeddings != 0).any(2).any(0).nonzero()
    tokens = int(used[-1]) + 1 if len(used) else 0
    kept = -(-(tokens + 1) // MULTIPLE) * MULTIPLE
    if kept >= min(count, MOST + 1):
        return embeddings, 1
    return embeddings[:, :kept], count - kept + 1
