"""How a pool goes over from one model version to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wan22.v1 import pool_pb2
from wan22_operator.models import Resolved
from wan22_operator.observed import Observed
from wan22_operator.record import Record, State, WorkerRecord
from wan22_operator.revision import revision
from wan22_operator.spec import PoolSpec
from wan22_operator.versions import kept

from .observing import (
    MODEL,
    OTHER_VERSION,
    SETTINGS,
    VERSION,
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

OLD, NEW = VERSION, OTHER_VERSION
THIRD = f"models/wan2.2-t2v-a14b/versions/sha256:{'3' * 64}"
NEXT = Resolved(NEW, "t2v-a14b", 1)
BEGUN = Record(model="wan2.2-t2v-a14b", model_version=OLD, variant="t2v-a14b", desired=0)


def spec_of(trigger: str = "Rolling", **scaling: Any) -> PoolSpec:
    return pool_spec(update={"trigger": trigger}, scaling={"maxReplicas": 4, **scaling})


def worker_pod(spec: PoolSpec, name: str, version: str) -> Any:
    made = pod(name, revision=revision(spec, SETTINGS.worker_image, version))
    made["spec"]["containers"] = [{"args": ["--port=1", f"--model={version}"]}]
    return made


def seen_as(
    *workers: tuple[str, Any],
    spec: PoolSpec | None = None,
    record: Record = BEGUN,
    asked: pool_pb2.Demand | None = None,
    gateway: tuple[str, Sequence[str]] = (OLD, ()),
    model: Resolved = NEXT,
    told: bool = True,
) -> Observed:
    """Workers `t2v-0` and on: the version that each holds, and its state at the gateway (BUSY has a generation)."""
    spec = spec or spec_of()
    names = [f"t2v-{number}" for number in range(len(workers))]
    here = [
        known(name, state, model_version=version, generation="generations/g" if state == States.BUSY else "")
        for name, (version, state) in zip(names, workers, strict=True)
    ]
    of_gateway = view(here, asked)
    of_gateway.pool.model_version = gateway[0]
    of_gateway.pool.earlier_versions.extend(gateway[1])
    records = tuple(WorkerRecord(name=name, uid=f"uid-{name}", state=State.IDLE) for name in names)
    return observed(
        spec=spec,
        record=replace(record, workers=records, next_ordinal=len(names), desired=len(names)),
        pods=[worker_pod(spec, name, version) for name, (version, _) in zip(names, workers, strict=True)],
        nodes=[node(), node("n2")],
        seen=of_gateway,
        model=model,
        told=told,
    )


def work(version: str, queued: int, running: int = 0) -> pool_pb2.EarlierWork:
    return pool_pb2.EarlierWork(model_version=version, queued=queued, queued_seconds=queued * 60.0, running=running)


def declared(seen: Observed) -> tuple[str, list[str]]:
    made = planned(seen).declared
    assert made is not None
    return made.model_version, list(made.earlier_versions)


ROLLING = replace(BEGUN, model_version=NEW, earlier_version=OLD)


def test_under_load_one_worker_is_replaced_and_nothing_is_accepted_with_the_next_version_before_it_is_ready() -> None:
    busy = [(OLD, States.BUSY)] * 4
    first = planned(seen_as(*busy, asked=demand(queued=9)))
    assert (first.record.model_version, first.record.earlier_version) == (NEW, OLD)
    assert first.record.victims == ("t2v-3",)  # it ends what it does
    assert declared(seen_as(*busy, asked=demand(queued=9))) == (OLD, [NEW])
    loading = seen_as(*busy[1:], (NEW, States.LOADING), record=ROLLING, asked=demand(queued=9), gateway=(OLD, [NEW]))
    assert declared(loading) == (OLD, [NEW])
    assert planned(loading).record.victims == ()  # one is missing already
    ready = seen_as(*busy[1:], (NEW, States.IDLE), record=ROLLING, asked=demand(queued=9), gateway=(OLD, [NEW]))
    assert declared(ready) == (NEW, [OLD])
    dead = seen_as(*busy[1:], record=ROLLING, asked=demand(queued=9), gateway=(NEW, [OLD]))
    assert declared(dead) == (NEW, [OLD])  # it never goes back by itself


@pytest.mark.parametrize("state", [States.IDLE, States.BUSY])
def test_a_pool_of_one_worker_accepts_with_the_next_version_at_once(state: Any) -> None:
    seen = seen_as((OLD, state))
    assert declared(seen) == (NEW, [OLD])
    assert planned(seen).record.victims == ("t2v-0",)


def test_under_a_gateway_of_the_release_before_a_version_waits_until_present_work_is_done() -> None:
    seen = seen_as((OLD, States.BUSY), asked=demand(queued=1))
    for worker in () if seen.view is None else seen.view.pool.workers:
        worker.model_version = ""
    made = planned(seen)
    assert (made.record.model_version, made.record.victims) == (OLD, ())
    assert reasons(seen, made)["ModelResolved"][2].endswith("or present work is done.")


def test_a_pool_without_workers_goes_over_with_its_first_one_and_makes_workers_of_both_for_both_queues() -> None:
    asked = demand(queued=3, seconds=200.0)
    assert declared(seen_as(asked=asked)) == (OLD, [])
    assert declared(seen_as((OLD, States.LOADING), asked=asked)) == (NEW, [OLD])
    assert declared(seen_as()) == (NEW, [OLD])
    mixed = demand(queued=3, seconds=200.0, earlier=[work(OLD, 1)])
    made = planned(seen_as(asked=mixed, record=ROLLING, gateway=(NEW, [OLD])))
    assert [worker.model_version for worker in made.record.workers] == [OLD, ""]  # of the new one a first, to be tried
    assert [made.record.version_for(worker) for worker in made.record.workers] == [OLD, NEW]


def test_the_last_worker_of_the_earlier_version_stays_until_its_queue_is_empty() -> None:
    both, spec = [(OLD, States.BUSY), (NEW, States.IDLE)], spec_of(minReplicas=2)
    asked = demand(queued=1, earlier=[work(OLD, 1, running=1)])
    assert planned(seen_as(*both, spec=spec, asked=asked, record=ROLLING, gateway=(NEW, [OLD]))).record.victims == ()
    asked = demand(earlier=[work(OLD, 0, running=1)])
    last = planned(seen_as(*both, spec=spec, asked=asked, record=ROLLING, gateway=(NEW, [OLD])))
    assert last.record.victims == ("t2v-0",)  # it ends what it does, and then goes
    assert last.record.earlier_version == OLD
    gone = planned(seen_as((NEW, States.IDLE), record=ROLLING, gateway=(NEW, [OLD])))
    assert gone.record.earlier_version == ""
    assert gone.declared is not None
    assert list(gone.declared.earlier_versions) == []


def test_a_lost_worker_of_the_earlier_version_is_made_again_for_what_it_left() -> None:
    asked = demand(queued=1, earlier=[work(OLD, 1)])
    spec = spec_of(minReplicas=1, maxReplicas=2)
    made = planned(seen_as((NEW, States.BUSY), spec=spec, asked=asked, record=ROLLING, gateway=(NEW, [OLD])))
    assert [made.record.version_for(one) for one in made.record.workers if not one.uid] == [OLD]
    full = spec_of(minReplicas=1, maxReplicas=1)
    busy = planned(seen_as((NEW, States.BUSY), spec=full, asked=asked, record=ROLLING, gateway=(NEW, [OLD])))
    assert busy.record.victims == ()
    idle = planned(seen_as((NEW, States.IDLE), spec=full, asked=asked, record=ROLLING, gateway=(NEW, [OLD])))
    assert idle.record.victims == ("t2v-0",)  # there is room for one


def test_one_that_fails_is_not_made_again_and_again_at_the_cost_of_the_present_version() -> None:
    asked = demand(queued=2, earlier=[work(OLD, 1)])
    spec = spec_of(maxReplicas=1)
    broken = seen_as((OLD, States.BROKEN), spec=spec, asked=asked, record=ROLLING, gateway=(NEW, [OLD]))
    made = planned(broken)
    assert made.record.victims == ("t2v-0",)
    again = replace(made.record, workers=())
    after = planned(seen_as(spec=spec, asked=asked, record=again, gateway=(NEW, [OLD])))
    assert [after.record.version_for(one) for one in after.record.workers] == [NEW]


def test_on_idle_takes_no_busy_worker_and_manual_none_at_all() -> None:
    on_idle = spec_of("OnIdle")
    made = planned(seen_as((OLD, States.BUSY), (OLD, States.IDLE), spec=on_idle))
    assert made.record.victims == ("t2v-1",)
    assert planned(seen_as((OLD, States.BUSY), spec=on_idle)).record.victims == ()
    manual = spec_of("Manual", minReplicas=1)
    seen = seen_as((OLD, States.IDLE), spec=manual)
    kept_as_it_is = planned(seen)
    assert (kept_as_it_is.record.model_version, kept_as_it_is.record.victims) == (OLD, ())
    assert reasons(seen, kept_as_it_is)["ModelResolved"][1:] == (
        "NewVersionWaits",
        f"wan2.2-t2v-a14b is {NEW} now: update.trigger is Manual: it is taken when no present worker is left.",
    )
    assert planned(seen_as(spec=manual)).record.model_version == NEW


def test_it_goes_back_at_once_and_passes_over_a_version_that_never_worked() -> None:
    canary = [(OLD, States.BUSY)] * 3
    broken = seen_as(*canary, (NEW, States.BROKEN), record=ROLLING, gateway=(OLD, [NEW]), model=MODEL)
    back = planned(broken)
    assert (back.record.model_version, back.record.earlier_version) == (OLD, NEW)
    assert back.record.victims == ("t2v-3",)
    third = Resolved(THIRD, "t2v-a14b", 1)
    fixed = planned(seen_as(*canary, (NEW, States.BROKEN), record=ROLLING, gateway=(OLD, [NEW]), model=third))
    assert (fixed.record.model_version, fixed.record.earlier_version) == (THIRD, OLD)
    assert fixed.record.victims == ("t2v-3",)
    accepted = seen_as(*canary, (NEW, States.IDLE), record=ROLLING, gateway=(NEW, [OLD]), model=third)
    waits = planned(accepted)
    assert waits.record.model_version == NEW
    assert reasons(accepted, waits)["ModelResolved"][2].endswith(f"it is taken when {OLD} is gone.")


def test_on_figures_that_are_not_fresh_nothing_goes_over() -> None:
    blind = seen_as((OLD, States.IDLE), told=False)
    made = planned(blind)
    assert (made.record.model_version, made.record.victims) == (OLD, ())


def test_another_variant_waits_until_present_work_is_done() -> None:
    other = Resolved(NEW, "i2v-a14b", 1)
    busy = seen_as((OLD, States.IDLE), asked=demand(queued=1), model=other)
    assert planned(busy).record.variant == "t2v-a14b"
    made = planned(seen_as((OLD, States.IDLE), model=other))
    assert made.declared is not None
    assert (made.declared.variant, made.declared.model_version) == ("i2v-a14b", NEW)


def test_work_of_a_version_that_nobody_remembers_is_found_by_the_gateways_figures() -> None:
    asked = demand(queued=1, earlier=[work(OLD, 1)])
    made = planned(seen_as(asked=asked, record=replace(BEGUN, model_version=NEW), gateway=(NEW, [])))
    assert made.record.earlier_version == OLD
    assert [made.record.version_for(one) for one in made.record.workers] == [OLD]


@given(
    wanted=st.integers(1, 8),
    old=st.integers(0, 20),
    new=st.integers(0, 20),
    most=st.integers(1, 4),
    switched=st.booleans(),
)
def test_a_queue_of_the_earlier_version_always_has_a_worker_and_never_all_but_what_may_be_missing(
    wanted: int, old: int, new: int, most: int, switched: bool
) -> None:
    spec = pool_spec(update={"trigger": "Rolling", "maxUnavailable": most}, scaling={"maxReplicas": 8})
    earlier = work(OLD, old) if switched else work(NEW, new)
    asked = demand(queued=old + new, earlier=[earlier] if earlier.queued else [])
    seen = seen_as(spec=spec, asked=asked, record=ROLLING, gateway=(NEW, [OLD]) if switched else (OLD, [NEW]))
    count = kept(seen, ROLLING, wanted)
    assert (count > 0) == (old > 0)
    assert count <= old
    assert count <= max(1, wanted - most)
