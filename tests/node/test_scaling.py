"""Workers as many as the load takes, and none without any."""

from __future__ import annotations

import pytest

from .caller import Caller
from .release import Release, until
from .test_worker_loss import LONG

pytestmark = [pytest.mark.node, pytest.mark.timeout(1800)]


def test_a_pool_is_scaled_to_three_under_load_and_back_to_zero_and_loses_nothing(
    release: Release, caller: Caller, pool: str
) -> None:
    release.apply(pool, scaling={"maxReplicas": 3, "objectiveSeconds": 20, "idleHoldSeconds": 10})
    (first,) = caller.queue(1, f"{pool}-first", *LONG)
    caller.events(first)  # by which the gateway learns how long they take
    names = caller.queue(9, pool, *LONG)
    until(lambda: release.status(pool)["readyReplicas"], lambda ready: ready == 3)
    done = until(
        lambda: caller.generations(pool), lambda found: all(one["state"] == "SUCCEEDED" for one in found.values())
    )
    assert set(done) == set(names)
    assert {one["attempt_count"] for one in done.values()} == {1}
    until(lambda: release.workers(pool), lambda pods: not pods)
