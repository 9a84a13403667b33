"""A DiT's blocks in host memory, of which a share lies on the device and the rest comes when its turn comes.

While blocks compute, the next that is not there is copied into the other of two buffers on a stream of its own. Those
that stay lie evenly between those that come, so that the copies have all of a forward's time. The weights are the same,
bit for bit, and so is what the blocks make of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from wan22_inference.engine.loading.rooms import laid_out, room_bytes

State = dict[str, Tensor]


@dataclass
class _Buffer:
    """Room on the device for any block's weights."""

    room: Tensor
    """Bytes."""
    holds: int | None = None
    """Index of the block whose weights are in it, or on their way."""
    tensors: State = field(default_factory=dict)
    """That block's, in the room."""
    filled: torch.cuda.Event | None = None
    used: torch.cuda.Event | None = None


class BlockStream:
    """Gives blocks their weights in order, as often as asked."""

    def __init__(self, blocks: Sequence[nn.Module], device: torch.device) -> None:
        """Takes the blocks' weights to host memory, page-locked where the device is a CUDA device."""
        self._blocks = blocks
        self._device = device
        self._cuda = device.type == "cuda"
        self._copies = torch.cuda.Stream(device) if self._cuda else None  # type: ignore[no-untyped-call]  # torch's
        self._host = [self._to_host(block) for block in blocks]
        self._sizes = [sum(tensor.nbytes for tensor in state.values()) for state in self._host]
        self._resident: dict[int, State] = {}
        self._buffers: list[_Buffer] = []

    @property
    def resident(self) -> int:
        """Blocks that stay on the device."""
        return len(self._resident)

    def set_resident(self, count: int) -> None:
        """Lets `count` of the blocks stay on the device, the smallest; with 0 and no use, nothing of them is there."""
        streamed = _choose(len(self._blocks) - count, self._sizes)
        for index in streamed & self._resident.keys():
            self._give(index, self._host[index])
            del self._resident[index]
        if count > 0:
            self._make_buffers(len(streamed))  # first, since they are the largest pieces
        for index, host in enumerate(self._host):
            if index not in streamed and index not in self._resident:
                state = {name: tensor.to(self._device, non_blocking=True, copy=True) for name, tensor in host.items()}
                self._resident[index] = state
                self._give(index, state)

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
            if index in self._resident:
                yield block
                continue
            buffer = self._fetch(index, keep=None)
            self._fetch(self._next_streamed(index), keep=buffer)
            if buffer.filled is not None:
                torch.cuda.current_stream(self._device).wait_event(buffer.filled)
            self._give(index, buffer.tensors)
            try:
                yield block
            finally:
                self._give(index, self._host[index])
                buffer.used = self._mark()

    def _next_streamed(self, index: int) -> int:
        """The streamed block after this one; after the last comes the first again, for the next forward."""
        streamed = [number for number in range(len(self._blocks)) if number not in self._resident]
        return next((number for number in streamed if number > index), streamed[0])

    def _fetch(self, index: int, keep: _Buffer | None) -> _Buffer:
        """The buffer with a block's weights, which may still be on their way; not the one to keep, if it has others."""
        self._make_buffers(len(self._blocks) - self.resident)
        buffer = next((buffer for buffer in self._buffers if buffer.holds == index), None)
        if buffer is None:
            buffer = next(buffer for buffer in self._buffers if buffer is not keep)
            self._fill(buffer, index)
        return buffer

    def _make_buffers(self, streamed: int) -> None:
        while len(self._buffers) < min(2, streamed):
            room = torch.empty(max(map(room_bytes, self._host)), dtype=torch.uint8, device=self._device)
            self._buffers.append(_Buffer(room, used=self._mark()))  # kernels before may write there still

    def _fill(self, buffer: _Buffer, index: int) -> None:
        buffer.holds = index
        buffer.tensors = laid_out(self._host[index], buffer.room)
        if self._copies is None:
            for name, tensor in self._host[index].items():
                buffer.tensors[name].copy_(tensor)
            return
        if buffer.used is not None:
            self._copies.wait_event(buffer.used)
        with torch.cuda.stream(self._copies):
            for name, tensor in self._host[index].items():
                buffer.tensors[name].copy_(tensor, non_blocking=True)
            buffer.filled = self._copies.record_event()

    def _mark(self) -> torch.cuda.Event | None:
        """When all that has been asked of the device until now is done."""
        return torch.cuda.current_stream(self._device).record_event() if self._cuda else None

    def _to_host(self, block: nn.Module) -> State:
        state = {name: tensor.to("cpu") for name, tensor in block.state_dict().items()}
        if self._cuda:
            state = {name: tensor.pin_memory() for name, tensor in state.items()}
        block.load_state_dict(state, assign=True)
        return state

    def _give(self, index: int, state: State) -> None:
        self._blocks[index].load_state_dict(state, assign=True)


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
