from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wan22_inference.engine.loading.locked import MOST_SHARING, host_rooms, sharing


def taken(sizes: list[int]) -> int:
    """Bytes that torch takes of the host."""
    return sum(1 << (sum(sizes[number] for number in group) - 1).bit_length() for group in sharing(sizes))


@pytest.mark.parametrize(
    ("large", "small"), [(703_000_064, 703_000_064), (703_000_064, 352_000_000), (166_000_640, 84_000_256), (512, 512)]
)
def test_blocks_waste_little(large: int, small: int) -> None:
    """As blocks of A14B and of the 5B are, in bfloat16 and in fp8, where the first two are not quantised."""
    sizes = [large] * 2 + [small] * 38
    assert taken(sizes) <= 1.12 * sum(sizes)


def test_tensors_of_the_text_encoder_waste_little() -> None:
    block = [8192, *[4096 * 4096 * 2] * 4, 4096, 8192, *[4096 * 10240 * 2] * 3]
    sizes = [256_384 * 4096 * 2, *block * 24]
    assert taken(sizes) <= 1.25 * sum(sizes)


@given(st.lists(st.integers(1, 1 << 40), max_size=100))
def test_every_room_is_in_one_piece_and_none_wastes_more_than_by_itself(sizes: list[int]) -> None:
    groups = list(sharing(sizes))
    assert [number for group in groups for number in group] == list(range(len(sizes)))
    assert all(1 <= len(group) <= MOST_SHARING for group in groups)
    assert taken(sizes) <= 2 * sum(sizes)


@given(st.lists(st.integers(1, 5000), max_size=40))
def test_rooms_have_their_sizes_and_nothing_in_common(sizes: list[int]) -> None:
    rooms = list(host_rooms(sizes, torch.device("cpu")))
    for number, room in enumerate(rooms):
        room.fill_(number)
    assert [len(room) for room in rooms] == sizes
    assert all(bool((room == number).all()) for number, room in enumerate(rooms))
