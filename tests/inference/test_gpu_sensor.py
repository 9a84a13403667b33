from __future__ import annotations

import logging

import pytest
import torch

from wan22_inference.gpu_sensor import GpuSensor


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_without_a_gpu_there_is_no_reading_and_one_line_says_why(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    sensor = GpuSensor(torch.device("cuda:0"))
    assert sensor.read() is None
    assert sensor.read() is None
    assert sensor.reading is None
    assert [line.message.partition(":")[0] for line in caplog.records] == ["The GPU's utilization is not known"]


@pytest.mark.parametrize(("percent", "utilization"), [(0, 0.0), (7, 0.07), (100, 1.0), (101, None), (2**32 - 1, None)])
def test_what_no_percentage_can_be_is_no_reading(
    monkeypatch: pytest.MonkeyPatch, percent: int, utilization: float | None
) -> None:
    monkeypatch.setattr(torch.cuda, "utilization", lambda _: percent)
    reading = GpuSensor(torch.device("cuda:0")).read()
    assert (None if reading is None else reading.utilization) == utilization
