from __future__ import annotations

import time

import pytest
import torch

from wan22_inference.gpu_sensor import GpuSensor

pytestmark = pytest.mark.gpu


def test_a_gpu_at_work_is_read_as_busy() -> None:
    device = torch.device("cuda:0")
    sensor = GpuSensor(device)
    sensor.start()
    try:
        square = torch.randn(8192, 8192, device=device)
        until = time.monotonic() + 30.0
        while sensor.reading is None or sensor.reading.utilization < 0.5:
            assert time.monotonic() < until, sensor.reading
            for _ in range(20):
                square = torch.nn.functional.normalize(square @ square)
            torch.cuda.synchronize()
        assert sensor.reading.utilization <= 1.0
        assert time.monotonic() - sensor.reading.time < 10.0
    finally:
        sensor.stop()
