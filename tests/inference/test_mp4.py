from __future__ import annotations

import hashlib
from pathlib import Path
from xml.etree import ElementTree as ET

import av
import numpy as np
import pytest
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

from wan22.errors import InvalidRequest
from wan22.mp4_boxes import read_recipe, read_xmp, video_digest
from wan22.recipe import Recipe
from wan22_inference.engine.frame import Frame
from wan22_inference.engine.mp4 import Mp4Writer


def write(path: Path, frames: list[Frame], fps: int = 16) -> None:
    height, width, _ = frames[0].shape
    with Mp4Writer(path, width=width, height=height, fps=fps, recipe=None) as video:
        for frame in frames:
            video.write(frame)


def read(path: Path) -> list[Frame]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24").astype(np.uint8) for frame in container.decode(video=0)]


def smooth(count: int, seed: int = 0) -> list[Frame]:
    """Frames of soft gradients that move."""
    rows, columns = np.mgrid[:64, :96]
    phases = np.random.default_rng(seed).uniform(0, 6.28, 3)
    frames = []
    for index in range(count):
        channels = [np.sin(rows / 20 + columns / 30 + phase + index / 4) for phase in phases]
        frames.append(((np.stack(channels, axis=2) + 1) * 127.5).round().astype(np.uint8))
    return frames


def test_the_video_has_the_right_count_size_rate_and_tags(tmp_path: Path) -> None:
    write(tmp_path / "v.mp4", smooth(17), fps=24)
    with av.open(str(tmp_path / "v.mp4")) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert (context.width, context.height) == (96, 64)
        assert stream.average_rate == 24
        assert context.color_primaries == ColorPrimaries.BT709
        assert context.color_trc == ColorTrc.BT709
        assert context.colorspace == Colorspace.ITU709
        assert context.color_range == ColorRange.MPEG
        times = [frame.time for frame in container.decode(stream)]
    assert times == pytest.approx([index / 24 for index in range(17)], abs=1e-4)


@pytest.mark.parametrize("count", [1, 5])
def test_a_short_video_has_every_frame(tmp_path: Path, count: int) -> None:
    write(tmp_path / "v.mp4", smooth(count))
    assert len(read(tmp_path / "v.mp4")) == count


@pytest.mark.parametrize(
    "color", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (128, 128, 128), (30, 200, 120)]
)
def test_a_plain_colour_comes_back(tmp_path: Path, color: tuple[int, int, int]) -> None:
    write(tmp_path / "v.mp4", [np.full((64, 96, 3), color, np.uint8)] * 3)
    for frame in read(tmp_path / "v.mp4"):
        np.testing.assert_allclose(frame.mean(axis=(0, 1)), color, atol=2.0)


def test_the_mean_colour_of_each_frame_is_within_two_levels(tmp_path: Path) -> None:
    frames = smooth(9)
    write(tmp_path / "v.mp4", frames)
    for given, decoded in zip(frames, read(tmp_path / "v.mp4"), strict=True):
        np.testing.assert_allclose(decoded.mean(axis=(0, 1)), given.mean(axis=(0, 1)), atol=2.0)
        assert np.abs(decoded.astype(int) - given.astype(int)).mean() < 3.0


def test_equal_frames_give_equal_bytes(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", smooth(9))
    write(tmp_path / "b.mp4", smooth(9))
    write(tmp_path / "c.mp4", smooth(9, seed=1))
    first = (tmp_path / "a.mp4").read_bytes()
    assert first == (tmp_path / "b.mp4").read_bytes()
    assert first != (tmp_path / "c.mp4").read_bytes()
    assert b"Lavf" not in first


def test_equal_frames_give_equal_bytes_whatever_is_in_memory(tmp_path: Path) -> None:
    """x264's macroblock tree, left on, fails this: it reads what the allocator left behind. All threads have work."""
    draw = np.random.default_rng(0)
    frames = [draw.integers(0, 256, (480, 832, 3), dtype=np.uint8) for _ in range(12)]
    contents = set()
    for _ in range(4):
        dirt = [np.full(draw.integers(1000, 400_000), draw.integers(256), np.uint8) for _ in range(20)]
        del dirt
        write(tmp_path / "v.mp4", frames)
        contents.add((tmp_path / "v.mp4").read_bytes())
    assert len(contents) == 1


def test_the_index_comes_before_the_frames(tmp_path: Path) -> None:
    write(tmp_path / "v.mp4", smooth(9))
    content = (tmp_path / "v.mp4").read_bytes()
    assert 0 < content.index(b"moov") < content.index(b"mdat")


def test_the_file_says_that_a_model_made_it_and_holds_its_recipe(tmp_path: Path) -> None:
    recipe = Recipe("t2v-a14b-tiny", "models/m/versions/sha256:00", {"prompt": "猫"}, {"library torch": "2"})
    plain, told = tmp_path / "plain.mp4", tmp_path / "told.mp4"
    frames = [np.zeros((64, 64, 3), np.uint8)] * 3
    for path, held in ((plain, None), (told, recipe)):
        with Mp4Writer(path, width=64, height=64, fps=8, recipe=held) as video:
            for frame in frames:
                video.write(frame)
    assert read_recipe(told) == recipe
    assert video_digest(told) == video_digest(plain)
    assert video_digest(plain) != hashlib.sha256(plain.read_bytes()).hexdigest()  # the mark is a box of wan22, too
    with pytest.raises(InvalidRequest, match="holds no recipe"):
        read_recipe(plain)
    for path in (plain, told):
        packet = ET.fromstring(read_xmp(path) or "")  # noqa: S314  # our own
        (mark,) = packet.iter("{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType")
        assert mark.text == "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
        with av.open(str(path), options={"export_xmp": "1"}) as container:
            assert container.metadata["xmp"] == read_xmp(path)  # FFmpeg finds it too
            assert sum(1 for _ in container.decode(video=0)) == 3


@pytest.mark.parametrize("cut", [0, 4, 20, 200])
def test_a_file_that_is_cut_short_is_no_recipe_and_no_crash(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "v.mp4"
    with Mp4Writer(path, width=64, height=64, fps=8, recipe=Recipe("v", "m", {}, {})) as video:
        video.write(np.zeros((64, 64, 3), np.uint8))
    path.write_bytes(path.read_bytes()[:cut] if cut < 100 else path.read_bytes()[:-10])
    with pytest.raises(InvalidRequest):
        read_recipe(path)
