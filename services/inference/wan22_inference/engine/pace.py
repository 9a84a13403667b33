"""Keeps the host close to the device, so that a stop takes effect soon."""

from __future__ import annotations

from collections import deque

import torch

from wan22_inference.engine.progress import ShouldStop, check_stop

MAX_BLOCKS_AHEAD = 2
"""Blocks whose work the host may have queued: enough that the device never waits, and 0.4 s at the largest size."""


class Pace:
    """Looked at before each block of a DiT: waits until the device is at most two blocks behind, then for a stop."""

    def __init__(self, device: torch.device, should_stop: ShouldStop) -> None:
        self._stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
        self._should_stop = should_stop
        self._queued: deque[torch.cuda.Event] = deque()

    def check(self) -> None:
        """Raises Cancelled when the caller wants the work to end. Without it the host would queue a whole forward."""
        if self._stream is not None:
            event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]  # blocking: the thread sleeps
            self._queued.append(self._stream.record_event(event))
            if len(self._queued) > MAX_BLOCKS_AHEAD:
                self._queued.popleft().synchronize()
        check_stop(self._should_stop)
