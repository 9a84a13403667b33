"""The CUDA stream of a lane, as a context; on a CPU there is none, and all is done when a call returns."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import torch


class Stream:
    """A stream of its own on a device, current in the `with` block's thread."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]  # torch's
        self._current: torch.cuda.StreamContext | None = None

    def __enter__(self) -> Self:
        if self._stream is not None:
            self._current = torch.cuda.stream(self._stream)
            self._current.__enter__()  # type: ignore[no-untyped-call]  # torch's
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._current is not None:
            self._current.__exit__(kind, error, trace)

    @property
    def handle(self) -> int:
        """As the CUDA runtime has it."""
        return 0 if self._stream is None else self._stream.cuda_stream

    def mark(self) -> torch.cuda.Event | None:
        """A point in the stream that can be waited for."""
        return None if self._stream is None else self._stream.record_event()

    def follow(self, other: Stream) -> None:
        """What comes next waits for what the other stream has now."""
        if self._stream is not None and other._stream is not None:
            self._stream.wait_stream(other._stream)

    def follow_computing(self) -> None:
        """What comes next waits for what the device's default stream has now."""
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.default_stream(self._stream.device))

    def synchronize(self) -> None:
        """Returns when all of it is done."""
        if self._stream is not None:
            self._stream.synchronize()
