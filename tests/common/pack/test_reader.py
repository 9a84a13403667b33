from __future__ import annotations

import contextlib
import json
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wan22.pack import planes
from wan22.pack.malformed import MalformedFile
from wan22.pack.reader import PackedFile, unpack_file

from .files import bf16, float32, packed, safetensors, sealed

SMALL = safetensors({"w": ("BF16", bf16(4_000)), "v": ("F32", float32(1_000)), "n": ("U8", b"1234")})


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return packed(tmp_path_factory.mktemp("pack"), SMALL).read_bytes()


def unpack(tmp_path: Path, content: bytes) -> bytes:
    (tmp_path / "pack").write_bytes(content)
    unpack_file(tmp_path / "pack", tmp_path / "back", lambda _: None)
    return (tmp_path / "back").read_bytes()


@pytest.mark.parametrize(
    ("position", "value", "why"),
    [
        (0, b"PK", "does not begin with a pack's header"),
        (8, struct.pack("<I", 3), "version 3, and this program knows 2: update it"),
        (8, struct.pack("<I", 1), "version 1, and this program knows 2: import the model again"),
        (16, struct.pack("<Q", 5), "extents decode to 12253 bytes, the source has 5"),
        (24, struct.pack("<Q", 5), "header says 5 bytes"),
        (32, b"\0" * 32, "was made of blake3:0000"),
        (64, struct.pack("<Q", 0), "extent 0 is said to hold byte 0 at 0, where byte 0 belongs at 4096"),
        (64 + 72, struct.pack("<Q", 4096), "extent 1 is said to hold byte .* at 4096, where"),  # over the first
        (64 + 72, struct.pack("<Q", 1 << 60), "extent 1 is said to hold"),  # out of the file
        (64 + 72 + 8, struct.pack("<Q", 1 << 50), r"extent 1 \(PLANES_ZSTD\) is said to have"),
        (64 + 72 + 16, struct.pack("<Q", 1), "extent 1 is said to hold byte 1 at"),
        (64 + 72 + 24, struct.pack("<Q", 1 << 40), "extent 1 is said to decode to 1099511627776"),  # a bomb
        (64 + 72 + 24, struct.pack("<Q", 8_001), "extent 1 is said to decode to 8001"),  # half a word
        (64 + 72 + 32, struct.pack("<I", 9), "extent 1 has codec 9"),
        (64 + 72 + 36, struct.pack("<I", 3), "words of 3 bytes"),
        (64 + 72 + 40, b"\0" * 32, "the extent at 8192 .* has digest blake3:.*, not blake3:0000"),
    ],
)
def test_a_header_that_lies_is_refused_by_extent(
    tmp_path: Path, pack: bytes, position: int, value: bytes, why: str
) -> None:
    count = struct.unpack_from("<I", pack, 12)[0]
    with pytest.raises(MalformedFile, match=why):
        unpack(tmp_path, sealed(pack, position, value, count))


@pytest.mark.parametrize("count", [0, 1 << 31, (1 << 32) - 1])
def test_a_number_of_extents_that_does_not_fit_is_refused(tmp_path: Path, pack: bytes, count: int) -> None:
    with pytest.raises(MalformedFile, match=f"claims {count} extents"):
        unpack(tmp_path, pack[:12] + struct.pack("<I", count) + pack[16:])


def test_a_cut_or_longer_pack_is_refused(tmp_path: Path, pack: bytes) -> None:
    for content in (b"", pack[:40], pack[:1000], pack[:-1], pack + b"\0"):
        with pytest.raises(MalformedFile):
            unpack(tmp_path, content)


def test_a_bit_flipped_in_an_extent_names_it(tmp_path: Path, pack: bytes) -> None:
    damaged = bytearray(pack)
    damaged[8192 + 100] ^= 1
    with pytest.raises(MalformedFile, match=r"the extent at 8192 .*digest"):
        unpack(tmp_path, bytes(damaged))


def test_the_source_header_is_read_without_its_weights(tmp_path: Path, pack: bytes) -> None:
    (tmp_path / "pack").write_bytes(pack)
    with PackedFile(tmp_path / "pack") as opened:
        header = opened.safetensors_header()
    assert [(t.name, t.dtype, t.shape) for t in header.tensors] == [
        ("w", "BF16", (4_000,)),
        ("v", "F32", (1_000,)),
        ("n", "U8", (4,)),
    ]
    assert header.tensors[-1].end == len(SMALL)


def encoded(data: bytes, word: int) -> bytes:
    room = memoryview(bytearray(2 * len(data) + 4096))
    size = planes.encode(memoryview(data), word, room)
    assert size is not None
    return bytes(room[:size])


@pytest.mark.parametrize("word", [1, 2, 4])
def test_words_that_the_target_has_no_room_for_are_not_encoded(word: int) -> None:
    data = bf16(150_000 * word)
    size = len(encoded(data, word))
    target = memoryview(bytearray(size + 8))
    assert planes.encode(memoryview(data), word, target) == size
    for less in (size - 1, size // 2, 5, 0):
        assert planes.encode(memoryview(data), word, target[:less]) is None


def test_a_frame_that_claims_more_than_its_place_is_refused_before_it_is_decoded() -> None:
    import zstandard

    bomb = zstandard.compress(bytes(1 << 30))
    stored = struct.pack("<I", len(bomb)) + bomb
    with pytest.raises(MalformedFile, match="frame 0 claims 1073741824 bytes, not 1000"):
        planes.decode(stored, 1000, 1)


@given(count=st.integers(0, 300_000), word=st.sampled_from([1, 2, 4]), seed=st.integers(0, 9))
@settings(max_examples=40)
def test_any_words_come_back(count: int, word: int, seed: int) -> None:
    data = bf16(count * word // 2 + 1, seed)[: count * word]
    assert planes.decode(encoded(data, word), len(data), word) == data


@given(stored=st.binary(max_size=400), length=st.integers(1, 4096), word=st.sampled_from([1, 2, 4]))
@settings(max_examples=1_000)
def test_any_bytes_decode_to_the_length_or_are_refused(stored: bytes, length: int, word: int) -> None:
    with contextlib.suppress(MalformedFile):
        assert len(planes.decode(stored, length // word * word, word)) == length // word * word


@given(data=st.data())
@settings(max_examples=1_000)
def test_any_change_of_header_table_or_extents_is_found(tmp_path: Path, pack: bytes, data: st.DataObject) -> None:
    count = struct.unpack_from("<I", pack, 12)[0]
    position = data.draw(st.integers(0, 64 + 72 * count - 1) | st.sampled_from(range(64, 64 + 72 * count, 4)))
    value = data.draw(st.binary(min_size=1, max_size=8) | st.integers(0, 1 << 32).map(lambda n: struct.pack("<Q", n)))
    value = value[: 64 + 72 * count - position]
    changed = sealed(pack, position, value, count)
    if changed == pack:
        assert unpack(tmp_path, changed) == SMALL
        return
    with pytest.raises(MalformedFile):
        unpack(tmp_path, changed)


@given(data=st.data())
@settings(max_examples=1_000)
def test_any_frames_under_a_right_digest_are_bytes_or_refused(data: st.DataObject) -> None:
    good = bytearray(encoded(bf16(3_000), 2))
    for _ in range(data.draw(st.integers(1, 6))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    del good[data.draw(st.integers(len(good) - 20, len(good))) :]
    with contextlib.suppress(MalformedFile):
        assert len(planes.decode(bytes(good), 6_000, 2)) == 6_000


def test_json_in_the_source_header_is_held_against_its_size(tmp_path: Path) -> None:
    lying = json.dumps({"w": {"dtype": "BF16", "shape": [3], "data_offsets": [0, 8]}}).encode()
    with pytest.raises(MalformedFile, match="needs 6"):
        packed(tmp_path, struct.pack("<Q", len(lying)) + lying + bytes(8))
