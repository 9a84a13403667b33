from __future__ import annotations

import pytest
import torch
from torch import nn

from wan22_inference.engine.block_stream import BlockStream

WIDTH = 2048
WAIT_CYCLES = 200_000_000
"""A tenth of a second of a GPU."""


@pytest.mark.gpu
@pytest.mark.parametrize("resident", [0, 2])
def test_streamed_blocks_wait_for_what_still_writes_to_their_memory(cuda: torch.device, resident: int) -> None:
    """The allocator gives away memory as soon as its last kernel has been asked for, not when that has run."""
    torch.cuda.empty_cache()
    blocks = [nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4)]
    weights = [block.weight.detach().clone() for block in blocks]
    stream = BlockStream(blocks, cuda)
    before = [torch.empty(WIDTH, WIDTH, device=cuda) for _ in range(2)]
    torch.empty(WIDTH, device=cuda).fill_(torch.nan).clone()  # a kernel's first use may wait for an idle device
    torch.cuda.synchronize()
    torch.cuda._sleep(WAIT_CYCLES)  # type: ignore[no-untyped-call]  # torch has no public one
    for tensor in before:
        tensor.fill_(torch.nan)
    taken = {tensor.data_ptr() for tensor in before}
    del before, tensor
    stream.set_resident(resident)
    seen = []
    for block in stream:
        assert isinstance(block, nn.Linear)
        if block.weight.device.type == "cuda":
            taken.discard(block.weight.data_ptr())
        seen.append(block.weight.detach().clone())
    assert not taken, "the blocks got other memory, so that this shows nothing"
    stream.set_resident(0)  # while copies may be on their way
    for weight, held in zip(weights, seen, strict=True):
        assert torch.equal(held.cpu(), weight)
