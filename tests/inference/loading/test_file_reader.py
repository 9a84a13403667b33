from __future__ import annotations

import errno
import logging
import mmap
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wan22_inference.engine.loading import file_reader
from wan22_inference.engine.loading.file_reader import PAGE, READ_BYTES, FileReader

SIZE = READ_BYTES + 3 * mmap.PAGESIZE + 100


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reader") / "file"
    path.write_bytes(os.urandom(SIZE))
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return path


def forget(path: Path) -> None:
    """Takes the file out of the page cache."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def has_direct_reads(path: Path) -> bool:
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECT))
    except OSError:
        return False
    return True


def buffer() -> memoryview:
    return memoryview(mmap.mmap(-1, SIZE // mmap.PAGESIZE * mmap.PAGESIZE + 2 * mmap.PAGESIZE))


@settings(max_examples=60)
@given(page=st.integers(0, SIZE // mmap.PAGESIZE), shift=st.integers(0, 100), cached=st.booleans())
def test_a_read_gives_the_bytes_wherever_they_lie_and_ends_with_the_file(
    path: Path, page: int, shift: int, cached: bool
) -> None:
    path.read_bytes() if cached else forget(path)
    offset, into = min(page * mmap.PAGESIZE + shift, SIZE), buffer()
    with FileReader(path) as reader:
        direct = reader.read(offset, into)
    assert bytes(into[: SIZE - offset]) == path.read_bytes()[offset:]
    if cached:
        assert direct == 0


@pytest.mark.parametrize("asked_by", ["cachestat", "mincore"])
def test_what_is_not_cached_is_read_directly_and_stays_out_of_the_cache(
    path: Path, asked_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if asked_by == "mincore":  # as where a kernel, or a container's filter, has no cachestat
        monkeypatch.setattr(file_reader, "_CACHESTAT", 10_000)
    if not has_direct_reads(path):
        pytest.skip(f"{path} is on a file system without direct reads")
    forget(path)
    with FileReader(path) as reader:
        assert not reader.is_cached(0, SIZE)
        assert reader.read(0, buffer()) == SIZE
        assert not reader.is_cached(0, SIZE)
        path.read_bytes()
        assert reader.is_cached(0, SIZE)
        assert reader.read(0, buffer()) == 0


def test_cachestat_and_mincore_tell_the_same_of_every_part(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forget(path)
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)  # no more than what is read
        os.pread(file.fileno(), 3 * PAGE, 2 * PAGE)
    parts = [(0, PAGE), (0, 3 * PAGE), (2 * PAGE, 3 * PAGE), (2 * PAGE + 7, PAGE), (4 * PAGE, 2 * PAGE), (5 * PAGE, 1)]
    with FileReader(path) as reader:
        ours = [reader.is_cached(*part) for part in parts]
        monkeypatch.setattr(file_reader, "_CACHESTAT", 10_000)
        assert ours == [reader.is_cached(*part) for part in parts]
    assert ours == [False, False, True, True, False, False]


def test_a_file_of_which_a_part_is_cached_is_read_from_both(path: Path) -> None:
    if not has_direct_reads(path):
        pytest.skip(f"{path} is on a file system without direct reads")
    forget(path)
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        os.pread(file.fileno(), READ_BYTES, 0)
    into = buffer()
    with FileReader(path) as reader:
        assert reader.read(0, into) == SIZE - READ_BYTES
    assert bytes(into[:SIZE]) == path.read_bytes()


def test_a_buffer_that_is_not_aligned_is_filled_through_the_page_cache(path: Path) -> None:
    forget(path)
    into = buffer()[1:]
    with FileReader(path) as reader:
        assert reader.read(0, into) == 0
    assert bytes(into[:SIZE]) == path.read_bytes()


def test_a_file_system_without_direct_reads_is_told_once(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = os.open

    def refuse(path: str | Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", refuse)
    forget(path)
    into = buffer()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            with FileReader(path) as reader:
                assert reader.read(0, into) == 0
    assert bytes(into[:SIZE]) == path.read_bytes()
    assert [record.message for record in caplog.records] == [
        f"Weights are read through the page cache, since {path.parent} has no direct reads: Invalid argument."
    ]


def test_an_empty_file_has_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with FileReader(tmp_path / "empty") as reader:
        assert reader.read(0, buffer()) == 0
