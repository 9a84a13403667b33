from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from wan22_inference.engine.block_stream import BlockStream

CPU = torch.device("cpu")
COUNT = 5


def make_blocks() -> nn.ModuleList:
    torch.manual_seed(0)
    return nn.ModuleList(nn.Linear(8, 8) for _ in range(COUNT)).requires_grad_(requires_grad=False)


def run(blocks: BlockStream | nn.ModuleList) -> Tensor:
    x = torch.ones(1, 8)
    for block in blocks:
        x = torch.tanh(block(x))
    return x


@pytest.mark.parametrize("resident", range(COUNT + 1))
def test_streamed_blocks_give_the_same_bits_forward_after_forward(resident: int) -> None:
    expected, stream = run(make_blocks()), BlockStream(list(make_blocks()), CPU)
    stream.set_resident(resident)
    for _ in range(3):
        assert torch.equal(run(stream), expected)
    assert stream.resident == resident


def test_the_resident_share_can_change_between_forwards() -> None:
    expected, stream = run(make_blocks()), BlockStream(list(make_blocks()), CPU)
    for resident in (0, 3, 5, 1, 4, 0):
        stream.set_resident(resident)
        assert torch.equal(run(stream), expected)
        stream.release()
        assert stream.resident == 0
    assert torch.equal(run(stream), expected)


def test_two_buffers_at_most_are_on_the_device_beside_the_resident_blocks() -> None:
    blocks = list(make_blocks())
    host = {id(tensor) for block in blocks for tensor in block.parameters()}
    stream = BlockStream(blocks, CPU)
    stream.set_resident(2)
    at_host = {tensor.data_ptr() for state in stream._host for tensor in state.values()}
    buffers = set()
    for index, block in enumerate(stream):
        elsewhere = {tensor.data_ptr() for tensor in block.state_dict().values()} - at_host
        assert len(elsewhere) == 2  # its weight and bias, and not those in host memory
        if index in {1, 3, 4}:
            buffers.add(frozenset(elsewhere))
    assert len(buffers) == 2
    assert host
    assert all(tensor.data_ptr() in at_host for index in (1, 3, 4) for tensor in blocks[index].state_dict().values())


@pytest.mark.parametrize("resident", range(31))
def test_blocks_that_stay_lie_evenly_between_those_that_come(resident: int) -> None:
    blocks = [nn.Linear(1, 1) for _ in range(30)]
    stream = BlockStream(blocks, CPU)
    at_host = {tensor.data_ptr() for state in stream._host for tensor in state.values()}
    stream.set_resident(resident)
    assert sum(1 for _ in stream) == 30
    come = [number for number, block in enumerate(blocks) if block.weight.data_ptr() in at_host]
    assert len(come) == 30 - resident
    around = [
        after - before for before, after in zip(come, [*come[1:], *(number + 30 for number in come[:1])], strict=True)
    ]
    assert not around or max(around) - min(around) <= 1


def test_a_forward_that_is_given_up_in_the_middle_harms_no_later_one() -> None:
    expected, stream = run(make_blocks()), BlockStream(list(make_blocks()), CPU)
    for index, _ in enumerate(stream):
        if index == 2:
            break
    assert torch.equal(run(stream), expected)
    stream.release()
    assert torch.equal(run(stream), expected)


def unequal_blocks() -> nn.ModuleList:
    """The first two have another parameter, and take more room, but the same input and output."""
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Linear(8, 8)) for _ in range(COUNT)]
    for block in blocks[:2]:
        block.append(nn.LayerNorm(8))
    return nn.ModuleList(blocks).requires_grad_(requires_grad=False)


@pytest.mark.parametrize("resident", range(COUNT + 1))
def test_blocks_that_take_more_room_than_others_come_before_these_do(resident: int) -> None:
    expected, blocks = run(unequal_blocks()), list(unequal_blocks())
    stream = BlockStream(blocks, CPU)
    at_host = {tensor.data_ptr() for state in stream._host for tensor in state.values()}
    stream.set_resident(resident)
    assert torch.equal(run(stream), expected)
    come = {number for number, block in enumerate(blocks) if next(block.parameters()).data_ptr() in at_host}
    assert len(come) == COUNT - resident
    assert come <= {0, 1} or come >= {0, 1}
    for _ in range(3):
        assert torch.equal(run(stream), expected)
