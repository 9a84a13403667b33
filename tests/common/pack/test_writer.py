from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from wan22.pack import writer
from wan22.pack.hashing import digest_of
from wan22.pack.layout import ALIGNMENT, EXTENT_BYTES, Codec
from wan22.pack.malformed import MalformedFile
from wan22.pack.ordered import AHEAD, MOST_THREADS
from wan22.pack.reader import PackedFile, unpack_file
from wan22.pack.writer import pack_file

from .files import bf16, mixed, packed, safetensors


def test_what_was_packed_comes_back_byte_for_byte(tmp_path: Path) -> None:
    content = mixed()
    heard: list[int] = []
    unpack_file(packed(tmp_path, content), tmp_path / "back", heard.append)
    assert (tmp_path / "back").read_bytes() == content
    assert heard[-1] == len(content)


def test_extents_are_aligned_cover_the_source_in_order_and_use_each_codec(tmp_path: Path) -> None:
    content = mixed()
    path = packed(tmp_path, content)
    with PackedFile(path) as pack:
        extents = pack.layout.extents
        assert pack.layout.source_digest == digest_of(content)
    assert [extent.offset % ALIGNMENT for extent in extents] == [0] * len(extents)
    assert [e.begin for e in extents] == [0, *(e.begin + e.length for e in extents[:-1])]
    assert max(extent.length for extent in extents) == EXTENT_BYTES
    kinds = [(extent.codec, extent.word) for extent in extents]
    two, four, one, plain = (Codec.PLANES_ZSTD, 2), (Codec.PLANES_ZSTD, 4), (Codec.PLANES_ZSTD, 1), (Codec.NONE, 1)
    # header, a in two extents, c, steps, eight, random with half: random alone would gain nothing
    assert kinds == [plain, two, two, four, plain, one, plain]
    assert path.stat().st_size % ALIGNMENT == 0


def test_weights_take_at_most_69_hundredths_and_noise_no_more_than_itself(tmp_path: Path) -> None:
    weights, noise = bf16(8_000_000), hashlib.shake_256(b"noise").digest(4_000_000)
    stored = packed(tmp_path, safetensors({"w": ("BF16", weights)})).stat().st_size
    assert 0.6 < stored / len(weights) < 0.68
    assert packed(tmp_path, safetensors({"w": ("BF16", noise)})).stat().st_size < len(noise) + 4 * ALIGNMENT


def test_equal_files_have_equal_packs(tmp_path: Path) -> None:
    assert packed(tmp_path, mixed()).read_bytes() == packed(tmp_path, mixed()).read_bytes()


def test_many_cores_make_the_same_pack_in_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rooms: list[object] = []

    class Counted(writer._Room):
        def __init__(self) -> None:
            super().__init__()
            rooms.append(self)

    monkeypatch.setattr(writer, "EXTENT_BYTES", 64 << 10)
    monkeypatch.setattr(writer, "_Room", Counted)
    content = safetensors({"w": ("BF16", bf16(100 * 32 << 10))})
    on_few = packed(tmp_path, content).read_bytes()
    rooms.clear()
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(128)))
    assert packed(tmp_path, content).read_bytes() == on_few
    assert 1 <= len(rooms) <= MOST_THREADS + AHEAD + writer.WRITES + 1
    unpack_file(tmp_path / "w.safetensors.pack", tmp_path / "back", lambda _: None)
    assert (tmp_path / "back").read_bytes() == content


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"", "has 0 bytes"), (b"\x80\x04\x95" + b"pickle" * 9, "header is said"), (mixed()[:-1], "tensors end at")],
)
def test_what_is_no_safetensors_file_is_not_packed(tmp_path: Path, content: bytes, why: str) -> None:
    with pytest.raises(MalformedFile, match=why):
        packed(tmp_path, content)


def test_a_caller_can_end_it(tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(done: int) -> None:
        raise Stopped(done)

    source = tmp_path / "w.safetensors"
    source.write_bytes(mixed())
    with pytest.raises(Stopped):
        pack_file(source, tmp_path / "pack", stop)
