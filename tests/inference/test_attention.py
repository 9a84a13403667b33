from __future__ import annotations

import logging
import math

import pytest
import torch
from torch import Tensor

from wan22_inference.engine.attention import _try, attention, choose, sdpa
from wan22_inference.engine.rope import rotary, rotate

CPU = torch.device("cpu")


def test_attention_is_softmax_over_all_keys() -> None:
    q, k, v = torch.randn(2, 5, 3, 8), torch.randn(2, 7, 3, 8), torch.randn(2, 7, 3, 8)
    weights = torch.einsum("blhd,bmhd->bhlm", q, k).div(math.sqrt(8)).softmax(dim=-1)
    expected = torch.einsum("bhlm,bmhd->blhd", weights, v)
    torch.testing.assert_close(attention(q, k, v), expected)


def test_the_choice_is_made_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    choose.cache_clear()
    q = torch.randn(1, 4, 2, 16)
    with caplog.at_level(logging.INFO, "wan22_inference.engine.attention"):
        attention(q, q, q)
        attention(q, q, q)
    assert caplog.messages == ["Attention of torch.float32, heads of 16, on cpu: sdpa (the others need a CUDA device)."]


def test_the_rotary_embedding_depends_on_distances_alone() -> None:
    """Its point: the product of a turned query and key is the same wherever the pair lies."""
    grid = (3, 4, 5)
    by = rotary(grid, 24, CPU)
    assert by.cos.shape == by.sin.shape == (60, 12)
    q, k = torch.randn(1, 1, 1, 24).expand(1, 60, 1, 24), torch.randn(1, 1, 1, 24).expand(1, 60, 1, 24)
    products = (rotate(q, by)[0, :, 0] @ rotate(k, by)[0, :, 0].T).view(*grid, *grid)
    torch.testing.assert_close(products[0, 0, 0, 1, 2, 1], products[1, 1, 3, 2, 3, 4])
    torch.testing.assert_close(products[2, 3, 4, 0, 1, 2], products[2, 2, 2, 0, 0, 0])
    assert abs(float(products[0, 0, 0, 1, 2, 1] - products[0, 0, 0, 1, 1, 2])) > 1e-3


def test_far_positions_are_turned_exactly() -> None:
    """Angles in float32 would be off by 1e-5 here."""
    by = rotary((1, 1, 1000), 128, CPU)
    pair = 22 + 21 + 1  # the columns' second frequency
    angle = 999 * 10_000.0 ** (-1 / 21)
    assert float(by.cos[999, pair]) == pytest.approx(math.cos(angle), abs=1e-7)
    assert float(by.sin[999, pair]) == pytest.approx(math.sin(angle), abs=1e-7)


def test_a_backend_that_computes_something_else_is_refused() -> None:
    assert _try(sdpa, CPU, torch.bfloat16, 16) is None
    assert _try(lambda q, k, v: sdpa(q, k, v) * 1.1, CPU, torch.bfloat16, 16) == "its trial's relative error was 0.1"


def test_a_backend_that_cannot_run_is_refused_with_its_reason() -> None:
    def broken(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        raise RuntimeError("no kernel image is available")

    assert _try(broken, CPU, torch.bfloat16, 16) == "its trial failed (no kernel image is available)"
