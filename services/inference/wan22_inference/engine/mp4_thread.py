"""Writes a video in a thread of its own, so that the device goes on meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from types import TracebackType
from typing import Self

from wan22_inference.engine.frame import Frame
from wan22_inference.engine.mp4 import Mp4Writer


class _Abandoned(Exception):  # no error: the frames have ended before the video
    pass


class Mp4Thread:
    """Takes frames as they come and never waits for the encoder; use as a context manager, then wait for `written`.

    Frames that are not encoded yet stay in host memory: a video's at most, 0.2 GB at 1280x720x81.
    """

    def __init__(self, open_writer: Callable[[], Mp4Writer]) -> None:
        self._frames: SimpleQueue[Frame | None] = SimpleQueue()
        self._abandoned = False
        executor = ThreadPoolExecutor(1, "mp4")
        self.written: Future[None] = executor.submit(self._write, open_writer)
        """Done when the file is whole; its error is what the encoder or the disk raised."""
        executor.shutdown(wait=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._abandoned = kind is not None
        self._frames.put(None)
        if kind is not None:
            self.written.exception()  # waits: the path may be written again at once

    def write(self, frame: Frame) -> None:
        """Appends one frame. Raises what the encoder or the disk raised meanwhile."""
        if self.written.done():
            self.written.result()
        self._frames.put(frame)

    def _write(self, open_writer: Callable[[], Mp4Writer]) -> None:
        with open_writer() as writer:
            while (frame := self._frames.get()) is not None:
                if not self._abandoned:
                    writer.write(frame)
            if self._abandoned:
                raise _Abandoned
