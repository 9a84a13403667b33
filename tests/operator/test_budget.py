from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wan22_operator.budget import Claim, granted
from wan22_operator.lateness import lateness
from wan22_operator.names import PoolKey
from wan22_operator.scaling.snapshot import Demand, Queued

NOW = 1000.0


def of(claims: dict[str, Claim]) -> dict[PoolKey, Claim]:
    return {PoolKey("videos", name): claim for name, claim in claims.items()}


def ask(claims: dict[str, Claim], pool: str, *, held: int, wants: int, late: float = 0.0, step: int = 1) -> int:
    asked = Claim(held, wants, late, NOW)
    return granted(of(claims), PoolKey("videos", pool), asked, held=held, step=step, budget=8, fresh_seconds=45.0).gpus


def test_a_pool_gets_what_is_free_and_no_more() -> None:
    claims = {"a": Claim(5, 5)}
    assert ask(claims, "b", held=0, wants=2) == 2
    assert ask(claims, "b", held=0, wants=9) == 3
    assert ask(claims, "b", held=2, wants=9) == 3


def test_a_pool_of_two_gpus_a_worker_gets_whole_workers() -> None:
    assert ask({"a": Claim(5, 5)}, "b", held=0, wants=8, step=2) == 2


def test_what_is_free_is_left_to_who_is_later() -> None:
    claims = {"later": Claim(4, 7, 100.0, NOW - 5)}
    assert ask(claims, "b", held=0, wants=4, late=1.0) == 1
    assert ask(claims, "b", held=0, wants=4, late=200.0) == 4
    said_long_ago = {"later": Claim(4, 7, 100.0, NOW - 60)}
    assert ask(said_long_ago, "b", held=0, wants=4, late=1.0) == 4


def test_a_budget_that_was_lowered_takes_nothing_from_who_has_it() -> None:
    assert ask({"a": Claim(9, 9)}, "b", held=3, wants=5) == 3


pools = st.dictionaries(
    st.sampled_from("abcd"), st.tuples(st.integers(0, 4), st.integers(0, 8), st.floats(0, 100)), min_size=1
)


@given(pools)
def test_however_many_ask_in_whatever_order_the_budget_is_kept(asking: dict[str, tuple[int, int, float]]) -> None:
    claims: dict[str, Claim] = {}
    for name, (_, wants, late) in asking.items():
        asked = Claim(0, wants, late, NOW)
        claims[name] = granted(of(claims), PoolKey("videos", name), asked, held=0, step=1, budget=8, fresh_seconds=45.0)
    assert sum(claim.gpus for claim in claims.values()) <= 8


def test_lateness_is_what_waits_beyond_the_objective_for_each_gpu() -> None:
    queue = (Queued(1, 60.0, NOW - 10), Queued(2, 120.0, NOW - 5))
    demand = Demand(time=NOW, queued=queue)
    # the first starts at 10 s of waiting, the two others after 60 s of work: at 65 s
    assert lateness(demand, 1, 1, 20.0, NOW) == 2 * (65 - 20)
    assert lateness(demand, 1, 2, 20.0, NOW) == 45
    assert lateness(demand, 1, 1, 100.0, NOW) == 0
    assert lateness(None, 1, 1, 100.0, NOW) == 0
