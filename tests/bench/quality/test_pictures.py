from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from wan22_bench.quality.pictures import as_levels, as_png, as_values, psnr, square_error


def test_levels_become_values_and_come_back() -> None:
    frame = np.arange(4 * 64 * 3, dtype=np.uint8).reshape(4, 64, 3)
    values = as_values([frame, 255 - frame])
    assert values.shape == (3, 2, 4, 64)
    assert [float(values.min()), float(values.max())] == [-1, 1]
    assert np.array_equal(as_levels(values[:, 0]), frame)
    assert np.array_equal(as_levels(values[:, 1]), 255 - frame)


def test_a_png_keeps_every_bit() -> None:
    frame = np.random.default_rng(1).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    with Image.open(io.BytesIO(as_png(frame))) as opened:
        assert np.array_equal(np.asarray(opened), frame)


def test_decibels_are_those_of_values_whose_peak_is_2() -> None:
    ones = torch.ones(3, 4, 4)
    assert psnr([square_error(ones, ones - 0.2)]) == pytest.approx(20, abs=1e-4)
    assert psnr([0.02, 0.06]) == pytest.approx(20)  # of the mean of errors, not the mean of decibels
    assert psnr([0.0]) == math.inf
