"""Packs of which anything may be wrong, under a seal that is right: read as a worker does, or refused."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wan22.pack.malformed import MalformedFile
from wan22.pack.reader import PackedFile, unpack_file

from .files import bf16, float32, packed, safetensors, sealed

SOURCE = safetensors({"w": ("BF16", bf16(4_000)), "v": ("F32", float32(1_000)), "n": ("U8", b"1234")})
HEADER, ENTRY = 64, 72
WIDTHS = {0: 8, 8: 4, 12: 4, 16: 8, 24: 8}
"""Offset of each number of the header -> its bytes."""
COLUMNS = {0: 8, 8: 8, 16: 8, 24: 8, 32: 4, 36: 4}
"""The same of an entry of the table."""


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return packed(tmp_path_factory.mktemp("fuzzed"), SOURCE).read_bytes()


def numbers(width: int) -> st.SearchStrategy[bytes]:
    """Near 0, near what is usual, near every power of two, and the rest."""
    edges = st.builds(lambda bit, off: (1 << bit) + off, st.integers(0, 8 * width - 1), st.integers(-2, 2))
    return (edges | st.integers(0, 20_000)).map(lambda n: (n % (1 << 8 * width)).to_bytes(width, "little"))


@st.composite
def changes(draw: st.DrawFn, count: int) -> list[tuple[int, bytes]]:
    """Other values in header and table: numbers where numbers are, and any bytes."""
    found = []
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["header", "table", "bytes"]))
        if kind == "bytes":
            position = draw(st.integers(0, HEADER + ENTRY * count - 1))
            value = draw(st.binary(min_size=1, max_size=40))[: HEADER + ENTRY * count - position]
        else:
            columns = WIDTHS if kind == "header" else COLUMNS
            column = draw(st.sampled_from(sorted(columns)))
            entry = 0 if kind == "header" else HEADER + ENTRY * draw(st.integers(0, count - 1))
            position, value = entry + column, draw(numbers(columns[column]))
        found.append((position, value))
    return found


def check(folder: Path, pack: bytes, data: st.DataObject) -> None:
    """A changed pack is the source still, or refused with a text; never another error, nor other bytes."""
    (count,) = struct.unpack_from("<I", pack, 12)
    changed = pack
    for position, value in data.draw(changes(count)):
        changed = sealed(changed, position, value, count)
    cut = data.draw(st.none() | st.integers(0, len(pack)) | st.binary(max_size=100))
    changed = changed[:cut] if isinstance(cut, int) else changed + (cut or b"")
    if data.draw(st.booleans()):  # extents with other bytes
        damage = random.Random(data.draw(st.integers(0, 1 << 32)))
        body = bytearray(changed)
        for _ in range(min(3, len(body))):
            body[damage.randrange(len(body))] = damage.randrange(256)
        changed = bytes(body)
    path = folder / "pack"
    path.write_bytes(changed)
    try:
        with PackedFile(path) as opened:
            opened.safetensors_header()
        unpack_file(path, folder / "back", lambda _: None)
    except MalformedFile as error:
        assert str(error)  # noqa: PT017  # taking it is right too
    else:
        assert (folder / "back").read_bytes() == SOURCE


@given(data=st.data())
@settings(max_examples=400)
def test_four_hundred_packs_with_anything_wrong_are_the_source_or_refused(
    tmp_path: Path, pack: bytes, data: st.DataObject
) -> None:
    check(tmp_path, pack, data)


@pytest.mark.long
@pytest.mark.timeout(1800)
@given(data=st.data())
@settings(max_examples=10_000)
def test_ten_thousand_packs_with_anything_wrong_are_the_source_or_refused(
    tmp_path: Path, pack: bytes, data: st.DataObject
) -> None:
    check(tmp_path, pack, data)
