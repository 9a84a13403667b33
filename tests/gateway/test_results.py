from __future__ import annotations

from pathlib import Path

import pytest

from wan22.errors import DataLoss, ResourceExhausted
from wan22_gateway.results import Results

KEY = "videos/one/1-1.mp4"
DATA = bytes(range(256)) * 10_000


async def read(results: Results, offset: int = 0) -> list[bytes]:
    return [chunk async for chunk in results.read(KEY, len(DATA), offset)]


async def test_an_object_is_read_from_an_offset_in_chunks_of_a_mebibyte(tmp_path: Path) -> None:
    results = Results(tmp_path)
    await results.put(KEY, DATA)
    assert await results.size(KEY) == len(DATA)
    chunks = await read(results, 5)
    assert [len(chunk) for chunk in chunks] == [1 << 20, 1 << 20, len(DATA) - 5 - (2 << 20)]
    assert b"".join(chunks) == DATA[5:]
    assert await read(results, len(DATA)) == []


@pytest.mark.parametrize("length", [0, 1 << 20, len(DATA) - 1, len(DATA) + 1])
@pytest.mark.parametrize("offset", [0, 2 << 20])
async def test_an_object_of_another_length_is_a_loss_before_its_first_byte(
    tmp_path: Path, length: int, offset: int
) -> None:
    results = Results(tmp_path)
    await results.put(KEY, DATA)
    (tmp_path / KEY).write_bytes((DATA + b"x")[:length])
    with pytest.raises(DataLoss, match=f"has {length} bytes, not {len(DATA)}"):
        await read(results, offset)


async def test_an_object_that_is_gone_is_a_loss_and_deleting_it_is_none(tmp_path: Path) -> None:
    results = Results(tmp_path)
    for reading in (read(results), results.size(KEY)):
        with pytest.raises(DataLoss, match=f"{KEY} is gone from {tmp_path}"):
            await reading
    await results.delete(KEY)


async def test_a_full_disk_is_named(small_disk: Path) -> None:
    results = Results(small_disk)
    with pytest.raises(ResourceExhausted, match=f"The disk of {small_disk} is full"):
        await results.put(KEY, b"x" * ((4 << 20) + 1))  # of much larger ones the store removes its parts a moment later
    await results.put(KEY, b"it fits")
