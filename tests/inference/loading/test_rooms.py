"""Memory that is taken for a whole block at once."""

from __future__ import annotations

import random

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from wan22_inference.engine.loading.rooms import ALIGNMENT, Rooms

CPU = torch.device("cpu")
DTYPES = [torch.bfloat16, torch.float32, torch.float8_e4m3fn, torch.int64]
SHAPES = st.lists(st.integers(0, 40), max_size=3)
NAMES = st.builds("{}{}.weight".format, st.sampled_from(["blocks.1.", "blocks.12.", "norm.", ""]), st.integers(0, 9))


@given(st.dictionaries(NAMES, st.tuples(SHAPES, st.sampled_from(DTYPES)), min_size=1), st.randoms())
def test_no_two_tensors_share_a_byte(asked: dict[str, tuple[list[int], torch.dtype]], order: random.Random) -> None:
    like = {name: torch.empty(shape, dtype=dtype, device="meta") for name, (shape, dtype) in asked.items()}
    names = list(like)
    order.shuffle(names)
    rooms = Rooms(like, CPU)
    taken = {name: rooms.take(name) for name in names}
    for number, name in enumerate(names):
        assert taken[name].shape == like[name].shape
        assert taken[name].dtype == like[name].dtype
        assert taken[name].is_contiguous()
        _bytes(taken[name]).fill_(number)
    for number, name in enumerate(names):
        assert bool((_bytes(taken[name]) == number).all()), name


def test_a_block_is_one_piece_of_memory_and_others_go_alone() -> None:
    names = ["blocks.0.a", "blocks.0.b", "blocks.1.a", "head.a", "head.b", "decoder.blocks.0.a"]
    rooms = Rooms({name: torch.empty(3, 5, device="meta") for name in names}, CPU)
    pieces = {name: rooms.take(name).untyped_storage() for name in names}
    assert pieces["blocks.0.a"].data_ptr() == pieces["blocks.0.b"].data_ptr()
    assert len({storage.data_ptr() for storage in pieces.values()}) == len(names) - 1
    assert pieces["blocks.0.a"].nbytes() == 2 * ALIGNMENT
    assert pieces["head.a"].nbytes() == ALIGNMENT


def test_memory_is_made_with_the_first_tensor_of_a_block() -> None:
    huge = torch.empty(1 << 60, dtype=torch.uint8, device="meta")  # more than there is
    rooms = Rooms({"blocks.0.a": torch.empty(4, device="meta"), "blocks.1.a": huge}, CPU)
    rooms.take("blocks.0.a").fill_(1.0)


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.view(-1).view(torch.uint8)
