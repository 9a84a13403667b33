"""Frames to an H.264 MP4 whose bytes depend on the frames alone."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

import av
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from av.video.stream import VideoStream

from wan22.mp4_boxes import append_boxes
from wan22.recipe import Recipe
from wan22_inference.engine.frame import Frame

CRF = "16"
"""Visually lossless for H.264: the video is watched, and may be edited."""
PRESET = "faster"
"""Half the time of x264's own medium for as many bytes, and less than 0.1 dB: a video of noise, which is the most work,
then is encoded as fast as its frames come."""
THREADS = 8
"""Of the encoder, on every machine: x264's bytes depend on how many there are, and not on how they take turns."""


class Mp4Writer:
    """Encodes RGB frames as they come: H.264, yuv420p, BT.709 limited range and tagged so, index in front.

    Use as a context manager; after an error the file is not to be used. As many encoder threads everywhere and no clock
    in the file, so that equal frames and recipes give equal bytes. The file says that a model made it, and holds the
    recipe.
    """

    def __init__(self, path: Path, *, width: int, height: int, fps: int, recipe: Recipe | None) -> None:
        self._path = path
        self._recipe = recipe
        options = {"movflags": "+faststart", "fflags": "+bitexact"}
        self._container = av.open(str(path), "w", format="mp4", options=options)
        self._stream = self._open_stream(width, height, fps)

    def _open_stream(self, width: int, height: int, fps: int) -> VideoStream:
        # x264's macroblock tree reads memory that it has not written: with it, equal frames give two or three files.
        options = {"crf": CRF, "preset": PRESET, "threads": str(THREADS), "mbtree": "0"}
        stream = self._container.add_stream("libx264", rate=fps, options=options)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.color_primaries = ColorPrimaries.BT709
        context.color_trc = ColorTrc.BT709
        context.colorspace = Colorspace.ITU709
        context.color_range = ColorRange.MPEG
        context.thread_count = THREADS
        return stream

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self._container.mux(self._stream.encode(None))
        self._container.close()
        if kind is None:
            append_boxes(self._path, self._recipe)

    def write(self, frame: Frame) -> None:
        """Appends one frame."""
        picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(
            format="yuv420p",
            src_color_range=ColorRange.JPEG,  # RGB has full range
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
        )
        self._container.mux(self._stream.encode(picture))
