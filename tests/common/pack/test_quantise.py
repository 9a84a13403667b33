from __future__ import annotations

import numpy as np
import pytest
import torch

from wan22.pack.malformed import MalformedFile
from wan22.pack.quantise import as_float32, quantise_rows, to_e4m3
from wan22_inference.engine.rows8 import quantise_rows as engine_rows


def test_every_value_is_rounded_as_torch_rounds_it() -> None:
    every = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    ordered = np.unique(every[every.isfinite()].numpy())
    between = (ordered[:-1] + ordered[1:]) / 2  # exact, and ties
    near = np.concatenate([np.nextafter(between, np.float32(s * 500)) for s in (1, -1)]).astype(np.float32)
    drawn = np.random.default_rng(1).uniform(-448, 448, 300_000).astype(np.float32)
    small = np.random.default_rng(2).normal(0, 0.01, 300_000).astype(np.float32)
    values = np.concatenate([ordered, between, near, drawn, small, np.array([0, -0.0, 1e-38], np.float32)])
    theirs = torch.from_numpy(values).to(torch.float8_e4m3fn).view(torch.uint8).numpy()
    assert np.array_equal(to_e4m3(values), theirs)


@pytest.mark.parametrize(
    ("dtype", "torch_dtype"), [("F32", torch.float32), ("BF16", torch.bfloat16), ("F16", torch.half)]
)
def test_rows_are_those_that_the_engine_makes(dtype: str, torch_dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    weight = (torch.randn(70, 333, generator=generator) * torch.logspace(-3, 2, 70)[:, None]).to(torch_dtype)
    weight[7] = 0
    raw = weight.view(torch.uint8).numpy().tobytes()
    data, scales = quantise_rows(as_float32(raw, dtype).reshape(70, 333))
    expected = engine_rows(weight)
    assert np.array_equal(data, expected.data.view(torch.uint8).numpy())
    assert np.array_equal(scales, expected.scale.numpy())
    assert scales[7] == 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(MalformedFile, match="not finite"):
        quantise_rows(np.array([[1, value]], np.float32))
