"""Takes checkpoints off the device beside the denoise loop, which never waits for it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from wan22_inference.engine.checkpoint import Checkpoint, dump
from wan22_inference.engine.host_stream import HostStream

log = logging.getLogger(__name__)

Deliver = Callable[[int, bytes], None]
"""Takes a finished checkpoint: its step and its file. Called in the writer's thread."""


class CheckpointWriter:
    """Delivers a checkpoint at most every `interval` seconds; 0 is after each step. Use as a context manager.

    The copy runs beside the next step's computation. While one is under way no other begins, unless the interval is 0:
    then each waits for the one before.
    """

    def __init__(self, device: torch.device, interval: float, deliver: Deliver) -> None:
        self._deliver = deliver
        self._interval = interval
        self._stream = HostStream(device)
        self._executor = ThreadPoolExecutor(1, "checkpoint")
        self._last = time.monotonic()
        self._pending: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._executor.shutdown(wait=True, cancel_futures=kind is not None)
        if kind is None and self._pending is not None:
            self._pending.result()

    def offer(self, make: Callable[[], Checkpoint]) -> None:
        """Takes the checkpoint if it is time. Raises what delivering the one before raised, other than OSError."""
        if self._pending is not None and (self._pending.done() or self._interval == 0):
            pending, self._pending = self._pending, None
            pending.result()
        if self._pending is not None or time.monotonic() - self._last < self._interval:
            return
        self._last = time.monotonic()
        checkpoint = make()
        copies, copied = self._stream.copy(checkpoint.tensors())
        self._pending = self._executor.submit(self._finish, checkpoint.step, copies, copied)

    def _finish(self, step: int, copies: Mapping[str, Tensor], copied: torch.cuda.Event | None) -> None:
        if copied is not None:
            copied.synchronize()
        try:
            self._deliver(step, dump(copies))
        except OSError as error:  # a full disk, say: the generation goes on, less safely
            log.warning("No checkpoint is kept of step %d: %s", step, error)
