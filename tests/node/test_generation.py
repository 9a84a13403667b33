"""From nothing to a video: the pool is at zero, and a request brings a worker up."""

from __future__ import annotations

import io

import av
import pytest

from .caller import Caller
from .release import Release, until

pytestmark = [pytest.mark.node, pytest.mark.timeout(1800)]


def check_it_goes_from_zero_to_a_video(release: Release, caller: Caller, pool: str) -> None:
    """A pool without workers gets one for the first request, which makes its video at the first attempt; then none."""
    assert release.workers(pool) == {}
    (name,) = caller.queue(1, pool, "--steps=4", "--frames=5")
    until(lambda: release.status(pool), lambda status: status["readyReplicas"] == 1)
    kinds = [next(iter(event.keys() - {"sequence", "event_time"})) for event in caller.events(name)]
    assert kinds.count("attempt_start") == 1
    with av.open(io.BytesIO(caller.video(name)), "r") as video:
        assert len(list(video.decode(video=0))) == 5
    until(lambda: release.workers(pool), lambda pods: not pods)


def test_a_pool_goes_from_zero_to_ready_on_the_first_request_and_an_mp4_comes_back(
    release: Release, caller: Caller, pool: str
) -> None:
    release.apply(pool)
    check_it_goes_from_zero_to_a_video(release, caller, pool)
