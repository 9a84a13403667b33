"""Latents to pixels, one latent frame at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import repeat

import torch
from torch import Tensor, nn

from wan22_inference.engine.vae.blocks import CausalConv3d, Middle, NormConv, PointwiseConv, ResidualBlock
from wan22_inference.engine.vae.config import VaeConfig
from wan22_inference.engine.vae.history import History
from wan22_inference.engine.vae.resample import Upsample, add_repeated
from wan22_inference.engine.vae.tiling import Level, Piece, TiledLevels, to_channels_last


class Decoder(nn.Module):
    """A decoder with uninitialised weights: build it on the meta device and fill it from a checkpoint.

    `post_quant_conv`, `conv_in` and `middle` run on whole frames, since attention sees all of one; the levels can run
    tile by tile. In both VAEs a latent reaches pixels of 12.25 latents around it through them (measured; a test
    holds it); a tile reads 14 to each side, since each level's share is rounded up to whole pixels.
    """

    def __init__(self, config: VaeConfig, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        widths = [config.decoder_dim * times for times in reversed((*config.multipliers, config.multipliers[-1]))]
        self.post_quant_conv = PointwiseConv(config.latent_channels, config.latent_channels, 3, dtype)
        self.conv_in = CausalConv3d(config.latent_channels, widths[0], (3, 3, 3), dtype)
        self.middle = Middle(widths[0], dtype)
        self.blocks = nn.ModuleList()
        channels = widths[0]
        doubles_time = (*reversed(config.halves_time), None)
        for width, doubles in zip(widths[1:], doubles_time, strict=True):
            block = UpBlock(channels, width, config, doubles_time=doubles, dtype=dtype)
            self.blocks.append(block)
            channels = block.out_channels
        self.head = Head(channels, 3 * config.patch**2, dtype)


class UpBlock(nn.Module):
    """One level: residual blocks, then twice the resolution unless it is the last."""

    def __init__(
        self, channels: int, width: int, config: VaeConfig, *, doubles_time: bool | None, dtype: torch.dtype
    ) -> None:
        """`doubles_time` is None for the last level, which doubles nothing."""
        super().__init__()
        self.resnets = nn.ModuleList(
            ResidualBlock(channels if index == 0 else width, width, dtype) for index in range(config.num_resnets + 1)
        )
        self.reach = ResidualBlock.reach * len(self.resnets)
        self.up, self.down = 1, 1
        self.out_channels = width
        self.doubles_time = bool(doubles_time)
        self.upsample: Upsample | None = None
        self.residual = config.residual and doubles_time is not None
        if doubles_time is not None:
            self.up = 2
            self.reach += 1
            self.out_channels = width if config.residual else width // 2
            self.upsample = Upsample(width, self.out_channels, doubles_time=doubles_time, dtype=dtype)

    def forward(self, x: Tensor, history: History) -> Tensor:
        """(B, C, T, H, W) to twice as many rows and columns, and frames where it doubles time."""
        source = x
        for resnet in self.resnets:
            x = resnet(x, history)
        if self.upsample is not None:
            x = self.upsample(x, history)
        return add_repeated(x, source, doubles_time=self.doubles_time) if self.residual else x


class Head(NormConv):
    """The last convolution, to pixels."""

    reach = 1
    up = down = 1


class DecoderStream:
    """Decodes the latent frames of one video."""

    def __init__(self, decoder: Decoder, height: int, width: int, side: int | None) -> None:
        """`height` and `width` are in latents, and so is `side`, the most that a tile has; None is no tiles."""
        self._decoder = decoder
        levels: list[Level] = [*decoder.blocks, decoder.head]
        self.levels = TiledLevels(levels, height, width, side)

    def decode(self, latents: Iterable[Tensor]) -> Iterator[Piece]:
        """Latent frames (B, C, 1, h, w), in order, as pieces of frames (B, 3 x patch x patch, 1 or 4, H, W)."""
        return self.levels(map(self._start, latents, repeat(History())))

    def _start(self, latents: Tensor, history: History) -> Tensor:
        """What runs on whole frames."""
        x = to_channels_last(latents.to(self._decoder.dtype))
        x = self._decoder.conv_in(self._decoder.post_quant_conv(x), history)
        middle: Tensor = self._decoder.middle(x, history)
        history.first = False
        return middle
