"""The fused operations against the plain ones: Triton's interpreter runs the kernels where there is no CUDA device."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from wan22_inference.engine import fused_operations, plain_operations
from wan22_inference.engine.heads8 import Heads8, normed_scale
from wan22_inference.engine.kernels import convolve
from wan22_inference.engine.rope import rotary
from wan22_inference.engine.rows8 import Operand, Rows8, quantise_rows
from wan22_inference.engine.text_keys import TextKeys, join_padding

DIM, HEADS, EPS = 96, 4, 1e-6
LENGTHS = [(12,), (5, 7)]


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def assert_close(fused: Operand, plain: Operand) -> None:
    if isinstance(fused, Rows8):
        assert isinstance(plain, Rows8)
        torch.testing.assert_close(fused.scale, plain.scale, rtol=1e-5, atol=0)
        ours, theirs = fused.data.float(), plain.data.float()
        # Triton's interpreter halves what it rounds up to a power of two; the tests on the GPU have no such exception
        lost_carry = (ours * 2 == theirs) & (torch.frexp(theirs)[0].abs() == 0.5)
        off = torch.where(lost_carry, 0.0, (ours - theirs).abs())
        assert float(off.max()) <= 32.0  # a neighbour among the largest, for a value on the border between two
        assert float((off > 0).float().mean()) < 0.01
    else:
        torch.testing.assert_close(fused, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fp8", [False, True])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_the_norm_is_the_plain_one(lengths: tuple[int, ...], fp8: bool) -> None:
    x, scale, shift = random(2, 12, DIM), random(len(lengths), DIM, seed=1), random(len(lengths), DIM, seed=2)
    fused = fused_operations.norm(x, scale, shift, lengths, EPS, fp8=fp8)
    assert_close(fused, plain_operations.norm(x, scale, shift, lengths, EPS, fp8=fp8))


@pytest.mark.parametrize("fp8", [False, True])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_the_sum_and_its_norm_are_the_plain_ones(lengths: tuple[int, ...], gated: bool, fp8: bool) -> None:
    y, gate = random(2, 12, DIM, seed=1), random(len(lengths), DIM, seed=2) if gated else None
    scale, shift = random(len(lengths), DIM, seed=3), random(len(lengths), DIM, seed=4)
    fused_x, plain_x = random(2, 12, DIM), random(2, 12, DIM)
    fused = fused_operations.add_norm(fused_x, y, gate, scale, shift, lengths, EPS, fp8=fp8)
    plain = plain_operations.add_norm(plain_x, y, gate, scale, shift, lengths, EPS, fp8=fp8)
    assert_close(fused, plain)
    torch.testing.assert_close(fused_x, plain_x, rtol=1e-6, atol=1e-6)


def test_one_row_of_scales_may_stand_for_all_runs() -> None:
    x, weight = random(1, 12, DIM), random(DIM, seed=1)
    rows = weight.expand(2, -1)
    fused = fused_operations.norm(x, rows, rows, (5, 7), EPS, fp8=False)
    assert_close(fused, plain_operations.norm(x, rows, rows, (5, 7), EPS, fp8=False))


def test_heads_are_normed_and_rotated_as_plainly() -> None:
    weight, by = random(DIM, seed=1), rotary((3, 2, 2), DIM // HEADS, torch.device("cpu"))
    fused = fused_operations.norm_rotate_heads(random(2, 12, DIM), weight, HEADS, EPS, by)
    assert_close(fused, plain_operations.norm_rotate_heads(random(2, 12, DIM), weight, HEADS, EPS, by))
    fused = fused_operations.norm_heads(random(2, 12, DIM), weight, HEADS, EPS)
    assert_close(fused, plain_operations.norm_heads(random(2, 12, DIM), weight, HEADS, EPS))


@pytest.mark.parametrize("heads", [4, 6], ids=["its kernel", "heads that are no power of two"])
@pytest.mark.parametrize("tokens", [0, 1, 63, 64, 130, 300])
def test_a_text_is_looked_at_as_plainly_and_as_with_all_of_its_padding(tokens: int, heads: int) -> None:
    dim, length = 192 if heads == 6 else 128, 150
    embedded = random(2, 320, dim, seed=1)
    embedded[:, tokens:] = 0.0
    embedded[0, tokens // 2 :] = 0.0  # of two texts the longer counts
    joined, padding = join_padding(embedded)
    kept = {0: 32, 1: 32, 63: 64, 64: 96, 130: 160, 300: 320}[tokens]
    assert (joined.shape[1], padding) == (kept, 321 - kept)
    project, weight = random(dim, dim, seed=2) / dim**0.5, random(dim, seed=3)

    def keys(text: Tensor, padding: int) -> TextKeys:
        made = (text + 0.3) @ project
        return TextKeys(made.unflatten(2, (heads, -1)), made.flip(2).contiguous().unflatten(2, (heads, -1)), padding)

    whole = plain_operations.attend_text(random(2, length, dim), weight, EPS, keys(embedded, 1))
    plain = plain_operations.attend_text(random(2, length, dim), weight, EPS, keys(joined, padding))
    fused = fused_operations.attend_text(random(2, length, dim), weight, EPS, keys(joined, padding))
    assert_close(plain, whole)
    assert_close(fused, whole)


def test_in_half_precision_padding_weighs_as_much_as_it_is() -> None:
    key, value = (random(1, 3, 2, 16, seed=seed, dtype=torch.bfloat16) for seed in (1, 2))
    text = TextKeys(key, value, 451)
    q = random(1, 40, 2, 16, dtype=torch.bfloat16)
    exact = TextKeys(text.key.float(), text.value.float(), 451).attend(q.float())
    assert float((text.attend(q).float() - exact).norm() / exact.norm()) < 0.004


@pytest.mark.parametrize("centred", [False, True])
def test_heads_are_normed_rotated_and_quantised_as_plainly(centred: bool) -> None:
    weight, by = random(DIM, seed=1), rotary((3, 2, 2), DIM // HEADS, torch.device("cpu"))
    mean = random(2, DIM, seed=2) if centred else None
    scale = normed_scale(weight, HEADS, 2, centred=centred)
    x = random(2, 12, DIM)
    fused = fused_operations.norm_rotate_heads8(x, weight, EPS, by, mean, scale)
    assert_close(rows_of(fused), rows_of(plain_operations.norm_rotate_heads8(x, weight, EPS, by, mean, scale)))


@pytest.mark.parametrize("batch", [1, 2])
def test_pixels_are_normed_into_the_frames_after_the_past_as_plainly(batch: int) -> None:
    x = random(batch, 12, 2, 3, 5).to(memory_format=torch.channels_last_3d)
    x[0, :, 0, 0, 0] = 0.0
    gamma = random(12, 1, 1, 1, seed=1)
    results = []
    for norm_silu in (fused_operations.norm_silu, plain_operations.norm_silu):
        frames = torch.full((batch, 12, 4, 3, 5), 7.0).to(memory_format=torch.channels_last_3d)
        norm_silu(x, gamma, 1e-24, frames[:, :, 2:])
        results.append(frames)
    assert results[0][:, :, :2].unique().tolist() == [7.0]  # type: ignore[no-untyped-call]  # torch's
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [(3, 5, 37), (4, 9, 16), (3, 1, 1)], ids=str)
def test_the_convolution_of_96_channels_is_the_plain_one(size: tuple[int, int, int]) -> None:
    frames = random(1, 96, *size).to(memory_format=torch.channels_last_3d)
    weight, bias = random(96, 96, 3, 3, 3, seed=1) / 51, random(96, seed=2)
    made = convolve.convolve(frames, weight, bias)
    assert made.is_contiguous(memory_format=torch.channels_last_3d)
    assert_close(made, plain_operations.convolve(frames, weight, bias))


def test_other_convolutions_are_left_to_torch() -> None:
    frames, weight = random(1, 96, 3, 4, 4, dtype=torch.bfloat16), random(96, 96, 3, 3, 3, dtype=torch.bfloat16)
    assert convolve.fits(frames, weight)
    assert not convolve.fits(frames.float(), weight.float())
    assert not convolve.fits(frames, weight[:, :, 2:])
    assert not convolve.fits(frames[:, :, :2], weight)
    assert not convolve.fits(frames.expand(2, -1, -1, -1, -1), weight)
    wide = torch.empty(1, 96, 3, 1, 1, dtype=torch.bfloat16).expand(-1, -1, -1, 2200, 3400)
    assert not convolve.fits(wide, weight)
    weight, bias = random(8, 6, 3, 3, 3, seed=1), random(8, seed=2)
    frames = random(2, 6, 4, 5, 7).to(memory_format=torch.channels_last_3d)
    assert torch.equal(fused_operations.convolve(frames, weight, bias), plain_operations.convolve(frames, weight, bias))


def test_values_are_centred_and_quantised_as_plainly() -> None:
    x, mean = random(2, 12, DIM), random(2, DIM, seed=1)
    scale = 0.001 + random(2, HEADS, seed=2).abs() / 448
    fused = fused_operations.centred_heads8(x, mean, scale)
    assert_close(rows_of(fused), rows_of(plain_operations.centred_heads8(x, mean, scale)))


def rows_of(heads: Heads8) -> Rows8:
    return Rows8(heads.data, heads.scale.unsqueeze(1).expand(heads.data.shape[:3]))


def test_rows_are_quantised_as_plainly() -> None:
    x, addend = random(2, 7, 160), 3.0 * random(2, 160, seed=1)
    x[0, 3] = 0
    assert_close(fused_operations.quantise(x), plain_operations.quantise(x))
    assert_close(fused_operations.quantise(x, addend), plain_operations.quantise(x, addend))
    assert_close(fused_operations.gelu_rows(x), plain_operations.gelu_rows(x))


def test_a_row_of_zeros_stays_zeros_and_others_reach_the_largest_number() -> None:
    rows = quantise_rows(torch.tensor([[0.0, 0.0], [1.0, -2.0], [1e-20, 3e-20]]))
    assert rows.scale.tolist()[0] == 1.0
    assert rows.data.float().abs().amax(1).tolist() == [0.0, 448.0, 448.0]
    torch.testing.assert_close(rows.float()[1], torch.tensor([1.0, -2.0]))


def test_a_product_of_quantised_rows_is_near_the_exact_one() -> None:
    x, weight, bias = random(2, 12, DIM), random(64, DIM, seed=1), random(64, seed=2)
    product = plain_operations.matmul_rows(quantise_rows(x), quantise_rows(weight), bias)
    exact = x @ weight.t() + bias
    assert float((product - exact).norm() / exact.norm()) < 0.05
