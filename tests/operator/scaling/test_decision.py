from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wan22_operator.record import Record
from wan22_operator.scaling.decision import ASSUMED_LOAD_SECONDS, Decision, decide, load_seconds
from wan22_operator.scaling.history import MAX_STEPS, History
from wan22_operator.scaling.snapshot import Demand, Limits, Queued, Reading, Snapshot, Worker, WorkerState

NOW = 1_000_000.0
LOADS = (90.0,) * 5
LIMITS = Limits(maximum=8, objective_seconds=120.0)
IDLE, BUSY, LOADING, LEAVING, UNKNOWN = (
    WorkerState.IDLE,
    WorkerState.BUSY,
    WorkerState.LOADING,
    WorkerState.LEAVING,
    WorkerState.UNKNOWN,
)


def worker(name: str, state: WorkerState, age: float = 10.0, **more: Any) -> Worker:
    return Worker(name=name, state=state, since=NOW - age, **more)


def queue(count: int, seconds: float = 100.0, wait: float = 0.0) -> tuple[Queued, ...]:
    return tuple(Queued(1, seconds, NOW - wait) for _ in range(count))


def snapshot(workers: tuple[Worker, ...] = (), queued: tuple[Queued, ...] = (), **more: Any) -> Snapshot:
    demand = more.pop("demand", Demand(time=NOW, queued=queued))
    return Snapshot(
        **{
            "now": NOW,
            "limits": LIMITS,
            "demand": demand,
            "workers": workers,
            "workers_time": NOW,
            "load_times": LOADS,
            **more,
        }
    )


def at_rest(seen: Snapshot) -> Decision:
    """The decision when the same has been seen for long."""
    return decide(seen, History())


def test_held_work_starts_a_worker_at_once_from_zero() -> None:
    decision = decide(snapshot(queued=queue(1)), History())
    assert (decision.workers, decision.start, decision.remove) == (1, 1, ())
    assert decision.reason == (
        "0 -> 1 workers: queued work (1, 100 s of GPU time, the oldest waits for 0 s; 0.0 a minute are expected) "
        "to start within 120 s needs 1."
    )


def test_as_many_are_started_as_the_objective_needs() -> None:
    # A new worker is there in 90 s and may still begin a second one of 20 s by 120 s, but none of 100 s.
    assert decide(snapshot(queued=queue(6, seconds=100.0)), History()).start == 6
    assert decide(snapshot(queued=queue(6, seconds=20.0)), History()).start == 3


def test_those_that_load_already_are_counted() -> None:
    workers = tuple(worker(f"w{index}", LOADING, age=30.0) for index in range(4))
    decision = decide(snapshot(workers, queue(6)), History())
    assert decision.start == 2
    assert "4 of which load already" in decision.reason


def test_lateness_that_a_new_worker_could_not_avoid_starts_none() -> None:
    workers = (worker("w", BUSY, age=30.0, predicted_seconds=100.0),)
    assert decide(snapshot(workers, queue(1, wait=300.0)), History()).start == 0  # free in 70 s, a new one in 90 s


def test_a_worker_that_is_soon_free_saves_a_new_one() -> None:
    soon = (worker("w", BUSY, age=90.0, predicted_seconds=200.0),)
    late = (worker("w", BUSY, age=10.0, predicted_seconds=200.0),)
    assert decide(snapshot(soon, queue(1)), History()).start == 0
    assert decide(snapshot(late, queue(1)), History()).start == 1


def test_a_deadline_of_its_own_comes_before_the_objective() -> None:
    busy = (worker("w", BUSY, age=0.0, predicted_seconds=110.0),)
    assert decide(snapshot(busy, queue(1)), History()).start == 0  # free in 110 s, by the objective of 120 s
    hurried = (Queued(1, 100.0, NOW, start_by_time=NOW + 100.0),)
    assert decide(snapshot(busy, hurried), History()).start == 1


def test_a_worker_that_loads_stays_while_a_generation_waits_that_a_busy_one_was_to_take() -> None:
    workers = (worker("busy", BUSY, age=99.0, predicted_seconds=100.0), worker("new", LOADING, age=60.0))
    assert at_rest(snapshot(workers, queue(1, wait=60.0))).remove == ()
    assert at_rest(snapshot(workers)).remove == ("new",)


def test_an_expected_arrival_keeps_a_worker_and_starts_none_unless_it_would_be_late() -> None:
    demand = Demand(time=NOW, arrivals_60s=0, arrivals_10m=10, mean_seconds_10m=100.0)
    idle = (worker("w", IDLE, age=500.0),)  # one is expected in the 90 s of a load
    assert decide(snapshot(idle, demand=demand), History()).remove == ()
    assert decide(snapshot(demand=demand), History()).start == 0
    slow = snapshot(demand=demand, load_times=(240.0,))
    assert decide(slow, History()).start == 2  # of three that come within so long a load, three quarters


def test_only_named_idle_workers_leave_the_longest_idle_first() -> None:
    workers = (
        worker("busy", BUSY, predicted_seconds=100.0),
        worker("young", IDLE, age=20.0),
        worker("old", IDLE, age=400.0),
    )
    decision = at_rest(snapshot(workers))
    assert decision.remove == ("old", "young")
    assert decision.workers == 1
    assert decision.reason == "3 -> 1 workers: 0.0 a minute are expected, and 2 were not needed for a while."


def test_busy_workers_are_never_removed_also_above_a_lowered_maximum() -> None:  # keda issue 2901
    workers = tuple(worker(f"w{index}", BUSY, predicted_seconds=100.0) for index in range(5))
    decision = at_rest(snapshot(workers, limits=replace(LIMITS, maximum=0)))
    assert (decision.remove, decision.workers) == ((), 5)


def test_an_idle_worker_is_held_for_a_share_of_a_load() -> None:
    workers = (worker("w", IDLE, age=1.0),)
    history = History(((NOW - 4.0, 1),))
    assert decide(snapshot(workers), history).remove == ()
    assert decide(snapshot(workers), History(((NOW - 5.0, 1),))).remove == ("w",)
    assert "1 were a moment ago" in decide(snapshot(workers), history).reason


def test_a_restarted_operator_removes_no_running_work_and_forgets_nothing() -> None:  # keda issue 6233
    before = decide(snapshot((worker("w", BUSY, predicted_seconds=100.0),), queue(2)), History())
    status = json.loads(json.dumps(Record(history=before.history).to_status()))
    later = snapshot((worker("w", IDLE, age=1.0), worker("x", BUSY, predicted_seconds=100.0)))
    remembered = Record.from_status(status, NOW).history
    assert remembered == before.history
    assert decide(later, remembered).remove == decide(later, before.history).remove == ()


def test_after_a_removal_only_what_came_since_starts_a_worker() -> None:
    idle = (worker("w", IDLE, age=500.0), worker("x", BUSY, age=10.0, predicted_seconds=60.0))
    removal = decide(snapshot(idle), History())
    assert removal.remove == ("w",)
    assert removal.history.let_go == (NOW, 1)
    rest, tight = removal.history, replace(LIMITS, objective_seconds=100.0)
    stays = (worker("x", BUSY, age=40.0, predicted_seconds=600.0),)  # it lasts longer than it was predicted to
    old, new = Queued(1, 100.0, NOW - 1.0), Queued(1, 100.0, NOW + 1.0)

    def start(workers: tuple[Worker, ...], *queued: Queued, after: float = 30.0, history: History = rest) -> int:
        now = NOW + after
        seen = snapshot(workers, now=now, limits=tight, demand=Demand(time=now, queued=queued), workers_time=now)
        return decide(seen, history).start

    assert start(stays, old) == 0
    assert start(stays, old, history=History()) == 1
    assert start(stays, old, after=134.0) == 0
    assert start(stays, old, after=136.0) == 1  # a load time and a half later
    assert start(stays, old, new) == 2  # first come, first served: the one that waits longer is before it
    assert start((), old) == 1  # the one that stayed is gone


def test_after_a_removal_an_expectation_starts_no_worker_until_something_has_come() -> None:
    def start(after: float, minute: int, *queued: Queued) -> int:
        demand = Demand(time=NOW + after, queued=queued, arrivals_60s=minute, arrivals_10m=60, mean_seconds_10m=100.0)
        seen = snapshot(now=NOW + after, demand=demand, workers_time=NOW + after, load_times=(240.0,))
        return decide(seen, History(let_go=(NOW, 0))).start

    assert start(50.0, 6) == 0  # the last minute's may have come before
    assert start(59.0, 0) == start(300.0, 0) == 0
    assert start(60.0, 1) > 0
    assert start(50.0, 6, Queued(1, 100.0, NOW + 1.0)) > 0
    assert start(361.0, 0) > 0


@pytest.mark.parametrize(
    ("seen", "because"),
    [
        ({"demand": None}, "the gateway has not said what there is to do"),  # kubernetes issue 105187
        ({"demand": Demand(time=NOW - 60.0)}, "the gateway's figures are 60 s old"),
        ({"demand": Demand(time=NOW, complete=False)}, "the gateway has not yet looked at every worker"),
        ({"workers_time": None}, "the workers' states are not known"),  # keda issue 3064: nothing seen is not zero
        ({"workers_time": NOW - 50.0}, "the workers' states are 50 s old"),  # kuberay issue 1192
    ],
)
def test_missing_and_stale_figures_remove_nobody(seen: dict[str, Any], because: str) -> None:
    decision = at_rest(snapshot((worker("w", IDLE, age=900.0),), **seen))
    assert (decision.workers, decision.remove) == (1, ())
    assert decision.reason == f"Stays at 1 worker: {because}, so none is removed."


def test_the_hold_begins_anew_after_blindness() -> None:
    workers = (worker("w", IDLE, age=900.0),)
    blind = decide(snapshot(workers, demand=None), History())
    assert decide(snapshot(workers), blind.history).remove == ()


def test_stale_figures_still_let_it_grow() -> None:
    demand = Demand(time=NOW - 600.0, queued=queue(3))
    assert decide(snapshot(demand=demand), History()).start == 3


def test_an_unknown_worker_neither_counts_nor_leaves() -> None:  # aibrix issue 1032: nor does it block the others
    workers = (worker("lost", UNKNOWN, age=900.0), worker("idle", IDLE, age=900.0))
    assert at_rest(snapshot(workers)).remove == ("idle",)
    assert decide(snapshot((worker("lost", UNKNOWN),), queue(2)), History()).start == 2


def test_a_worker_that_loads_is_not_removed_under_the_work_it_loads_for() -> None:  # kserve issue 1247
    workers = (worker("w", LOADING, age=600.0),)
    assert at_rest(snapshot(workers, queue(1, wait=600.0))).remove == ()


def test_pods_that_find_no_node_are_not_joined_by_more_and_it_says_so() -> None:  # dynamo issue 14251
    workers = (worker("w", LOADING, age=600.0),)
    decision = decide(snapshot(workers, queue(5), unschedulable=1), History())
    assert decision.start == 0
    assert decision.reason.endswith("but 1 of its pods find no node.")


def test_leaving_workers_hold_their_gpus_against_budget_and_maximum() -> None:  # dynamo issue 12428
    workers = tuple(worker(f"w{index}", LEAVING) for index in range(3))
    decision = decide(snapshot(workers, queue(9), limits=replace(LIMITS, maximum=8, budget=4)), History())
    assert decision.start == 1
    assert decision.reason.endswith("but the GPU budget leaves it 4.")


def test_the_maximum_is_named_where_it_is_the_obstacle() -> None:
    decision = decide(snapshot(queued=queue(20)), History())
    assert decision.workers == 8
    assert decision.reason.endswith("needs 8.") or decision.reason.endswith("but its maximum is 8.")


def test_the_minimum_is_kept_without_any_figures() -> None:
    limits = replace(LIMITS, minimum=2)
    assert decide(snapshot(demand=None, limits=limits), History()).start == 2
    assert at_rest(snapshot(tuple(worker(f"w{i}", IDLE, age=900.0) for i in range(3)), limits=limits)).workers == 2


def test_low_utilization_of_busy_gpus_adds_none_and_says_why() -> None:
    workers = tuple(
        worker(f"w{i}", BUSY, age=100.0, predicted_seconds=400.0, gpu_utilization=Reading(0.08, NOW)) for i in range(2)
    )
    decision = decide(snapshot(workers, queue(4)), History())
    assert decision.start == 0
    assert "the busy ones use less than 20% of their GPUs" in decision.reason


@pytest.mark.parametrize("value", [0.0, 4_294_967_295.0, -1.0, float("nan"), 0.9])  # dcgm-exporter issue 216
def test_absurd_and_high_readings_do_not_stop_growth(value: float) -> None:
    busy = worker("w", BUSY, age=100.0, predicted_seconds=400.0, gpu_utilization=Reading(value, NOW))
    assert decide(snapshot((busy,), queue(1)), History()).start == 1


def test_a_load_is_not_taken_for_an_idle_gpu() -> None:
    workers = (worker("w", LOADING, age=80.0, gpu_utilization=Reading(0.01, NOW)),)
    assert decide(snapshot(workers, queue(3)), History()).start == 1  # that one takes two


def test_a_gpu_seen_at_work_delays_a_removal_by_a_minute_at_most() -> None:
    young = worker("w", IDLE, age=30.0, gpu_utilization=Reading(0.5, NOW))
    stuck = worker("w", IDLE, age=61.0, gpu_utilization=Reading(0.5, NOW))
    assert at_rest(snapshot((young,))).remove == ()
    assert at_rest(snapshot((stuck,))).remove == ("w",)


def test_the_load_time_is_the_80th_percentile_or_an_assumption() -> None:
    assert load_seconds(()) == ASSUMED_LOAD_SECONDS
    assert load_seconds((10.0, 20.0, 30.0, 40.0, 50.0)) == 40.0


WORKERS = st.lists(
    st.builds(
        lambda state, age, seconds: (state, age, seconds),
        st.sampled_from([IDLE, BUSY, LOADING, LEAVING, UNKNOWN]),
        st.floats(0.0, 900.0),
        st.floats(1.0, 600.0),
    ),
    max_size=10,
).map(
    lambda drawn: tuple(
        worker(f"w{index}", state, age=age, predicted_seconds=seconds if state is BUSY else 0.0)
        for index, (state, age, seconds) in enumerate(drawn)
    )
)
QUEUES = st.lists(
    st.builds(lambda s, w: Queued(1, s, NOW - w), st.floats(1.0, 600.0), st.floats(0.0, 600.0)), max_size=12
)
ARRIVALS = st.integers(0, 40)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    demand = Demand(
        time=NOW - draw(st.sampled_from([0.0, 100.0])),
        complete=draw(st.booleans()),
        queued=tuple(draw(QUEUES)),
        arrivals_60s=draw(ARRIVALS),
        mean_seconds_60s=100.0,
        arrivals_10m=draw(ARRIVALS),
        mean_seconds_10m=100.0,
    )
    maximum = draw(st.integers(0, 10))
    limits = replace(
        LIMITS, minimum=draw(st.integers(0, maximum)), maximum=maximum, budget=draw(st.none() | st.integers(0, 10))
    )
    loads = draw(st.sampled_from([(), LOADS, (240.0,), (15.0, 10.0)]))
    return snapshot(draw(WORKERS), demand=draw(st.none() | st.just(demand)), limits=limits, load_times=loads)


HISTORIES = st.builds(
    lambda steps, let_go: History(tuple(sorted(steps)), let_go),
    st.lists(st.tuples(st.floats(NOW - 60.0, NOW), st.integers(0, 10)), max_size=3),
    st.none() | st.tuples(st.floats(NOW - 300.0, NOW), st.integers(0, 10)),
)


@given(snapshots(), HISTORIES)
def test_bounds_are_kept_and_running_work_stays(seen: Snapshot, history: History) -> None:
    decision = decide(seen, history)
    staying = {w.name: w.state for w in seen.workers if w.state is not LEAVING}
    ceiling = seen.limits.maximum if seen.limits.budget is None else min(seen.limits.maximum, seen.limits.budget)
    assert decision.workers == len(staying) + decision.start - len(decision.remove)
    assert len(set(decision.remove)) == len(decision.remove)
    assert all(staying[name] in {IDLE, LOADING} for name in decision.remove)
    assert not (decision.start and decision.remove)
    if decision.start:
        assert len(seen.workers) + decision.start <= ceiling
    if decision.remove:
        assert decision.workers >= min(seen.limits.minimum, ceiling)
        assert seen.demand is not None
        assert seen.demand.time == NOW
        assert seen.demand.complete
    assert decision.reason.endswith(".")


@given(snapshots(), HISTORIES, st.floats(1.0, 600.0), st.floats(0.0, 600.0))
def test_more_demand_never_means_fewer_workers(seen: Snapshot, history: History, seconds: float, wait: float) -> None:
    if seen.demand is None:
        return
    more = replace(seen, demand=replace(seen.demand, queued=(*seen.demand.queued, Queued(1, seconds, NOW - wait))))
    busier = replace(seen, demand=replace(seen.demand, arrivals_60s=seen.demand.arrivals_60s + 5))
    assert decide(more, history).workers >= decide(seen, history).workers
    assert decide(busier, history).workers >= decide(seen, history).workers


@given(snapshots(), HISTORIES)
def test_a_decision_that_is_carried_out_is_not_taken_back_under_constant_demand(
    seen: Snapshot, history: History
) -> None:
    first = decide(seen, history)
    kept = tuple(w for w in seen.workers if w.name not in first.remove)
    new = tuple(worker(f"new{index}", LOADING, age=0.0) for index in range(first.start))
    second = decide(replace(seen, workers=kept + new), first.history)
    if first.start:
        assert second.remove == ()
    if first.remove:
        assert second.start == 0


@given(st.integers(0, 40), st.integers(0, 400), st.floats(10.0, 600.0), st.sampled_from([15.0, 90.0, 240.0]), WORKERS)
def test_under_constant_demand_no_worker_comes_after_one_has_left(
    minute: int, ten: int, seconds: float, load: float, workers: tuple[Worker, ...]
) -> None:
    demand = Demand(time=NOW, arrivals_60s=minute, arrivals_10m=ten, mean_seconds_10m=seconds)
    history, present, removed = History(), tuple(w for w in workers if w.state in {IDLE, LOADING}), 0
    for step in range(40):
        now = NOW + 15.0 * step
        at_rest = tuple(replace(w, state=IDLE, since=now) if now - w.since > load else w for w in present)
        seen = replace(
            snapshot(at_rest, demand=replace(demand, time=now), load_times=(load,)), now=now, workers_time=now
        )
        decision = decide(seen, history)
        history = decision.history
        assert not (removed and decision.start)
        removed += len(decision.remove)
        new = (Worker(name=f"new{step}-{n}", state=LOADING, since=now) for n in range(decision.start))
        present = (*(w for w in at_rest if w.name not in decision.remove), *new)


@given(st.lists(st.tuples(st.floats(0.0, 1000.0), st.integers(0, 1000)), max_size=80))
def test_the_memory_is_bounded_and_holds_no_worker_shorter(steps: list[tuple[float, int]]) -> None:
    history, time = History(), 0.0
    for gap, need in steps:
        time += gap / 100
        history = history.remember(time, need, 50.0)
    assert len(history.needs) <= MAX_STEPS
    recent, clock = [], 0.0
    for gap, need in steps:
        clock += gap / 100
        recent.append((clock, need))
    assert history.held >= max((need for when, need in recent if when > time - 50.0), default=0)
    assert [count for _, count in history.needs] == sorted((count for _, count in history.needs), reverse=True)
