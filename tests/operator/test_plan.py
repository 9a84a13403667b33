from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from wan22.v1 import pool_pb2
from wan22_operator.memory import Memory
from wan22_operator.plan import Plan, plan
from wan22_operator.record import Record, State, WorkerRecord
from wan22_operator.replacing import patient
from wan22_operator.scaling.history import History
from wan22_operator.spec import PoolSpec

from .observing import (
    KEY,
    MODEL,
    NOW,
    SETTINGS,
    States,
    demand,
    known,
    node,
    observed,
    planned,
    pod,
    pool_spec,
    reasons,
    view,
)


def running(*names: str, spec: PoolSpec | None = None, **fields: Any) -> Record:
    """A record with workers of the present revision, all idle for long."""
    made = planned(observed(spec=spec, seen=view()))
    workers = [
        WorkerRecord(
            name=name,
            uid=f"uid-{name}",
            node="n1",
            revision=made.record.revision,
            state=State.IDLE,
            since=NOW - 5000 + number,
        )
        for number, name in enumerate(names)
    ]
    record = replace(made.record, workers=tuple(workers), next_ordinal=len(names), desired=len(names))
    return replace(record, history=History(((NOW - 4000, len(names)),)), **fields)


def pods_of(record: Record) -> list[Any]:
    return [pod(worker.name, revision=worker.revision) for worker in record.workers]


def test_the_first_worker_is_recorded_with_the_next_number_before_it_is_created() -> None:
    made = planned(observed(seen=view(asked=demand(queued=1))))
    (worker,) = made.record.workers
    assert (worker.name, worker.uid, worker.state) == ("t2v-0", "", State.CREATING)
    assert made.record.next_ordinal == 1
    assert made.record.desired == 1
    assert "queued work (1" in made.record.decision_reason
    assert made.events[0][1] == "ScaledUp"


def test_a_recorded_worker_without_a_pod_is_not_recorded_twice() -> None:
    first = planned(observed(seen=view(asked=demand(queued=1))))
    again = planned(observed(record=first.record, seen=view(asked=demand(queued=1))))
    assert again.record.workers == first.record.workers
    assert again.record.next_ordinal == 1


def test_a_number_is_never_used_twice() -> None:
    record = running("t2v-0", "t2v-1")
    gone = planned(observed(record=record, pods=pods_of(record)[:1], seen=view([known("t2v-0")])))
    assert [worker.name for worker in gone.record.workers] == ["t2v-0"]
    grown = planned(
        observed(record=gone.record, pods=pods_of(gone.record), seen=view([known("t2v-0")], demand(8, 300.0)))
    )
    assert "t2v-1" not in [worker.name for worker in grown.record.workers]
    assert grown.record.workers[1].name == "t2v-2"


def test_pods_that_no_record_has_are_taken_in_and_their_numbers_kept() -> None:
    made = planned(observed(pods=[pod("t2v-7")], seen=view([known("t2v-7")])))
    assert made.record.workers[0].name == "t2v-7"
    assert made.record.workers[0].uid == "uid-t2v-7"
    assert made.record.next_ordinal == 8


def test_an_idle_worker_leaves_when_it_was_not_needed_for_a_while() -> None:
    record = running("t2v-0", "t2v-1")
    made = planned(observed(record=record, pods=pods_of(record), seen=view([known("t2v-0"), known("t2v-1")])))
    assert made.record.victims == ("t2v-0", "t2v-1")
    assert made.record.desired == 0
    assert made.events[0][1] == "ScaledDown"


@pytest.mark.parametrize("blindness", ["no figures", "old figures"])
def test_nothing_is_removed_without_fresh_figures(blindness: str) -> None:
    record = running("t2v-0", "t2v-1")
    seen = None if blindness == "no figures" else view([known("t2v-0"), known("t2v-1")])
    for spec in (pool_spec(), pool_spec(scaling={"mode": "External", "maxReplicas": 4}, replicas=0)):
        blind = observed(spec=spec, record=record, pods=pods_of(record), seen=seen, told=False)
        assert planned(blind).record.victims == ()


def test_mode_external_takes_spec_replicas_and_chooses_idle_workers() -> None:
    spec = pool_spec(scaling={"mode": "External", "maxReplicas": 4}, replicas=1)
    record = running("t2v-0", "t2v-1", spec=spec)
    workers = [known("t2v-0", States.BUSY, generation="generations/g"), known("t2v-1")]
    made = planned(observed(spec=spec, record=record, pods=pods_of(record), seen=view(workers)))
    assert made.record.victims == ("t2v-1",)
    assert made.record.desired == 1
    grown = planned(observed(spec=replace(spec, replicas=9), record=record, pods=pods_of(record), seen=view(workers)))
    assert [worker.name for worker in grown.record.workers[2:]] == ["t2v-2", "t2v-3"]


def test_a_victim_that_was_given_a_generation_before_it_was_fenced_stays() -> None:
    record = running("t2v-0", victims=("t2v-0",))
    busy = view([known("t2v-0", States.BUSY, generation="generations/g")])
    assert planned(observed(record=record, pods=pods_of(record), seen=busy)).record.victims == ()
    fenced = view([known("t2v-0", States.BUSY, generation="generations/g", fenced=True)])
    assert planned(observed(record=record, pods=pods_of(record), seen=fenced)).record.victims == ("t2v-0",)


def test_busy_workers_beyond_a_lowered_maximum_leave_when_they_have_ended_what_they_do() -> None:
    record = running("t2v-0", "t2v-1", "t2v-2")
    spec = pool_spec(scaling={"maxReplicas": 2})
    told = [known(name, States.BUSY, generation="generations/g") for name in ("t2v-0", "t2v-1", "t2v-2")]
    seen = observed(spec=spec, record=record, pods=pods_of(record), seen=view(told, demand(queued=9)))
    made = planned(seen)
    assert made.record.victims == ("t2v-0",)
    assert patient(spec, made.workers, made.record.victims, made.record.revision) == {"t2v-0"}
    told[0] = known("t2v-0", States.BUSY, generation="generations/g", fenced=True)
    seen = observed(spec=spec, record=made.record, pods=pods_of(record), seen=view(told, demand(queued=9)))
    assert planned(seen).record.victims == ("t2v-0",)


def test_a_load_is_expected_to_end_at_the_pace_that_it_has_had() -> None:
    record = running("t2v-0")
    loading = view([known("t2v-0", States.LOADING, bytes_left=100)])
    memory = Memory()
    memory.note(planned(observed(record=record, pods=pods_of(record), seen=loading)).workers, NOW)
    further = view([known("t2v-0", States.LOADING, bytes_left=25)])
    (worker,) = planned(observed(record=record, pods=pods_of(record), seen=further), memory).workers
    memory.note([worker], NOW + 30)
    assert memory.load_seconds_left(worker, NOW + 30) == 10
    assert Memory().load_seconds_left(worker, NOW) is None


def test_a_lost_worker_is_replaced_at_once_and_counts_for_nothing() -> None:
    spec = pool_spec(scaling={"minReplicas": 1, "maxReplicas": 1})
    record = running("t2v-0", spec=spec)
    dead = view([known("t2v-0", alive=False)])
    seen = observed(
        spec=spec, record=record, pods=pods_of(record), nodes=[node("n1", ready=False), node("n2")], seen=dead
    )
    made = planned(seen)
    assert [(worker.name, worker.state) for worker in made.record.workers] == [
        ("t2v-0", State.LOST),
        ("t2v-1", State.CREATING),
    ]
    assert made.record.victims == ("t2v-0",)
    assert reasons(seen, made)["Healthy"][1] == "WorkerLost"


def test_a_worker_that_answers_on_a_node_that_is_not_ready_is_not_lost() -> None:
    record = running("t2v-0")
    seen = observed(record=record, pods=pods_of(record), nodes=[node(ready=False)], seen=view([known("t2v-0")]))
    assert planned(seen).record.workers[0].state is State.IDLE


def test_a_load_that_stands_still_is_given_up_and_its_node_avoided_longer_each_time() -> None:
    record = running("t2v-0")
    record = replace(record, workers=(replace(record.workers[0], state=State.LOADING, bytes_left=10),))
    loading = view([known("t2v-0", States.LOADING, bytes_left=10)], demand(queued=1))
    memory = Memory(progress={"uid-t2v-0": (10, NOW - 121)})
    made = planned(observed(record=record, pods=pods_of(record), seen=loading), memory)
    assert made.record.victims == ("t2v-0",)
    (avoided,) = made.record.avoided
    assert (avoided.node, avoided.until - NOW, avoided.failures) == ("n1", 60, 1)
    other = replace(made.record, victims=())
    again = planned(observed(record=other, pods=pods_of(record), seen=loading), memory)
    assert (again.record.avoided[0].until - NOW, again.record.avoided[0].failures) == (120, 2)
    still_fine = Memory(progress={"uid-t2v-0": (10, NOW - 119)})
    assert planned(observed(record=record, pods=pods_of(record), seen=loading), still_fine).record.victims == ()


def test_no_second_worker_is_made_while_the_first_cannot_start() -> None:
    record = running("t2v-0")
    waiting = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}
    pods = [pod("t2v-0", revision=record.revision, containerStatuses=[waiting])]
    seen = observed(record=record, pods=pods, seen=view(asked=demand(queued=50)))
    made = planned(seen)
    assert len(made.record.workers) == 1
    assert made.record.workers[0].reason == "ImagePullBackOff: no such image"
    assert reasons(seen, made)["Ready"] == (
        "False",
        "Blocked",
        "t2v-0 is broken: ImagePullBackOff: no such image",
    )


def declared(made: Plan) -> pool_pb2.Pool:
    assert made.declared is not None
    return made.declared


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("0/2 nodes are available: 2 Insufficient nvidia.com/gpu.", "no GPU is free: 0/2 nodes are available"),
        ("0/2 nodes are available: 2 node(s) had untolerated taint {a: b}.", "0/2 nodes are available: 2 node(s)"),
        ("x" * 5000, "x" * 1000),
    ],
)
def test_the_gateway_is_told_why_no_worker_comes(reason: str, told: str) -> None:
    record = running("t2v-0")
    waiting = pod("t2v-0", node=None, revision=record.revision)
    waiting["status"]["conditions"][0]["message"] = reason
    made = planned(observed(record=record, pods=[waiting], seen=view(asked=demand(queued=1))))
    assert declared(made).obstacle.startswith(told)
    assert len(declared(made).obstacle) <= 1000
    made = planned(observed(record=record, pods=pods_of(record), seen=view(asked=demand(queued=1))))
    assert declared(made).obstacle == ""


def test_a_pool_that_the_gpu_budget_leaves_nothing_says_so_to_the_gateway() -> None:
    seen = observed(seen=view(asked=demand(queued=1)))
    made = plan(seen, SETTINGS, Memory(), budget=0, shortage="The GPU budget of 2 leaves it 0 of the 1 workers wanted.")
    assert declared(made).obstacle == "The GPU budget of 2 leaves it 0 of the 1 workers wanted."


def test_a_missing_tag_is_a_condition_in_words() -> None:
    text = "Waiting for model wan2.2-t2v-a14b:fp8: no such tag. The tags are: latest."
    seen = observed(model=None, error=text, seen=view())
    made = planned(seen)
    assert made.declared is None
    assert made.record.workers == ()
    assert reasons(seen, made)["Ready"] == ("False", "ModelUnavailable", text)


def test_a_registry_that_is_away_changes_nothing_for_a_pool_that_runs() -> None:
    record = running("t2v-0")
    seen = observed(record=record, pods=pods_of(record), model=None, error="away", seen=view([known("t2v-0")]))
    made = planned(seen)
    assert made.record.model_version == MODEL.name
    assert reasons(seen, made)["Ready"][0] == "True"


def test_the_default_image_is_the_one_of_the_first_round() -> None:
    record = replace(running("t2v-0"), default_image="worker:0", image="worker:0")
    made = planned(observed(record=record, pods=pods_of(record), seen=view([known("t2v-0")])))
    assert made.record.image == "worker:0"


def test_a_paused_pool_is_looked_at_and_left_alone() -> None:
    spec = pool_spec(paused=True, scaling={"maxReplicas": 4})
    record = running("t2v-0")
    seen = observed(spec=spec, record=record, pods=pods_of(record), seen=view([known("t2v-0")], demand(queued=90)))
    made = planned(seen)
    assert [worker.name for worker in made.record.workers] == ["t2v-0"]
    assert made.record.victims == ()
    assert reasons(seen, made)["ScalingActive"][1] == "Paused"


def test_a_load_time_is_measured_from_the_node_to_the_first_readiness() -> None:
    record = running("t2v-0")
    record = replace(record, workers=(replace(record.workers[0], state=State.LOADING),))
    made = planned(observed(record=record, pods=pods_of(record), seen=view([known("t2v-0")])))
    assert [load.seconds for load in made.record.loads] == [100.0]


def test_a_name_that_is_taken_by_somebody_else_is_passed_over() -> None:
    first = planned(observed(seen=view(asked=demand(queued=1))))
    again = planned(observed(record=first.record, seen=view(asked=demand(queued=1))), Memory(taken={"t2v-0"}))
    assert [worker.name for worker in again.record.workers] == ["t2v-1"]


def test_workers_are_declared_by_their_service() -> None:
    made = planned(observed(seen=view()))
    assert made.declared is not None
    assert made.declared.name == KEY.pool
    assert list(made.declared.worker_targets) == ["t2v-workers.videos.svc.cluster.local:50061"]
    assert made.declared.max_workers == 4


def test_a_cold_page_cache_serves_few_loads_at_a_time_also_after_a_restart() -> None:
    spec = pool_spec(scaling={"minReplicas": 9, "maxReplicas": 9})
    tried = planned(observed(spec=spec, seen=view())).record
    proven = replace(tried, workers=(), next_ordinal=0, proven=tried.revision)
    first = planned(observed(spec=spec, record=proven, seen=view()))
    assert len(first.record.workers) == SETTINGS.loads_per_node == 4
    names = [worker.name for worker in first.record.workers]
    loading = [known(name, States.LOADING) for name in names]
    made = planned(observed(spec=spec, record=first.record, pods=[pod(name) for name in names], seen=view(loading)))
    assert len(made.record.workers) == 4  # a restarted operator, which remembers nothing, sees those that load
    one_ready = [known(names[0]), *loading[1:]]
    more = planned(observed(spec=spec, record=made.record, pods=[pod(name) for name in names], seen=view(one_ready)))
    assert len(more.record.workers) == 5


def test_a_rolling_update_adds_no_worker_beyond_those_wanted() -> None:  # kubernetes issue 72775
    rolling = {"trigger": "Rolling", "maxUnavailable": 2}
    spec = pool_spec(image="worker:2", update=rolling, scaling={"minReplicas": 4, "maxReplicas": 9})
    record, names = running("t2v-0", "t2v-1", "t2v-2", "t2v-3"), [f"t2v-{number}" for number in range(4)]
    record = replace(record, desired=4)
    pods = [pod(name, revision="1-before") for name in names]
    busy = view([known(name, States.BUSY, generation="generations/g") for name in names], demand(queued=0))
    made = planned(observed(spec=spec, record=record, pods=pods, seen=busy))
    assert (made.record.desired, len(made.record.victims), len(made.record.workers)) == (4, 2, 4)
    deleted = [pods[0], {**pods[1], "metadata": {**pods[1]["metadata"], "deletionTimestamp": "now"}}, *pods[2:]]
    again = planned(observed(spec=spec, record=made.record, pods=deleted, seen=busy))
    assert again.record.desired == 4
    assert len(again.record.workers) == 4  # two end what they do, and hold their GPUs until then
