"""A file of weights as the loader sees it: where its tensors lie, and in which extents it is stored."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from wan22.errors import DataLoss, Reason
from wan22.pack.layout import EXTENT_BYTES, PACKED_SUFFIX, Codec, Extent
from wan22.pack.malformed import MalformedFile
from wan22.pack.reader import PackedFile
from wan22.pack.safetensors_header import SafetensorsHeader, StoredTensor, read_header
from wan22_inference.engine.loading.file_reader import FileReader

SUFFIXES = (".safetensors", PACKED_SUFFIX)
"""Endings of the paths of files that hold weights."""


@dataclass(frozen=True)
class Source:
    """An open file of weights, plain safetensors or packed."""

    name: str
    """Its path in the model."""
    reader: FileReader
    header: SafetensorsHeader
    extents: tuple[Extent, ...]
    """Those that hold tensors, in order. A plain file's are pieces of it as they are, without a digest."""

    @property
    def packed(self) -> bool:
        """Whether its extents have digests, and may be compressed."""
        return self.name.endswith(PACKED_SUFFIX)

    def cuts(self, tensor: StoredTensor) -> Sequence[int]:
        """Where extents begin within a tensor, in bytes of the file as it was packed."""
        begins = self._begins
        return begins[bisect_right(begins, tensor.begin) : bisect_left(begins, tensor.end)]

    @cached_property
    def _begins(self) -> Sequence[int]:
        return [extent.begin for extent in self.extents]


def open_source(path: Path, name: str) -> Source:
    """Opens a file whose path in the model is `name`; the caller closes its reader.

    Raises DataLoss for one that is not what its name says. Formats: huggingface.co/docs/safetensors,
    docs/artifact-format.md.
    """
    with blaming(name):
        header, extents = _packed(path) if name.endswith(PACKED_SUFFIX) else _plain(path)
    return Source(name, FileReader(path), header, extents)


def read_tensor_names(path: Path, name: str) -> list[str]:
    """The names of the tensors in a file whose path in the model is `name`. Raises DataLoss as open_source does."""
    with blaming(name):
        header, _ = _packed(path) if name.endswith(PACKED_SUFFIX) else _plain(path)
    return [tensor.name for tensor in header.tensors]


@contextmanager
def blaming(name: str) -> Iterator[None]:
    """Turns what is wrong with a file into DataLoss that names it."""
    try:
        yield
    except MalformedFile as error:
        text = f"{name} is damaged: {error}. Import the model again."
        raise DataLoss(text, reason=Reason.DIGEST_MISMATCH) from error


def _packed(path: Path) -> tuple[SafetensorsHeader, tuple[Extent, ...]]:
    with PackedFile(path) as pack:
        header = pack.safetensors_header()
        return header, tuple(e for e in pack.layout.extents if e.begin + e.length > header.data_begin)


def _plain(path: Path) -> tuple[SafetensorsHeader, tuple[Extent, ...]]:
    size = path.stat().st_size
    with path.open("rb", buffering=0) as file:
        header = read_header(file, size)
    begins = range(header.data_begin, size, EXTENT_BYTES)
    lengths = [min(EXTENT_BYTES, size - begin) for begin in begins]
    return header, tuple(Extent(b, n, b, n, Codec.NONE, 1, b"") for b, n in zip(begins, lengths, strict=True))
