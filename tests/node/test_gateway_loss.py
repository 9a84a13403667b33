"""The gateway's pod is deleted under work: the next one finds what runs, and goes on with it."""

from __future__ import annotations

import pytest

from .caller import Caller
from .release import Release, until
from .test_worker_loss import LONG, worker_at_step

pytestmark = [pytest.mark.node, pytest.mark.timeout(1800)]


def test_a_deleted_gateways_generations_are_attached_to_again(release: Release, caller: Caller, pool: str) -> None:
    release.apply(pool)
    running, waiting = caller.queue(2, pool, *LONG)
    worker_at_step(release, caller, running, pool)
    (old,) = release.pods("gateway")
    release.kubectl("delete", "pod", old["metadata"]["name"], *release.inside, "--wait=false")
    release.kubectl("rollout", "status", f"deployment/{release.name}-gateway", *release.inside, "--timeout=580s")
    done = until(
        lambda: caller.generations(pool), lambda found: all(one["state"] == "SUCCEEDED" for one in found.values())
    )
    assert {name: done[name]["attempt_count"] for name in (running, waiting)} == {running: 1, waiting: 1}
    (new,) = release.pods("gateway")
    assert new["metadata"]["uid"] != old["metadata"]["uid"]
