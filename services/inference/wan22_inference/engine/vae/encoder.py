"""Pixels to latents, one latent frame at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from wan22_inference.engine.vae.blocks import CausalConv3d, Middle, NormConv, PointwiseConv, ResidualBlock
from wan22_inference.engine.vae.config import VaeConfig
from wan22_inference.engine.vae.history import History
from wan22_inference.engine.vae.resample import Downsample, add_averaged
from wan22_inference.engine.vae.tiling import Level, Piece, TiledLevels, to_channels_last


class Encoder(nn.Module):
    """An encoder with uninitialised weights: build it on the meta device and fill it from a checkpoint.

    The mirror of the decoder: `conv_in` and the levels can run tile by tile, `middle` and what follows run on whole
    frames.
    """

    def __init__(self, config: VaeConfig, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        channels = config.encoder_dim
        self.conv_in = InputConv(3 * config.patch**2, channels, (3, 3, 3), dtype)
        self.blocks = nn.ModuleList()
        for times, halves_time in zip(config.multipliers, (*config.halves_time, None), strict=True):
            width = config.encoder_dim * times
            self.blocks.append(DownBlock(channels, width, config, halves_time=halves_time, dtype=dtype))
            channels = width
        self.middle = Middle(channels, dtype)
        self.head = NormConv(channels, 2 * config.latent_channels, dtype)
        self.quant_conv = PointwiseConv(2 * config.latent_channels, 2 * config.latent_channels, 3, dtype)


class InputConv(CausalConv3d):
    """The first convolution, of pixels."""

    reach = 1
    up = down = 1


class DownBlock(nn.Module):
    """One level: residual blocks, then half the resolution unless it is the last."""

    def __init__(
        self, channels: int, width: int, config: VaeConfig, *, halves_time: bool | None, dtype: torch.dtype
    ) -> None:
        """`halves_time` is None for the last level, which halves nothing."""
        super().__init__()
        self.resnets = nn.ModuleList(
            ResidualBlock(channels if index == 0 else width, width, dtype) for index in range(config.num_resnets)
        )
        self.reach = ResidualBlock.reach * len(self.resnets)
        self.up, self.down = 1, 1
        self.halves_time = bool(halves_time)
        self.downsample: Downsample | None = None
        self.residual = config.residual
        if halves_time is not None:
            self.down = 2
            self.reach += 2  # it needs one pixel more to the right; an even number keeps pairs together
            self.downsample = Downsample(width, halves_time=halves_time, dtype=dtype)

    def forward(self, x: Tensor, history: History) -> Tensor:
        """(B, C, T, H, W) to half as many rows and columns, and frames where it halves time."""
        source = x
        for resnet in self.resnets:
            x = resnet(x, history)
        if self.downsample is not None:
            x = self.downsample(x, history)
        if self.residual:
            x = add_averaged(x, source, halves_space=self.down == 2, halves_time=self.halves_time)
        return x


class EncoderStream:
    """Encodes the frames of one video."""

    def __init__(self, encoder: Encoder, height: int, width: int, side: int | None) -> None:
        """`height` and `width` are of frames after patching; `side` is the most latents that a tile has."""
        self._encoder = encoder
        levels: list[Level] = [encoder.conv_in, *encoder.blocks]
        self._levels = TiledLevels(levels, height, width, side)

    def encode(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Chunks of 1, then 4 frames (B, 3 x patch x patch, T, H, W) as means of latent frames (B, C, 1, h, w)."""
        pieces = self._levels(to_channels_last(chunk.to(self._encoder.dtype)) for chunk in chunks)
        history = History()
        for x in self._whole(pieces):
            mean: Tensor = self._encoder.quant_conv(
                self._encoder.head(self._encoder.middle(x, history), history)
            ).chunk(2, dim=1)[0]
            history.first = False
            yield mean

    def _whole(self, pieces: Iterable[Piece]) -> Iterator[Tensor]:
        """The levels' result for each chunk in order."""
        if self._levels.whole:
            yield from (piece.values for piece in pieces)
            return
        results: dict[int, Tensor] = {}
        for piece in pieces:
            if piece.index not in results:
                results[piece.index] = piece.values.new_empty(*piece.values.shape[:3], *self._levels.size)
            piece.put_into(results[piece.index])
        yield from results.values()
