"""GPU sensors as the gateway tells of them: what they may change, and what of all that they say counts for nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from wan22.v1 import pool_pb2
from wan22_operator.plan import Plan
from wan22_operator.record import Record, State, WorkerRecord

from .observing import MODEL, NOW, States, demand, known, observed, planned, pod, pool_spec, stamp, view

ABSURD = [0.0, 4294967295.0, 42_949_672.95, 1.01, 97.0, -0.1, float("nan"), float("inf")]
"""MIG and some drivers; an unsigned -1 (dcgm-exporter 216, DCGM 199), also as a share; percents; nonsense."""
LONG_AGO = 3600.0
STORE_AHEAD = 1000.0
"""Seconds by which the store's clock is ahead of the operator's."""


def planned_with(
    state: Any, reading: tuple[float, float] | None, since: float = 100.0, queued: int = 0, scaling: Any = None
) -> Plan:
    """Of two such workers, each with its sensor's figure and age; `since` is for how long they have done that."""
    names = ("t2v-0", "t2v-1")
    busy = state == States.BUSY
    told = [known(name, state, generation="generations/g" if busy else "") for name in names]
    running = [pool_pb2.RunningWork(worker=w.name, predicted_seconds=400.0, elapsed_seconds=since) for w in told]
    seen = view(told, demand(queued, running=running if busy else []))
    seen.pool.demand.as_of_time.CopyFrom(stamp(NOW + STORE_AHEAD))
    for bucket in seen.pool.demand.queued:
        bucket.oldest_create_time.CopyFrom(stamp(NOW + STORE_AHEAD - 5))
    for worker in seen.pool.workers:
        if reading is not None:
            worker.gpu.utilization = reading[0]
            worker.gpu.reading_time.CopyFrom(stamp(NOW + STORE_AHEAD - reading[1]))
    record = Record(
        model="wan2.2-t2v-a14b",
        model_version=MODEL.name,
        variant=MODEL.variant,
        workers=tuple(
            WorkerRecord(name=name, uid=f"uid-{name}", state=State.BUSY if busy else State.IDLE, since=NOW - since)
            for name in names
        ),
        desired=2,
    )
    spec = pool_spec(scaling={"maxReplicas": 4, "idleHoldSeconds": 0, **(scaling or {})})
    first = observed(record=record, pods=[pod(name) for name in names], seen=seen, spec=spec)
    return planned(replace(first, record=planned(first).record))


@pytest.mark.parametrize("value", ABSURD)
def test_an_absurd_figure_is_as_none(value: float) -> None:
    for state, queued in ((States.IDLE, 0), (States.BUSY, 9)):
        said, silent = planned_with(state, (value, 1.0), 30.0, queued), planned_with(state, None, 30.0, queued)
        assert (said.record.victims, said.record.desired) == (silent.record.victims, silent.record.desired)
        assert said.record.decision_reason == silent.record.decision_reason
    assert planned_with(States.IDLE, (value, 1.0)).record.victims == ("t2v-0", "t2v-1")


def test_without_any_reading_a_pool_reaches_zero() -> None:
    made = planned_with(States.IDLE, None)
    assert (made.record.victims, made.record.desired) == (("t2v-0", "t2v-1"), 0)


def test_a_gpu_at_work_keeps_its_idle_worker_for_a_minute_and_no_longer() -> None:
    assert planned_with(States.IDLE, (0.5, 1.0), 30.0).record.victims == ()
    assert planned_with(States.IDLE, (0.5, 1.0), 61.0).record.victims == ("t2v-0", "t2v-1")  # a sensor that is stuck
    assert planned_with(States.IDLE, (0.04, 1.0), 30.0).record.victims == ("t2v-0", "t2v-1")
    assert planned_with(States.IDLE, (0.5, LONG_AGO), 30.0).record.victims == ("t2v-0", "t2v-1")


def test_busy_workers_with_a_low_gpu_get_no_help_and_the_reason_says_why() -> None:
    text = "but the busy ones use less than 20% of their GPUs: they wait for something else, and more GPUs would too."
    idle_gpus = planned_with(States.BUSY, (0.08, 1.0), queued=9)
    assert idle_gpus.record.desired == 2
    assert idle_gpus.decision is not None
    assert idle_gpus.decision.reason.endswith(text)
    assert idle_gpus.blocked.endswith(text)  # hence a condition
    assert planned_with(States.BUSY, (0.9, 1.0), queued=9).record.desired == 4
    assert planned_with(States.BUSY, (0.08, LONG_AGO), queued=9).record.desired == 4


def test_no_reading_ever_adds_a_worker_or_goes_below_the_minimum() -> None:
    for value in (0.01, 0.5, 1.0, *ABSURD):
        assert planned_with(States.IDLE, (value, 1.0), scaling={"minReplicas": 2}).record.desired == 2
