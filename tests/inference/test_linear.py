from __future__ import annotations

import pytest
import torch
from torch import Tensor

from wan22_inference.engine.linear import Fp8Linear, Linear
from wan22_inference.engine.plain_operations import gelu
from wan22_inference.engine.rows8 import Rows8, quantise_rows


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def filled(kind: type[Linear | Fp8Linear]) -> Linear | Fp8Linear:
    """The same weight for both kinds: one that float8 holds exactly but for its scale."""
    layer = kind(64, 32, torch.float32)
    rows = quantise_rows(random(32, 64, seed=1))
    state = {"weight": rows.float(), "bias": random(32, seed=2)}
    if isinstance(layer, Fp8Linear):
        state |= {"weight": rows.data, "weight_scale": rows.scale}
    layer.load_state_dict(state, assign=True)
    return layer.requires_grad_(requires_grad=False)


def error(value: Tensor, exact: Tensor) -> float:
    return float((value - exact).norm() / exact.norm())


def test_a_quantised_layer_is_near_the_plain_one() -> None:
    x = random(2, 5, 64)
    exact = filled(Linear)(x)
    assert 0.001 < error(filled(Fp8Linear)(x), exact) < 0.04  # what is left is the input's own quantisation


def test_rows_quantised_before_give_what_the_layer_gives_itself() -> None:
    x, layer = random(2, 5, 64), filled(Fp8Linear)
    assert torch.equal(layer(quantise_rows(x)), layer(x))


def test_the_gelu_of_a_quantised_layer_is_quantised_for_the_next() -> None:
    x = random(2, 5, 64)
    rows = filled(Fp8Linear).gelu(x)
    assert isinstance(rows, Rows8)
    assert rows.data.shape == (2, 5, 32)
    plain = filled(Linear).gelu(x)
    assert isinstance(plain, Tensor)
    torch.testing.assert_close(plain, gelu(filled(Linear)(x)))
    assert error(rows.float(), plain) < 0.06


def test_a_plain_layer_takes_no_quantised_rows() -> None:
    with pytest.raises(TypeError, match="not quantised"):
        filled(Linear)(quantise_rows(random(2, 64)))
