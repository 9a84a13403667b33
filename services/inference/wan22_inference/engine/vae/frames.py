"""Frames on their way from the device to the host, while the device goes on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Frame = npt.NDArray[np.uint8]
"""(height, width, 3), RGB."""


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


def _pinned(tensor: Tensor) -> Tensor:
    """A copy in pinned memory, where the host need not wait to start it."""
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return copy.copy_(tensor, non_blocking=True)
