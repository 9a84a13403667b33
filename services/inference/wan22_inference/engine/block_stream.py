"""A DiT's blocks in host memory, of which a share stays on the device and the rest comes when its turn comes.

While blocks compute, those that come next are copied on a stream of its own: what stays once, in the order in which the
first forward wants it, and what comes and goes into the other of two buffers. The latter lie evenly between the former,
so that the copies have all of a forward's time. The weights are the same, bit for bit, and so is what the blocks make
of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from wan22_inference.engine.loading.locked import host_rooms
from wan22_inference.engine.loading.rooms import laid_out, room_bytes

State = dict[str, Tensor]


@dataclass
class _Room:
    """Memory of the device for a block's weights."""

    memory: Tensor
    """Bytes."""
    used: torch.cuda.Event | None
    """After it, nothing reads or writes what was there before."""
    holds: int | None = None
    """Index of the block whose weights are in it, or on their way."""
    tensors: State = field(default_factory=dict)
    """That block's, in the memory."""
    filled: torch.cuda.Event | None = None


class BlockStream:
    """Gives blocks their weights in order, as often as asked."""

    def __init__(self, blocks: Sequence[nn.Module], device: torch.device) -> None:
        """Takes the blocks' weights to host memory, page-locked where the device is a CUDA device."""
        self._blocks = blocks
        self._device = device
        self._cuda = device.type == "cuda"
        self._copies = torch.cuda.Stream(device) if self._cuda else None  # type: ignore[no-untyped-call]  # torch's
        self._places: list[State] = [block.state_dict(keep_vars=True) for block in blocks]
        self._memory: list[Tensor] = []
        self._host: list[State] = []
        for index, memory in enumerate(host_rooms(list(map(room_bytes, self._places)), device)):
            self._take(index, memory)
        self._resident: dict[int, _Room] = {}
        self._here: set[int] = set()
        """Those of the resident blocks that have come."""
        self._buffers: list[_Room] = []

    @property
    def resident(self) -> int:
        """Blocks that stay on the device."""
        return len(self._resident)

    def set_resident(self, count: int) -> None:
        """Lets `count` of the blocks stay on the device, the smallest; with 0 and no use, nothing of them is there.

        Their memory is taken now; they come with the next forward.
        """
        streamed = _choose(len(self._blocks) - count, [len(memory) for memory in self._memory])
        for index in streamed & self._resident.keys():
            self._give(index, self._host[index])
            self._wait(self._resident.pop(index))
            self._here.discard(index)
        if count > 0:
            self._make_buffers(len(streamed))  # first, since they are the largest pieces
        for index, memory in enumerate(self._memory):
            if index not in streamed and index not in self._resident:
                self._resident[index] = self._new_room(len(memory))

    def release(self) -> None:
        """Takes everything off the device: another expert's turn has come, or the generation has ended."""
        self.set_resident(0)
        if self._copies is not None:
            self._copies.synchronize()  # what is on its way must not land in memory that others have by then
        for buffer in self._buffers:
            if buffer.holds is not None:
                self._give(buffer.holds, self._host[buffer.holds])
        self._buffers.clear()
        if self._cuda:
            torch.cuda.empty_cache()  # else what comes next finds the room in pieces

    def __iter__(self) -> Iterator[nn.Module]:
        """The blocks in order; each has its weights on the device until the next is asked for."""
        for index, block in enumerate(self._blocks):
            if index in self._here:
                yield block
                continue
            room = self._fetch(index, keep=None)
            self._fetch_after(index, room)
            self._wait(room)
            self._give(index, room.tensors)
            if index in self._resident:
                self._here.add(index)
                yield block
                continue
            try:
                yield block
            finally:
                self._give(index, self._host[index])
                room.used = self._mark()

    def _fetch_after(self, index: int, keep: _Room) -> None:
        """Sends for what comes after a block, to the next that does not stay; after the last comes the first again."""
        for number in (*range(index + 1, len(self._blocks)), *range(index + 1)):
            self._fetch(number, keep)
            if number not in self._resident:
                return

    def _fetch(self, index: int, keep: _Room | None) -> _Room:
        """The room with a block's weights, maybe still on their way; not the buffer to keep, if it has others."""
        room = self._resident.get(index)
        if room is None:
            self._make_buffers(len(self._blocks) - self.resident)
            room = next((buffer for buffer in self._buffers if buffer.holds == index), None)
        if room is None:
            room = next(buffer for buffer in self._buffers if buffer is not keep)
        if room.holds != index:
            self._fill(room, index)
        return room

    def _make_buffers(self, streamed: int) -> None:
        while len(self._buffers) < min(2, streamed):
            self._buffers.append(self._new_room(max(map(len, self._memory))))

    def _new_room(self, size: int) -> _Room:
        memory = torch.empty(size, dtype=torch.uint8, device=self._device)
        return _Room(memory, used=self._mark())  # kernels before may write there still

    def _fill(self, room: _Room, index: int) -> None:
        memory = self._memory[index]
        room.holds, room.tensors = index, laid_out(self._host[index], room.memory)
        if self._copies is None:
            room.memory[: len(memory)].copy_(memory)
            return
        if room.used is not None:
            self._copies.wait_event(room.used)
        with torch.cuda.stream(self._copies):
            room.memory[: len(memory)].copy_(memory, non_blocking=True)
            room.filled = self._copies.record_event()

    def _wait(self, room: _Room) -> None:
        """Lets the device's kernels begin when what is on its way to a room has come."""
        if room.filled is not None:
            torch.cuda.current_stream(self._device).wait_event(room.filled)
            room.filled = None

    def _mark(self) -> torch.cuda.Event | None:
        """When all that has been asked of the device until now is done."""
        return torch.cuda.current_stream(self._device).record_event() if self._cuda else None

    def _take(self, index: int, memory: Tensor) -> None:
        """Moves a block's weights to memory of the host."""
        host = laid_out(self._places[index], memory)
        for name, place in self._places[index].items():
            host[name].copy_(place.data)
        self._memory.append(memory)
        self._host.append(host)
        self._give(index, host)

    def _give(self, index: int, state: State) -> None:
        """By the tensors' data: `load_state_dict` takes a millisecond of Python, as long as a small block computes."""
        for place, tensor in zip(self._places[index].values(), state.values(), strict=True):
            place.data = tensor


def _choose(count: int, sizes: Sequence[int]) -> set[int]:
    """`count` of the blocks, those that take more than others first, the rest at distances as equal as can be."""
    least = min(sizes)
    larger = [index for index, size in enumerate(sizes) if size > least][: max(count, 0)]
    others = [index for index, size in enumerate(sizes) if size == least]
    return {*larger, *(others[number] for number in _spread(count - len(larger), len(others)))}


def _spread(count: int, total: int) -> set[int]:
    """`count` of the numbers from 0 to `total`, less what is too many, at distances as equal as can be."""
    count = max(min(count, total), 0)
    return {number for number in range(total) if (number + 1) * count // total > number * count // total}
