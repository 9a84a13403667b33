"""What both directions are made of: causal convolution, norm with SiLU, residual block, attention.

All activations are (B, C, T, H, W) in channels_last_3d, which is what tensor cores want, and which makes a norm over
channels one over contiguous memory. Source: wan/modules/vae2_1.py and vae2_2.py of Wan-Video/Wan2.2.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own convention
from torch import Tensor, nn

from wan22_inference.engine.operations import operations
from wan22_inference.engine.vae.history import History

EPS = 1e-24
"""Under the root of the mean square: as good as none, but a pixel of zeros stays zeros."""


class RmsNorm(nn.Module):
    """The gain of a norm over channels; `norm`, and with SiLU Operations.norm_silu, apply it."""

    def __init__(self, channels: int, dims: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(channels, *[1] * dims, dtype=dtype))


def norm(x: Tensor, gamma: Tensor) -> Tensor:
    """Each pixel's channels over their root mean square, times the gain."""
    last = x.movedim(1, -1)
    return F.rms_norm(last, (x.shape[1],), gamma.flatten(), EPS).movedim(-1, 1)


class CausalConv3d(nn.Module):
    """A convolution that sees only this frame and the ones before it, those of earlier chunks included."""

    def __init__(self, in_channels: int, out_channels: int, kernel: tuple[int, int, int], dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, *kernel, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(out_channels, dtype=dtype))

    def forward(self, x: Tensor, history: History) -> Tensor:
        """The convolution of frames as they are."""
        frames, new = self.room(x, history)
        new.copy_(x)
        return self.convolve(frames, history)

    def room(self, x: Tensor, history: History) -> tuple[Tensor, Tensor]:
        """The input to fill: all frames, the past already there, and the part for the new ones, shaped like x."""
        past = history.frames.get(self)
        length = 0 if past is None else past.shape[2]
        batch, channels, count, height, width = x.shape
        frames = torch.empty(
            (batch, channels, length + count, height, width),
            dtype=x.dtype,
            device=x.device,
            memory_format=torch.channels_last_3d,
        )
        if past is not None:
            frames[:, :, :length] = past
        return frames, frames[:, :, length:]

    def convolve(self, frames: Tensor, history: History) -> Tensor:
        """The convolution of what `room` gave, once it is filled; its last frames become the past."""
        weight: Tensor = self.weight
        kept = weight.shape[2] - 1
        if self in history.frames:
            history.frames[self] = frames[:, :, -kept:].clone(memory_format=torch.preserve_format)
        else:
            # Before the first frame there are zeros, which need no multiplying.
            weight = weight[:, :, kept:]
            history.frames[self] = F.pad(frames, (0, 0, 0, 0, kept - 1, 0))
        return operations(frames.device).convolve(frames, weight, self.bias)


class PointwiseConv(nn.Module):
    """A convolution whose kernel is one pixel of one frame, hence a matrix product."""

    def __init__(self, in_channels: int, out_channels: int, dims: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, *[1] * dims, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(out_channels, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) to as many pixels."""
        return F.linear(x.movedim(1, -1), self.weight.flatten(1), self.bias).movedim(-1, 1)


class NormConv(nn.Module):
    """Norm, SiLU, causal convolution of 3 x 3 x 3."""

    def __init__(self, in_channels: int, out_channels: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.norm = RmsNorm(in_channels, 3, dtype)
        self.conv = CausalConv3d(in_channels, out_channels, (3, 3, 3), dtype)

    def forward(self, x: Tensor, history: History) -> Tensor:
        """X is left as it is."""
        frames, new = self.conv.room(x, history)
        operations(x.device).norm_silu(x, self.norm.gamma, EPS, new)
        return self.conv.convolve(frames, history)


class ResidualBlock(nn.Module):
    """Two norms and convolutions, added to the input or to a projection of it."""

    reach = 2
    """Pixels that it sees to each side."""

    def __init__(self, in_channels: int, out_channels: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.first = NormConv(in_channels, out_channels, dtype)
        self.second = NormConv(out_channels, out_channels, dtype)
        self.shortcut = PointwiseConv(in_channels, out_channels, 3, dtype) if in_channels != out_channels else None

    def forward(self, x: Tensor, history: History) -> Tensor:
        """X is left as it is."""
        branch: Tensor = self.second(self.first(x, history), history)
        branch += x if self.shortcut is None else self.shortcut(x)
        return branch


class Attention(nn.Module):
    """One head over all pixels of a frame."""

    def __init__(self, channels: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.norm = RmsNorm(channels, 2, dtype)
        self.qkv = PointwiseConv(channels, 3 * channels, 2, dtype)
        self.out = PointwiseConv(channels, channels, 2, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """X is left as it is."""
        batch, _, frames, height, width = x.shape
        qkv = self.qkv(norm(x, self.norm.gamma)).movedim(1, -1)
        q, k, v = qkv.reshape(batch * frames, 1, height * width, -1).chunk(3, dim=-1)
        seen = F.scaled_dot_product_attention(q, k, v)
        branch: Tensor = self.out(seen.reshape(batch, frames, height, width, -1).movedim(-1, 1))
        branch += x
        return branch


class Middle(nn.Module):
    """Residual block, attention, residual block at the latents' resolution; it sees whole frames."""

    def __init__(self, channels: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.before = ResidualBlock(channels, channels, dtype)
        self.attention = Attention(channels, dtype)
        self.after = ResidualBlock(channels, channels, dtype)

    def forward(self, x: Tensor, history: History) -> Tensor:
        """X is left as it is."""
        out: Tensor = self.after(self.attention(self.before(x, history)), history)
        return out
