from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest

from wan22.pack.layout import ALIGNMENT
from wan22.pack.page_writer import PageWriter


@pytest.fixture
def pages() -> memoryview:
    """Of other content than zeros."""
    view = memoryview(mmap.mmap(-1, 8 * ALIGNMENT))
    view[:] = bytes(range(1, 129)) * (len(view) // 128)
    return view


@pytest.mark.parametrize("length", [1, ALIGNMENT - 1, ALIGNMENT, ALIGNMENT + 1, 8 * ALIGNMENT])
def test_bytes_are_written_with_zeros_up_to_a_whole_page(tmp_path: Path, pages: memoryview, length: int) -> None:
    expected = bytes(pages[:length])
    with PageWriter(tmp_path / "file") as file:
        file.write(0, pages, length)
    content = (tmp_path / "file").read_bytes()
    assert content == expected + bytes(-length % ALIGNMENT)


def test_what_is_written_in_any_order_lies_where_it_belongs(tmp_path: Path, pages: memoryview) -> None:
    (tmp_path / "file").write_bytes(b"old" * 100_000)
    with PageWriter(tmp_path / "file") as file:
        file.write(3 * ALIGNMENT, pages, ALIGNMENT)
        file.write(0, pages, ALIGNMENT)
    page = bytes(pages[:ALIGNMENT])
    assert (tmp_path / "file").read_bytes() == page + bytes(2 * ALIGNMENT) + page


def test_what_cannot_be_written_directly_goes_through_the_page_cache(tmp_path: Path, pages: memoryview) -> None:
    shifted = pages[1:]  # no disk takes this address
    expected = bytes(shifted[: 5 * ALIGNMENT])
    with PageWriter(tmp_path / "file") as file:
        file.write(0, shifted, 5 * ALIGNMENT)
        file.write(5 * ALIGNMENT, pages, ALIGNMENT)
    assert (tmp_path / "file").read_bytes() == expected + bytes(pages[:ALIGNMENT])


def test_what_does_not_go_at_all_is_an_error(pages: memoryview) -> None:
    with PageWriter(Path("/dev/full")) as file, pytest.raises(OSError, match=os.strerror(28)):
        file.write(0, pages, ALIGNMENT)
