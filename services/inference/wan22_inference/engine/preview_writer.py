"""Takes previews off the device beside the denoise loop, which never waits for it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from wan22_inference.engine.host_stream import HostStream
from wan22_inference.engine.preview import ShowPreview, make_preview

log = logging.getLogger(__name__)


class PreviewWriter:
    """Shows a preview after every `interval` steps of a video of so many seconds. Use as a context manager.

    While one is being made the next is passed over. What goes wrong costs previews, never the generation: it is
    logged, and there are no more of them.
    """

    def __init__(self, device: torch.device, interval: int, seconds: float, show: ShowPreview) -> None:
        self._interval = interval
        self._seconds = seconds
        self._show = show
        self._stream = HostStream(device)
        self._executor = ThreadPoolExecutor(1, "preview")
        self._pending: Future[None] | None = None
        self._failed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)

    def offer(self, step: int, num_steps: int, make: Callable[[], Tensor]) -> None:
        """Takes the pictures (F, h, w, 3) uint8 that `make` returns, if it is their turn."""
        if self._failed or step % self._interval or (self._pending is not None and not self._pending.done()):
            return
        try:
            copies, copied = self._stream.copy({"pictures": make()})
        except RuntimeError as error:  # want of memory, too
            self._give_up(step, error)
            return
        self._pending = self._executor.submit(self._finish, step, num_steps, copies["pictures"], copied)

    def _finish(self, step: int, num_steps: int, pictures: Tensor, copied: torch.cuda.Event | None) -> None:
        try:
            if copied is not None:
                copied.synchronize()
            self._show(make_preview(step, num_steps, pictures.numpy(), self._seconds))
        except (OSError, RuntimeError, ValueError) as error:
            self._give_up(step, error)

    def _give_up(self, step: int, error: Exception) -> None:
        self._failed = True
        log.warning("No previews are made from step %d on: %s", step, error)
