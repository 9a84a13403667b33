"""A revision that has never had a ready worker is tried with one: a broken image starts no fleet."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from wan22_operator.memory import Memory
from wan22_operator.plan import Plan, plan
from wan22_operator.record import Load, Record, State

from .observing import NOW, SETTINGS, States, demand, known, node, observed, planned, pod, pool_spec, reasons, view

SPEC = pool_spec(scaling={"minReplicas": 3, "maxReplicas": 4})


def follows(before: Plan, *pods: Any, told: Any = (), after: float = 0.0, spec: Any = SPEC, **more: Any) -> Any:
    return observed(spec=spec, record=before.record, pods=pods, seen=view(told), now=NOW + after, **more)


def names(made: Plan) -> list[str]:
    return [worker.name for worker in made.record.workers]


def of_revision(made: Plan, name: str, **status: Any) -> Any:
    return pod(name, revision=made.record.revision, **status)


def ended(times: int, state: dict[str, Any]) -> list[dict[str, Any]]:
    """A container that has ended so many times, with code 3."""
    return [{"restartCount": times, "state": state, "lastState": {"terminated": {"exitCode": 3}}}]


def test_one_worker_is_made_and_the_others_follow_when_it_is_ready() -> None:
    first = planned(observed(spec=SPEC, seen=view()))
    assert (names(first), first.record.desired) == (["t2v-0"], 3)
    tried = of_revision(first, "t2v-0")
    seen = follows(first, tried, told=[known("t2v-0", States.LOADING, bytes_left=9)])
    loading = planned(seen)
    assert names(loading) == ["t2v-0"]
    text = (
        "t2v-0 is the first worker as the spec says: 2 more follow when it is ready, or after 240 s without a failure."
    )
    assert reasons(seen, loading)["ScalingActive"] == ("True", "FirstWorker", text)
    ready = planned(follows(loading, tried, told=[known("t2v-0")]))
    assert names(ready) == ["t2v-0", "t2v-1", "t2v-2"]
    assert ready.record.proven == ready.record.revision


def test_what_was_once_ready_is_not_tried_again_also_from_zero() -> None:
    proven = planned(observed(spec=SPEC, seen=view())).record
    proven = replace(proven, workers=(), proven=proven.revision)
    assert Record.from_status(proven.to_status(), NOW).proven == proven.revision
    made = planned(observed(spec=SPEC, record=proven, seen=view(asked=demand(queued=9))))
    assert len(made.record.workers) >= 3


def test_another_image_is_tried_anew() -> None:
    first = planned(observed(spec=SPEC, seen=view()))
    pods = [of_revision(first, "t2v-0")]
    record = planned(follows(first, *pods, told=[known("t2v-0")])).record
    other = pool_spec(image="worker:2", scaling={"minReplicas": 3, "maxReplicas": 4})
    made = planned(observed(spec=other, record=replace(record, workers=()), seen=view()))
    assert len(made.record.workers) == 1
    assert made.record.proven != made.record.revision


@pytest.mark.parametrize("moment", ["waits", "runs"])
def test_a_worker_that_crashes_again_and_again_stays_alone_at_every_moment_of_it(moment: str) -> None:
    """Between two crashes its container runs for a while, and looks like one that starts."""
    states: dict[str, Any] = {
        "waits": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
        "runs": {"running": {}},
    }
    first = planned(observed(spec=SPEC, seen=view()))
    crashing = of_revision(first, "t2v-0", containerStatuses=ended(4, states[moment]))
    seen = follows(first, crashing, after=3600.0)
    made = planned(seen)
    assert names(made) == ["t2v-0"]
    assert reasons(seen, made)["ScalingActive"][1] == "Blocked"
    assert reasons(seen, made)["ScalingActive"][2].startswith("t2v-0 is broken: ")


def test_a_crash_is_told_with_its_code_while_the_container_runs_again() -> None:
    first = planned(observed(spec=SPEC, seen=view()))
    made = planned(follows(first, of_revision(first, "t2v-0", containerStatuses=ended(2, {"running": {}}))))
    assert made.blocked == "t2v-0 is broken: its process has ended 2 times, last with code 3."


def test_a_load_that_failed_is_tried_with_one_worker_again() -> None:
    first = planned(observed(spec=SPEC, seen=view()))
    tried = of_revision(first, "t2v-0")
    two: dict[str, Any] = {"nodes": [node("n1"), node("n2")]}
    failed = planned(follows(first, tried, told=[known("t2v-0", States.BROKEN, error="out of memory")], **two))
    assert failed.record.victims == ("t2v-0",)
    assert names(failed) == ["t2v-0"]
    gone = planned(follows(failed, **two))
    assert names(gone) == ["t2v-1"]


@pytest.mark.parametrize(("loads", "seconds"), [((), 240.0), ((50.0,), 120.0), ((200.0,), 400.0)])
def test_a_first_load_that_takes_long_holds_the_others_up_no_longer_than_two_loads(
    loads: tuple[float, ...], seconds: float
) -> None:
    first = planned(observed(spec=SPEC, seen=view()))
    record = replace(first.record, loads=tuple(Load(NOW, each) for each in loads))
    first = replace(first, record=record)
    tried, told = of_revision(first, "t2v-0"), [known("t2v-0", States.LOADING, bytes_left=9)]
    begun = 100.0  # its node was given it so long before NOW
    assert names(planned(follows(first, tried, told=told, after=seconds - begun - 1))) == ["t2v-0"]
    assert len(names(planned(follows(first, tried, told=told, after=seconds - begun + 1)))) == 3


def test_a_lost_first_worker_is_followed_by_another_one() -> None:
    first = planned(observed(spec=SPEC, seen=view()))
    dead = [known("t2v-0", alive=False)]
    nodes = [node("n1", ready=False), node("n2")]
    made = planned(follows(first, of_revision(first, "t2v-0"), told=dead, nodes=nodes))
    assert [(worker.name, worker.state) for worker in made.record.workers] == [
        ("t2v-0", State.LOST),
        ("t2v-1", State.CREATING),
    ]


def test_an_external_scaler_gets_one_first_too() -> None:
    spec = pool_spec(scaling={"mode": "External", "maxReplicas": 4}, replicas=4)
    made = plan(observed(spec=spec, seen=view()), SETTINGS, Memory())
    assert (names(made), made.record.desired) == (["t2v-0"], 4)
