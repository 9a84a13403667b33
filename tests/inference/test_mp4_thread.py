from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from wan22_inference.engine.frame import Frame
from wan22_inference.engine.mp4 import Mp4Writer
from wan22_inference.engine.mp4_thread import Mp4Thread

FRAMES: list[Frame] = list(np.random.default_rng(1).integers(0, 256, (20, 64, 96, 3), dtype=np.uint8))


def opener(path: Path) -> partial[Mp4Writer]:
    return partial(Mp4Writer, path, width=96, height=64, fps=16, recipe=None)


def test_the_thread_writes_the_bytes_that_the_writer_alone_writes(tmp_path: Path) -> None:
    with opener(tmp_path / "alone.mp4")() as writer:
        for frame in FRAMES:
            writer.write(frame)
    with Mp4Thread(opener(tmp_path / "thread.mp4")) as thread:
        for frame in FRAMES:
            thread.write(frame)
    thread.written.result(timeout=30)
    assert (tmp_path / "thread.mp4").read_bytes() == (tmp_path / "alone.mp4").read_bytes()


def test_a_disk_that_fails_is_told_to_whoever_waits(tmp_path: Path) -> None:
    with Mp4Thread(opener(tmp_path / "missing" / "v.mp4")) as thread:
        pass
    with pytest.raises(FileNotFoundError):
        thread.written.result(timeout=30)


def test_an_error_between_frames_ends_the_thread_at_once_and_the_path_is_free(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    thread = Mp4Thread(opener(path))
    with pytest.raises(RuntimeError, match="out of memory"), thread:
        _fail_after_a_frame(thread)
    assert thread.written.done()
    with Mp4Thread(opener(path)) as again:
        again.write(FRAMES[0])
    again.written.result(timeout=30)
    assert path.stat().st_size > 0


def _fail_after_a_frame(thread: Mp4Thread) -> None:
    thread.write(FRAMES[0])
    raise RuntimeError("out of memory")
