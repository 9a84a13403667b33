from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wan22_gateway.scheduling.plan import Waiting
from wan22_gateway.scheduling.shares import PRIORITY_WEIGHTS, Priority, Share, activated, dispatched

from .queues import Pool, Tenant, seconds

HIGH, NORMAL, LOW = Priority.HIGH, Priority.NORMAL, Priority.LOW


def keep_queued(pool: Pool, wants: list[tuple[str, Priority, float]], rounds: int) -> None:
    """Serves a pool whose tenants always have more to do than it can."""
    key = 0
    for _ in range(rounds):
        for name, priority, cost in wants:
            while len(pool.tenants[name].waiting.get(priority, ())) < 8:
                pool.submit(name, priority, Waiting(key, cost, cost))
                key += 1
        pool.advance(pool.ends[0][0])


@given(st.lists(st.tuples(st.sampled_from([1.0, 2.0, 4.0]), seconds), min_size=2, max_size=4), st.integers(1, 3))
def test_tenants_that_always_wait_get_gpu_seconds_by_weight(terms: list[tuple[float, float]], workers: int) -> None:
    pool = Pool(workers, {f"t{n}": Tenant(weight) for n, (weight, _) in enumerate(terms)})
    wants = [(f"t{n}", NORMAL, cost) for n, (_, cost) in enumerate(terms)]
    keep_queued(pool, wants, rounds=10)
    before = dict(pool.used)
    keep_queued(pool, wants, rounds=300)
    normalized = [
        (pool.used.get(f"t{n}", 0.0) - before.get(f"t{n}", 0.0)) / weight for n, (weight, _) in enumerate(terms)
    ]
    # Goyal, theorem 1: two flows differ by at most one largest job of each over its weight, whatever the interval.
    largest = sorted((cost / weight for weight, cost in terms), reverse=True)
    assert max(normalized) - min(normalized) <= largest[0] + largest[1] + 1e-6


def test_priorities_share_by_their_weights_and_low_is_never_starved() -> None:
    pool = Pool(2, {"a": Tenant()})
    keep_queued(pool, [("a", priority, 10.0) for priority in Priority], rounds=2100)
    counts = {priority: sum(1 for _, _, p, _ in pool.served if p == priority) for priority in Priority}
    for priority, weight in PRIORITY_WEIGHTS.items():
        assert abs(counts[priority] / len(pool.served) - weight / 21) < 0.01


def test_a_high_generation_passes_a_backlog_of_a_thousand_low_ones_of_any_age() -> None:
    pool = Pool(1, {"a": Tenant()})
    for key in range(1000):
        pool.submit("a", LOW, Waiting(key, 10.0, 10.0))
    pool.advance(100 * 10.0)
    pool.submit("a", HIGH, Waiting(5000, 10.0, 10.0))
    before = len(pool.served)
    pool.advance(pool.now + 20.0)
    assert [key for *_, key in pool.served[before : before + 1]] == [5000]


def test_a_tenants_high_priority_takes_nothing_from_another_tenant() -> None:
    pool = Pool(1, {"a": Tenant(), "b": Tenant()})
    keep_queued(pool, [("a", HIGH, 10.0), ("b", LOW, 10.0)], rounds=400)
    assert abs(pool.used["a"] - pool.used["b"]) <= 20.0


def test_a_tenant_that_pauses_saves_nothing_up() -> None:
    pool = Pool(1, {"a": Tenant(), "b": Tenant()})
    keep_queued(pool, [("a", NORMAL, 10.0)], rounds=100)
    before = pool.used["a"]
    keep_queued(pool, [("a", NORMAL, 10.0), ("b", NORMAL, 10.0)], rounds=100)
    assert abs(pool.used["b"] - (pool.used["a"] - before)) <= 20.0


def test_wrong_predictions_are_made_good_when_the_truth_is_known() -> None:
    pool = Pool(1, {"honest": Tenant(), "lucky": Tenant()})
    key = 0
    for _ in range(400):
        for name, predicted in (("honest", 20.0), ("lucky", 5.0)):  # both really take 20
            while len(pool.tenants[name].waiting.get(NORMAL, ())) < 2:
                pool.submit(name, NORMAL, Waiting(key, 20.0, predicted))
                key += 1
        pool.advance(pool.ends[0][0])
    assert abs(pool.used["honest"] - pool.used["lucky"]) <= 40.0


@given(
    st.lists(
        st.tuples(st.floats(0, 60), st.integers(0, 3), st.sampled_from(Priority), seconds), min_size=1, max_size=60
    ),
    st.integers(1, 3),
)
def test_no_worker_idles_while_something_may_run_and_everything_is_served(
    arrivals: list[tuple[float, int, Priority, float]], workers: int
) -> None:
    limits = [None, 1, 2, None]
    pool = Pool(workers, {f"t{n}": Tenant(1.0 + n, limit) for n, limit in enumerate(limits)})
    for key, (gap, tenant, priority, cost) in enumerate(arrivals):
        pool.advance(pool.now + gap)
        pool.submit(f"t{tenant}", priority, Waiting(key, cost, cost))
        assert not pool.idle_although()
    pool.advance(1e9)
    assert sorted(key for *_, key in pool.served) == list(range(len(arrivals)))
    for name in pool.tenants:  # within a tenant's priority nobody passes anybody
        for priority in Priority:
            keys = [key for _, n, p, key in pool.served if (n, p) == (name, priority)]
            assert keys == sorted(keys)


@given(st.floats(0, 1e6), st.floats(0, 1e6), seconds, st.sampled_from([0.5, 1.0, 3.0]), st.sampled_from(Priority))
def test_time_never_goes_back_and_a_laggard_catches_up_by_one_generation_at_most(
    tag: float, time: float, cost: float, weight: float, priority: Priority
) -> None:
    share, after = dispatched(Share(tag=tag), time, priority, cost, weight)
    assert after >= time
    assert share.tag >= max(tag + cost / weight, time)
    assert activated(share, after).tag >= after
