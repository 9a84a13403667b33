"""From one level of resolution to the next, in space by two and in time by one or two."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own convention
from torch import Tensor, nn

from wan22_inference.engine.vae.blocks import CausalConv3d
from wan22_inference.engine.vae.history import History


class _SpatialConv(nn.Module):
    """A convolution of 3 x 3 in each frame."""

    def __init__(self, in_channels: int, out_channels: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 3, 3, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(out_channels, dtype=dtype))


class Upsample(nn.Module):
    """Doubles height and width, and from the second chunk on the frames where it doubles time."""

    def __init__(self, in_channels: int, out_channels: int, *, doubles_time: bool, dtype: torch.dtype) -> None:
        super().__init__()
        self.conv = _SpatialConv(in_channels, out_channels, dtype)
        self.time_conv = CausalConv3d(in_channels, 2 * in_channels, (3, 1, 1), dtype) if doubles_time else None

    def forward(self, x: Tensor, history: History) -> Tensor:
        """(B, C, T, H, W) to (B, C', T or 2T, 2H, 2W)."""
        batch, channels, count, height, width = x.shape
        repeated = 1
        if self.time_conv is not None:
            if history.first:
                # The first frame stays alone, and unlike elsewhere is no past of those that come.
                history.frames[self.time_conv] = torch.zeros_like(x).expand(-1, -1, 2, -1, -1)
            else:
                x, repeated = self.time_conv(x, history), 2
        # One copy puts the two halves of the channels one after the other in time and repeats each pixel.
        pixels = x.movedim(1, -1).reshape(batch, count, height, 1, width, 1, repeated, channels)
        pixels = pixels.permute(0, 1, 6, 2, 3, 4, 5, 7).expand(-1, -1, -1, -1, 2, -1, 2, -1)
        frames = pixels.reshape(batch * count * repeated, 2 * height, 2 * width, channels).movedim(-1, 1)
        frames = F.conv2d(frames, self.conv.weight, self.conv.bias, padding=1)
        return frames.view(batch, -1, *frames.shape[1:]).transpose(1, 2)


class Downsample(nn.Module):
    """Halves height and width, and from the second chunk on the frames where it halves time."""

    def __init__(self, channels: int, *, halves_time: bool, dtype: torch.dtype) -> None:
        super().__init__()
        self.conv = _SpatialConv(channels, channels, dtype)
        self.time_conv = _TimeConv(channels, dtype) if halves_time else None

    def forward(self, x: Tensor, history: History) -> Tensor:
        """(B, C, T, H, W) to (B, C, T or T / 2, H / 2, W / 2)."""
        frames = x.transpose(1, 2).flatten(0, 1)
        # Zeros are wanted below and to the right only; with two rows of them above, the second result is the first.
        frames = F.conv2d(frames, self.conv.weight, self.conv.bias, stride=2, padding=2)
        batch, _, count, height, width = x.shape
        frames = frames.view(batch, count, *frames.shape[1:]).transpose(1, 2)
        x = frames[:, :, :, 1 : height // 2 + 1, 1 : width // 2 + 1]
        return x if self.time_conv is None else self.time_conv(x, history)


class _TimeConv(nn.Module):
    """One frame of two, from these two and the one before."""

    def __init__(self, channels: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, channels, 3, 1, 1, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(channels, dtype=dtype))

    def forward(self, x: Tensor, history: History) -> Tensor:
        """The first chunk's frame stays as it is."""
        past = history.frames.get(self)
        history.frames[self] = x[:, :, -1:].clone(memory_format=torch.channels_last_3d)
        if past is None:
            return x
        return F.conv3d(torch.cat([past, x], dim=2), self.weight, self.bias, stride=(2, 1, 1))


def add_repeated(x: Tensor, source: Tensor, *, doubles_time: bool) -> Tensor:
    """Adds to x (B, C', T', 2H, 2W), in place, a source (B, C, T, H, W) whose values are repeated to x's size.

    Where x has half the channels, pairs of channels are the two frames that come of one, or else the two rows. Source:
    DupUp3D of vae2_2.py.
    """
    batch, channels = x.shape[:2]
    count, height, width = source.shape[2:]
    spread = source.shape[1] // channels  # 1 or 2, as VaeConfig has it
    in_time = spread if doubles_time else 1
    values = source.view(batch, channels, in_time, spread // in_time, 1, count, height, width)
    new = x.shape[2] // count
    if new < in_time:
        values = values[:, :, 1:]  # of a first frame, which time does not double, the later of the two
    parts = x.view(batch, channels, count, new, height, 2, width, 2)
    parts += values.permute(0, 1, 5, 2, 6, 3, 7, 4)
    return x


def add_averaged(x: Tensor, source: Tensor, *, halves_space: bool, halves_time: bool) -> Tensor:
    """Adds to x (B, C', T', H', W'), in place, a source (B, C, T, H, W) averaged to x's size.

    Where pixels are put together they first become channels, and groups of channels are averaged to x's. Source:
    AvgDown3D of vae2_2.py.
    """
    side, times = 2 if halves_space else 1, 2 if halves_time else 1
    if source.shape[2] % times:
        source = F.pad(source, (0, 0, 0, 0, 1, 0))
    batch, channels, count, height, width = x.shape
    parts = source.reshape(batch, -1, count, times, height, side, width, side).permute(0, 1, 3, 5, 7, 2, 4, 6)
    x += parts.reshape(batch, channels, -1, count, height, width).mean(2)
    return x
