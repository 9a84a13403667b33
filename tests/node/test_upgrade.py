"""`helm upgrade` under load: what was accepted is made, once, and no worker is restarted."""

from __future__ import annotations

import pytest

from .caller import Caller
from .release import Release, until

pytestmark = [pytest.mark.node, pytest.mark.timeout(1800)]


def test_an_upgrade_with_another_value_loses_nothing_and_restarts_no_worker(
    release: Release, caller: Caller, pool: str
) -> None:
    release.apply(pool, scaling={"minReplicas": 1, "maxReplicas": 1})
    until(lambda: release.status(pool)["readyReplicas"], lambda ready: ready == 1)
    before = {name: pod["metadata"]["uid"] for name, pod in release.workers(pool).items()}
    (gateway,) = release.pods("gateway")
    names = caller.queue(4, pool, "--steps=60", "--frames=5")
    values = release.values()
    values["gateway"]["settings"] = {"queue_limit": 321}
    values["operator"]["gpuBudget"] = 5
    release.helm("upgrade", values=values)
    (upgraded,) = release.pods("gateway")
    assert upgraded["metadata"]["uid"] != gateway["metadata"]["uid"]
    done = until(
        lambda: caller.generations(pool), lambda found: all(one["state"] == "SUCCEEDED" for one in found.values())
    )
    assert {name: done[name]["attempt_count"] for name in names} == dict.fromkeys(names, 1)
    assert {name: pod["metadata"]["uid"] for name, pod in release.workers(pool).items()} == before
