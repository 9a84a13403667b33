"""Frames on their way from the device to the host, while the device goes on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wan22_inference.engine.frame import Frame
from wan22_inference.engine.vae.tiling import Piece


class Transfer:
    """The frames of one latent frame, being copied; whoever asks for them waits for the copy alone."""

    def __init__(self, pixels: Tensor) -> None:
        """Starts to copy pixels (1, 3, F, H, W) in [-1, 1]; what lies beyond is cut off."""
        finite = pixels.isfinite().all()
        levels = ((pixels[0].float().clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8).permute(1, 2, 3, 0)
        self._copied: torch.cuda.Event | None = None
        if pixels.device.type == "cuda":
            self._finite = _pinned(finite)
            self._levels = _pinned(levels.contiguous())
            self._copied = torch.cuda.current_stream(pixels.device).record_event()
        else:
            self._finite, self._levels = finite, levels.contiguous()

    @property
    def finite(self) -> bool:
        """Whether all pixels are."""
        self._wait()
        return bool(self._finite)

    def frames(self) -> Iterator[Frame]:
        """One by one."""
        self._wait()
        yield from self._levels.numpy()

    def _wait(self) -> None:
        if self._copied is not None:
            self._copied.synchronize()


class Gathered:
    """Frames on the host that come together from the pieces of their tiles."""

    def __init__(self) -> None:
        self._chunks: list[npt.NDArray[np.uint8]] = []

    def put(self, piece: Piece, transfer: Transfer, patch: int) -> None:
        """Adds what one tile makes of one latent frame; `patch` is pixels a side of what the tile counts."""
        frames = np.stack(list(transfer.frames()))
        rows, columns = _in_pixels(piece, patch)
        height, width = (size * patch for size in piece.size)
        if piece.index == len(self._chunks):
            self._chunks.append(np.empty((len(frames), height, width, 3), np.uint8))
        self._chunks[piece.index][:, slice(*rows), slice(*columns)] = frames

    def frames(self) -> Iterator[Frame]:
        """All of them, in order; none where there were no pieces."""
        for chunk in self._chunks:
            yield from chunk


def ahead(pieces: Iterator[Piece]) -> Iterator[tuple[Piece, Transfer]]:
    """Each piece with its transfer, which starts before the one before is handed out."""
    before: tuple[Piece, Transfer] | None = None
    for piece in pieces:
        now = piece, Transfer(piece.values)
        if before is not None:
            yield before
        before = now
    if before is not None:
        yield before


def put_pixels(piece: Piece, whole: Tensor, patch: int) -> None:
    """Writes a piece (1, 3, F, H, W) where it belongs in whole frames on the device."""
    rows, columns = _in_pixels(piece, patch)
    whole[..., slice(*rows), slice(*columns)] = piece.values


def _in_pixels(piece: Piece, patch: int) -> tuple[tuple[int, int], tuple[int, int]]:
    (top, bottom), (left, right) = piece.tile.rows[-1], piece.tile.columns[-1]
    return (top * patch, bottom * patch), (left * patch, right * patch)


def _pinned(tensor: Tensor) -> Tensor:
    """A copy in pinned memory, where the host need not wait to start it."""
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return copy.copy_(tensor, non_blocking=True)
