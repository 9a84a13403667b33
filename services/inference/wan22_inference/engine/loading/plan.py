"""What is read when, and where it goes: batches of neighbouring extents, each in segments of tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wan22.pack.layout import ALIGNMENT, Codec, Extent, aligned
from wan22.pack.malformed import MalformedFile
from wan22.pack.planes import count_frames
from wan22.pack.safetensors_header import StoredTensor
from wan22_inference.engine.loading.sources import Source, blaming

Place = Callable[[str, tuple[int, ...]], Tensor]
"""Gives the tensor, contiguous, that a stored one of this name and shape goes into; it may raise."""
MAX_PIECES = 512
"""Of a batch, so that its tables are small."""
MAX_FRAMES = 512
"""Of a batch, or of one extent: more than any of trained weights has, but zeros take no room in a file. A device keeps
128 KiB of each decoded beside the weights."""
_DTYPES = {
    "BOOL": torch.bool,
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


class Slot:
    """A tensor that is being filled with stored bytes, and cast where it is of another dtype than the file's."""

    def __init__(self, tensor: Tensor, stored: torch.dtype) -> None:
        self.tensor = tensor
        self.stored = stored
        same = tensor.dtype is stored
        self.bytes: Tensor | None = tensor.detach().view(-1).view(torch.uint8) if same else None
        """Memory that takes bytes as they are stored; None where each put casts."""
        self._whole: Tensor | None = None

    def take_whole(self) -> None:
        """Casts at the end only: for a tensor that is cut within an item."""
        if self.bytes is None:
            self._whole = torch.empty(self.tensor.numel(), dtype=self.stored, device=self.tensor.device)
            self.bytes = self._whole.view(torch.uint8)

    def put(self, at: int, data: Tensor) -> None:
        """Puts stored bytes, uint8 on any device, at an offset in bytes as stored; whole items unless `bytes` is there.

        Memory of the host that is pinned must stay as it is until the current stream has passed.
        """
        if self.bytes is not None:
            self.bytes[at : at + len(data)].copy_(data, non_blocking=True)
            return
        moved = data.to(self.tensor.device, non_blocking=True)
        if moved.data_ptr() % self.stored.itemsize or moved.storage_offset() % self.stored.itemsize:
            moved = moved.clone()
        values, begin = moved.view(self.stored), at // self.stored.itemsize
        self.tensor.detach().view(-1)[begin : begin + len(values)].copy_(values)

    def finish(self) -> None:
        """To be called when all bytes are put."""
        if self._whole is not None:
            self.tensor.detach().view(-1).copy_(self._whole)
            self._whole = None


@dataclass(frozen=True)
class Segment:
    """A part of one tensor in one extent."""

    slot: Slot
    at: int
    """First byte in the tensor as stored."""
    begin: int
    """First byte in the decoded extent."""
    length: int


@dataclass(frozen=True)
class Piece:
    """An extent and what it holds of tensors."""

    extent: Extent
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class Batch:
    """Extents that lie one after the other in a file, read together."""

    source: Source
    offset: int
    """First byte in the file, a multiple of ALIGNMENT."""
    size: int
    """Bytes, up to a multiple of ALIGNMENT; the file may end before."""
    pieces: tuple[Piece, ...]

    @property
    def stored_bytes(self) -> int:
        """Of its extents."""
        return sum(piece.extent.size for piece in self.pieces)


class Plan:
    """How files become tensors, made while it is carried out: a device takes its time to give memory."""

    def __init__(self, sources: Sequence[Source], place: Place, batch_bytes: int) -> None:
        """For batches of at most `batch_bytes` as stored and MAX_FRAMES frames, or of one extent."""
        self._sources = sources
        self._place = place
        self._batch_bytes = batch_bytes
        self.slots: list[Slot] = []
        """So far."""

    @property
    def size(self) -> int:
        """Bytes of the tensors so far, as stored."""
        return sum(slot.tensor.numel() * slot.stored.itemsize for slot in self.slots)

    def batches(self) -> Iterator[Batch]:
        """Yields the batches in the order to load in; places each tensor before its first one.

        Raises DataLoss for a dtype that no model here has, and what `place` raises.
        """
        for source in self._sources:
            with blaming(source.name):
                slots = (self._slot(source, tensor) for tensor in source.header.tensors)
                yield from _batches(source, _pieces(source, slots), self._batch_bytes)

    def _slot(self, source: Source, tensor: StoredTensor) -> Slot:
        dtype = _DTYPES.get(tensor.dtype)
        if dtype is None:
            raise MalformedFile(f"{tensor.name} has the dtype {tensor.dtype}, which no model here has")
        slot = Slot(self._place(tensor.name, tensor.shape), dtype)
        if any((cut - tensor.begin) % dtype.itemsize for cut in source.cuts(tensor)):
            slot.take_whole()
        self.slots.append(slot)
        return slot


def _pieces(source: Source, slots: Iterator[Slot]) -> Iterator[Piece]:
    tensors = zip(source.header.tensors, slots, strict=True)
    current = next(tensors, None)
    for extent in source.extents:
        end, segments = extent.begin + extent.length, []
        while current is not None and current[0].begin < end:
            tensor, slot = current
            begin, until = max(tensor.begin, extent.begin), min(tensor.end, end)
            if until > begin:
                segments.append(Segment(slot, begin - tensor.begin, begin - extent.begin, until - begin))
            if tensor.end > end:
                break
            current = next(tensors, None)
        yield Piece(extent, tuple(segments))
    for _ in tensors:
        pass  # those without items at the end are placed too


def _batches(source: Source, pieces: Iterator[Piece], batch_bytes: int) -> Iterator[Batch]:
    together: list[Piece] = []
    frames = 0
    for piece in pieces:
        begin = (together[0] if together else piece).extent.offset // ALIGNMENT * ALIGNMENT
        too_long = aligned(piece.extent.offset + piece.extent.size) - begin > batch_bytes
        more = _frames(piece.extent)
        if together and (too_long or len(together) == MAX_PIECES or frames + more > MAX_FRAMES):
            yield _batch(source, together)
            together, frames = [], 0
        together.append(piece)
        frames += more
    if together:
        yield _batch(source, together)


def _frames(extent: Extent) -> int:
    return count_frames(extent.length, extent.word) if extent.codec is Codec.PLANES_ZSTD else 0


def _batch(source: Source, pieces: Sequence[Piece]) -> Batch:
    offset = pieces[0].extent.offset // ALIGNMENT * ALIGNMENT
    last = pieces[-1].extent
    return Batch(source, offset, aligned(last.offset + last.size) - offset, tuple(pieces))
