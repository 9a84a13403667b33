"""A device's context, made beside a worker's imports."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.gpu

PROGRAM = """
import ctypes, json, sys, time
from wan22_inference.engine.device_context import device_context

def is_active():
    active, flags = ctypes.c_int(), ctypes.c_uint()
    cuda = ctypes.CDLL("libcuda.so.1")
    return cuda.cuDevicePrimaryCtxGetState(0, ctypes.byref(flags), ctypes.byref(active)) == 0 and active.value == 1

began = time.monotonic()
with device_context(sys.argv[1]):
    import torch
imported = time.monotonic()
found = is_active()
torch.ones(8, device="cuda").sum().item()
print(json.dumps({"found": found, "imports": imported - began, "first": time.monotonic() - imported}))
"""


def started(device: str) -> dict[str, float]:
    """What a new process tells that makes the context of a device in advance; with cpu it makes none."""
    result = subprocess.run([sys.executable, "-c", PROGRAM, device], check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    return found


def test_torch_finds_the_context_that_was_made_beside_its_import(capsys: pytest.CaptureFixture[str]) -> None:
    started("cpu")  # all that is read is in the page cache
    alone, beside = started("cpu"), started("cuda")
    assert (alone["found"], beside["found"]) == (False, True)
    with capsys.disabled():
        sys.stdout.write(f"\nimports and first kernel: {beside}; without a context in advance: {alone}\n")
