"""Self-attention in float8: what it subtracts changes nothing but the error."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wan22_inference.engine import plain_operations
from wan22_inference.engine.attention import sdpa
from wan22_inference.engine.attention8 import choose8, keys8, plain, queries8, values8
from wan22_inference.engine.heads8 import Heads8, centre, normed_scale, quantise_heads
from wan22_inference.engine.rope import Rotary, rotary
from wan22_testing.forwards import Work, error, make_sides

HEADS, HEAD, EPS = 2, 32, 1e-6
DIM = HEADS * HEAD
GRID = (5, 4, 6)
TOKENS = 120


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def by() -> Rotary:
    return rotary(GRID, HEAD, torch.device("cpu"))


def exact(query: Tensor, key: Tensor, value: Tensor, gain: Tensor) -> Tensor:
    q, k = (plain_operations.norm_rotate_heads(one, gain, HEADS, EPS, by()) for one in (query, key))
    return sdpa(q, k, torch.unflatten(value, 2, (HEADS, -1))).flatten(2)


def in_float8(query: Tensor, key: Tensor, value: Tensor, gain: Tensor) -> Tensor:
    q = queries8(plain_operations, query, gain, HEADS, EPS, by())
    k = keys8(plain_operations, key, gain, HEADS, EPS, by())
    v, mean = values8(plain_operations, value, HEADS)
    return plain(q, k, v).flatten(2) + mean.unsqueeze(1)


def cast(query: Tensor, key: Tensor, value: Tensor, gain: Tensor) -> Tensor:
    """As who takes no care: cast as they are."""
    q, k = (plain_operations.norm_rotate_heads(one, gain, HEADS, EPS, by()) for one in (query, key))
    one = torch.ones(len(query), HEADS)
    heads = [quantise_heads(x, one) for x in (q, k, torch.unflatten(value, 2, (HEADS, -1)))]
    return plain(heads[0], heads[1], heads[2]).flatten(2)


def test_it_is_near_the_exact_one_for_each_of_a_batch() -> None:
    query, key, value = (random(2, TOKENS, DIM, seed=seed) for seed in range(3))
    gain = 2.0 + torch.rand(DIM, generator=torch.Generator().manual_seed(3))
    assert error(in_float8(query, key, value, gain), exact(query, key, value, gain)) < 0.12


def test_values_that_are_far_from_zero_cost_no_precision() -> None:
    """What all tokens have in common takes all of a float8 number's bits, unless it is taken away."""
    query, key = random(1, TOKENS, DIM, seed=0), random(1, TOKENS, DIM, seed=1)
    value = random(1, TOKENS, DIM, seed=2) + 30.0
    gain = torch.ones(DIM)
    wanted = exact(query, key, value, gain)
    assert error(in_float8(query, key, value, gain) - 30.0, wanted - 30.0) < 0.1
    assert error(cast(query, key, value, gain) - 30.0, wanted - 30.0) > 0.5


def test_no_constant_that_is_subtracted_from_keys_changes_the_result() -> None:
    q, k, v = (random(1, TOKENS, HEADS, HEAD, seed=seed) for seed in range(3))
    one = torch.ones(1, HEADS)
    shifted = sdpa(q, k - random(1, 1, HEADS, HEAD, seed=3), v)
    torch.testing.assert_close(shifted, sdpa(q, k, v), rtol=1e-4, atol=1e-5)
    as_is = [Heads8(x.to(torch.float8_e4m3fn), one) for x in (q, k, v)]
    torch.testing.assert_close(plain(as_is[0], as_is[1], as_is[2]), sdpa(*(x.float() for x in as_is)))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), spread=st.floats(0.0, 5.0), centred=st.booleans())
def test_a_rotated_norm_never_reaches_beyond_its_scale(seed: int, spread: float, centred: bool) -> None:
    x = random(1, 24, DIM, seed=seed) * torch.exp(spread * random(1, 24, DIM, seed=seed + 1))
    gain = random(DIM, seed=seed + 2)
    turned = plain_operations.norm_rotate_heads(x, gain, HEADS, EPS, rotary((1, 4, 6), HEAD, x.device))
    if centred:
        turned = turned - turned.mean(1, keepdim=True)
    scale = normed_scale(gain, HEADS, 1, centred=centred)
    assert bool((turned.abs() <= 448.0 * scale[:, None, :, None] * 1.0001).all())


def test_values_without_spread_have_the_scale_one() -> None:
    mean, scale = centre(torch.full((1, 40, DIM), 3.0), HEADS)
    assert mean.tolist() == [[3.0] * DIM]
    assert scale.tolist() == [[1.0, 1.0]]


def test_what_lies_beyond_the_largest_number_is_cut_off() -> None:
    heads = quantise_heads(torch.tensor([[[[1e9, -1e9]]]]), torch.ones(1, 1))
    assert heads.float().flatten().tolist() == [448.0, -448.0]


def test_on_a_cpu_the_plain_path_is_chosen() -> None:
    choice = choose8(torch.device("cpu"), HEAD)
    assert (choice.name, choice.attend) == ("plain-fp8", plain)


@pytest.mark.parametrize("fp8", [False, True])
def test_a_forward_in_float8_is_as_far_from_the_exact_one_as_its_numbers_are_coarse(fp8: bool) -> None:
    sides = make_sides(Work("t2v-a14b-tiny", 3, 128, 96, 17), 1, torch.device("cpu"))
    wanted = sides.ours(torch.float32)()
    without = error(sides.ours(torch.float32, fp8=fp8)(), wanted)
    coarse = error(sides.ours(torch.float32, fp8=fp8, attention8=True)(), wanted)
    assert 1e-3 < coarse < 1.5 * without + 0.2
    assert coarse != without
