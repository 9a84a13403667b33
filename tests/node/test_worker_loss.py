"""A worker that is deleted, or dies, under a generation: another one goes on where it was."""

from __future__ import annotations

from typing import Any

import pytest

from wan22_testing.nodes.cluster import NodeCluster

from .caller import Caller
from .release import Release, until

pytestmark = [pytest.mark.node, pytest.mark.timeout(1800)]
LONG = ("--steps=100", "--frames=5", "--seed=7")
"""25 s."""
UNFINISHED = ("QUEUED", "RUNNING")
STEP = 12
"""By which there is a checkpoint."""
AT_ONCE: dict[str, Any] = {"drainSeconds": 0}
"""A worker that has to leave ends nothing first: on a slow machine, a generation would be made by then."""


def until_step(caller: Caller, name: str, pool: str, step: int) -> None:
    """Waits until a generation has done so many steps, and still runs."""
    found = until(
        lambda: caller.generations(pool)[name],
        lambda one: int(one.get("progress", {}).get("step", 0)) >= step or one["state"] not in UNFINISHED,
    )
    assert found["state"] == "RUNNING"


def worker_at_step(release: Release, caller: Caller, name: str, pool: str) -> str:
    """The pod of the one worker that runs the pool's one generation, once that is well under way."""
    until_step(caller, name, pool, STEP)
    (busy,) = until(lambda: release.busy(pool), bool)
    return busy


def check_it_went_on(caller: Caller, name: str, pool: str, *flags: str) -> None:
    """It ends well, on a second attempt that began where the first was, and is bit for bit the undisturbed video."""
    until(lambda: caller.generations(pool)[name], lambda one: one["state"] not in UNFINISHED)
    attempts = [event["attempt_start"] for event in caller.events(name) if "attempt_start" in event]
    assert [attempt["attempt"] for attempt in attempts] == [1, 2]
    assert int(attempts[1]["resumed_step"]) > 0
    (undisturbed,) = caller.queue(1, f"{pool}-again", *flags)
    caller.events(undisturbed)
    lost, whole = caller.generations(pool)[name], caller.generations(f"{pool}-again")[undisturbed]
    assert lost["state"] == whole["state"] == "SUCCEEDED"
    assert (whole["attempt_count"], lost["attempt_count"]) == (1, 2)
    assert lost["video"]["digest"] == whole["video"]["digest"]


def test_a_generation_of_a_deleted_worker_is_resumed_bit_for_bit(release: Release, caller: Caller, pool: str) -> None:
    release.apply(pool, **AT_ONCE)
    (name,) = caller.queue(1, pool, *LONG)
    pod = worker_at_step(release, caller, name, pool)
    release.kubectl("delete", "pod", pod, *release.inside, "--wait=false")
    check_it_went_on(caller, name, pool, *LONG)


def test_a_generation_of_a_killed_worker_is_resumed_bit_for_bit(
    release: Release, caller: Caller, pool: str, nodes: NodeCluster
) -> None:
    release.apply(pool)
    (name,) = caller.queue(1, pool, *LONG)
    worker = worker_at_step(release, caller, name, pool)
    nodes.kill(release.workers(pool)[worker])
    check_it_went_on(caller, name, pool, *LONG)
