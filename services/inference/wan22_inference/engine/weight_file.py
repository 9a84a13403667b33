"""Reads weights, plain safetensors or packed, tensor by tensor into memory of their own, without mapping the file.

A mapped file would be read page by page whenever the kernel likes, from a volume that may be slow or go away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from wan22.errors import DataLoss, Reason
from wan22.pack.layout import PACKED_SUFFIX
from wan22.pack.malformed import MalformedFile
from wan22.pack.reader import PackedFile, SourceStream
from wan22.pack.safetensors_header import SafetensorsHeader, StoredTensor, read_header

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
}
SUFFIXES = (".safetensors", PACKED_SUFFIX)
"""Endings of the paths of files that hold weights."""


class _Readable(Protocol):
    def readinto(self, buffer: memoryview, /) -> int | None: ...


def read_tensors(path: Path, name: str, on_bytes: Callable[[int], object]) -> Iterator[tuple[str, Tensor]]:
    """Yields each tensor's name and value, in file order.

    `name` is the file's path in its model, whose ending tells whether it is packed. `on_bytes` hears of as
    many bytes as the file has, in portions. Raises DataLoss for a file that is not what its name says. Formats:
    huggingface.co/docs/safetensors, docs/artifact-format.md.
    """
    size, told = path.stat().st_size, 0
    try:
        with _open(path, name) as (header, file):
            source_size = header.tensors[-1].end if header.tensors else 0
            for tensor in header.tensors:
                yield tensor.name, _read(file, tensor)
                reached = size * tensor.end // source_size
                on_bytes(reached - told)
                told = reached
    except MalformedFile as error:
        text = f"{name} is damaged: {error}. Import the model again."
        raise DataLoss(text, reason=Reason.DIGEST_MISMATCH) from error
    on_bytes(size - told)


@contextmanager
def _open(path: Path, name: str) -> Iterator[tuple[SafetensorsHeader, _Readable]]:
    """The header, and the bytes that come after it."""
    if name.endswith(PACKED_SUFFIX):
        with PackedFile(path) as pack, closing(pack.decode_all()) as extents:
            header, stream = pack.safetensors_header(), SourceStream(extents)
            stream.skip(header.data_begin)
            yield header, stream
    else:
        with path.open("rb", buffering=0) as file:
            yield read_header(file, path.stat().st_size), file


def _read(file: _Readable, tensor: StoredTensor) -> Tensor:
    dtype = _DTYPES.get(tensor.dtype)
    if dtype is None:
        raise MalformedFile(f"{tensor.name} has the dtype {tensor.dtype}, which no model here has")
    data = torch.empty(tensor.end - tensor.begin, dtype=torch.uint8)
    buffer, done = data.numpy().data, 0
    while done < len(buffer):
        count = file.readinto(buffer[done:])
        if not count:
            raise MalformedFile(f"it ends inside {tensor.name}")
        done += count
    return data.view(dtype).reshape(tensor.shape)
