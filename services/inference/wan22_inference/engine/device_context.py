"""A CUDA device's context, made while Python imports what will use it; imports nothing that takes time."""

from __future__ import annotations

import ctypes
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)

DRIVER = "libcuda.so.1"


@contextmanager
def device_context(device: str, driver: str = DRIVER) -> Iterator[None]:
    """Has the driver make the context of a device (auto, cpu, cuda or cuda:N) beside what is done within.

    It is the primary one, which torch finds when it asks. Where there is no such device nothing is made and nothing is
    raised: torch says so better, to whom wants to compute there.
    Source: CUDA driver API, primary context management.
    """
    name, _, number = device.partition(":")
    if name not in {"auto", "cuda"} or not (number or "0").isdigit():
        yield
        return
    thread = threading.Thread(target=_make, args=(driver, int(number or 0)), name="device-context")
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _make(driver: str, ordinal: int) -> None:
    try:
        cuda = ctypes.CDLL(driver)  # its calls leave Python's lock to others
    except OSError:
        return
    device, context = ctypes.c_int(), ctypes.c_void_p()
    error = cuda.cuInit(0)
    error = error or cuda.cuDeviceGet(ctypes.byref(device), ordinal)
    error = error or cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
    if error:
        log.info("No context was made in advance on device %d: the driver answered with error %d.", ordinal, error)
