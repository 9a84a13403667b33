from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from wan22.client import Client, ParameterOptions
from wan22_testing.installation import Installation
from wan22_testing.tiny_models import shared_folder

T2V = "t2v-a14b-tiny"
STEPS = 100
WORK: ParameterOptions = {"num_inference_steps": STEPS, "num_frames": 33, "seed": 7}
"""Some seconds of a worker's time."""
LEASE = 3
"""Seconds of an attempt's and of a worker's lease: what is dead or paused shows soon."""


@pytest.fixture
async def installation(tmp_path: Path) -> AsyncIterator[Installation]:
    """A gateway, a registry with the model, and two workers that have not been started."""
    async with Installation(tmp_path, lease_seconds=LEASE, worker_lease_seconds=LEASE, queue_limit=6) as running:
        await running.push(T2V, shared_folder(T2V))
        await running.serve(T2V, "w1", "w2")
        yield running


@pytest.fixture
async def client(installation: Installation) -> AsyncIterator[Client]:
    async with installation.client() as opened:
        yield opened
