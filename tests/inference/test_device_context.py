"""A device's context beside a worker's imports, where there is no device; tests/gpu has the rest."""

from __future__ import annotations

import threading

import pytest

from wan22_inference.engine.device_context import device_context


@pytest.mark.parametrize("device", ["auto", "cuda", "cuda:1"])
def test_without_a_driver_nothing_is_made_and_nothing_is_said(device: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"), device_context(device, driver="libwan22-has-no-such-driver.so"):
        pass
    assert (caplog.messages, [thread.name for thread in threading.enumerate()].count("device-context")) == ([], 0)


@pytest.mark.parametrize("device", ["cpu", "cuda:x", "tpu:"])
def test_for_what_is_no_cuda_device_no_driver_is_asked(device: str) -> None:
    before = threading.active_count()
    with device_context(device, driver="libwan22-has-no-such-driver.so"):
        assert threading.active_count() == before


def test_an_error_of_what_is_done_beside_it_is_passed_on() -> None:
    with pytest.raises(ZeroDivisionError), device_context("auto", driver="libwan22-has-no-such-driver.so"):
        _ = 1 // 0
