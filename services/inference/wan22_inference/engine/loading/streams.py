"""A CUDA stream as a context; on a CPU there is none, and all is done when a call returns."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

import torch


class Mark:
    """A point in a stream that can be waited for, and when its device came to it; on a CPU, when it was made."""

    def __init__(self, stream: torch.cuda.Stream | None, *, awaited: bool = False) -> None:
        self.event: torch.cuda.Event | None = None
        self._at = time.perf_counter()
        if stream is not None:
            # a thread that waits sleeps, where it would keep a core from those that read; the device interrupts for it
            self.event = torch.cuda.Event(enable_timing=True, blocking=awaited)  # type: ignore[no-untyped-call]  # torch's
            self.event.record(stream)

    def is_passed(self) -> bool:
        """Whether the device has come to it."""
        return self.event is None or bool(self.event.query())  # type: ignore[no-untyped-call]  # torch's

    def wait(self) -> None:
        """Returns when the device has come to it."""
        if self.event is not None:
            self.event.synchronize()

    def seconds_since(self, earlier: Mark) -> float:
        """By the device's clock; both have been passed."""
        if self.event is None or earlier.event is None:
            return self._at - earlier._at
        milliseconds: float = earlier.event.elapsed_time(self.event)
        return milliseconds / 1e3


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

    def mark(self, *, awaited: bool = False) -> Mark:
        """The point after what the stream has now; `awaited` if a thread may wait for it."""
        return Mark(self._stream, awaited=awaited)

    def follow(self, other: Stream) -> None:
        """What comes next waits for what the other stream has now."""
        if self._stream is not None and other._stream is not None:
            self._stream.wait_stream(other._stream)

    def wait_for(self, mark: Mark) -> None:
        """What comes next waits for the mark, of any stream."""
        if self._stream is not None and mark.event is not None:
            self._stream.wait_event(mark.event)

    def follow_computing(self) -> None:
        """What comes next waits for what the device's default stream has now."""
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.default_stream(self._stream.device))

    def synchronize(self) -> None:
        """Returns when all of it is done."""
        if self._stream is not None:
            self._stream.synchronize()
