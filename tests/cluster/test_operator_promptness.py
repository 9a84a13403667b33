"""How soon the operator decides: when a queue begins, and after it was started anew. Its timer is of no help here."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from pathlib import Path

import pytest

from wan22_testing.cluster.control_plane import ControlPlane
from wan22_testing.cluster.programs import Programs

from .operated import Operated, operated_on, until

POOLS = tuple(f"pool-{number}" for number in range(8))
LATER = ("later", "last")
RESYNC_SECONDS = 600
SOON, AFTER_START = 1.0, 15.0
"""Seconds within which a decision is promised: after a generation was accepted, and after the operator's start."""


def decided(operated: Operated, pool: str) -> float | None:
    """When a pool was scaled up; seconds since the epoch."""
    events = operated.kubectl.get("events.events.k8s.io", *operated.inside)["items"]
    times = [one["eventTime"] for one in events if (one["reason"], one["regarding"]["name"]) == ("ScaledUp", pool)]
    return datetime.fromisoformat(times[0]).timestamp() if times else None


@pytest.mark.usefixtures("kubectl")
async def test_a_queue_that_begins_is_decided_on_within_a_second_and_after_a_restart_within_fifteen(
    control_plane: ControlPlane, programs: Programs, tmp_path: Path
) -> None:
    async with operated_on(control_plane, programs, tmp_path, "operator-prompt") as operated:
        operator = operated.operator(resync_seconds=RESYNC_SECONDS)
        operator.start()
        await operator.until()
        operated.apply(*POOLS, *LATER, scaling={"maxReplicas": 1})
        for name in (*POOLS, *LATER):
            await until(lambda name=name: operated.condition(name, "Ready"), lambda found: found == "Idle")
        async with operated.installation.client() as client:
            delays = []
            for name in POOLS:
                asked = (await operated.create(client, name)).create_time.ToMicroseconds() / 1e6
                at = await until(lambda name=name: decided(operated, name), lambda found: found is not None)
                delays.append(at - asked)
            starts = []
            for name in LATER:
                operator.kill()
                await operated.create(client, name)
                began = time.time()
                operator.start()
                at = await until(lambda name=name: decided(operated, name), lambda found: found is not None)
                starts.append(at - began)
        await asyncio.to_thread(operator.stop)
    figures = f"{sorted(delays)} s after the queue began, {sorted(starts)} s after a start"
    print(figures)  # noqa: T201  # pytest shows it with -s
    assert min(delays) <= SOON, figures  # the others on a machine that is busy with something else
    assert min(starts) <= AFTER_START, figures
    assert max(*delays, *starts) < RESYNC_SECONDS / 5, figures
