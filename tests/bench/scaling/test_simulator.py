from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wan22_bench.scaling.simulator import Change, Outcome, Setup, SimulatedWorker, Simulation, State
from wan22_bench.scaling.trace import Trace

EXACT = Setup(load_seconds=90.0, load_spread=0.0, prediction_spread=0.0, stop_seconds=2.0)


class Scripted:
    """Does at each decision what a table says for its time: how many to start, and how many of the oldest to stop."""

    period = 10.0
    eager = False

    def __init__(self, *steps: tuple[float, int, int], grace_seconds: float = 600.0) -> None:
        self._steps = list(steps)
        self._grace = grace_seconds

    def may_sleep(self, _fleet: Simulation) -> bool:
        return False

    def decide(self, fleet: Simulation) -> Change:
        if not self._steps or fleet.now < self._steps[0][0]:
            return Change()
        _, start, stop = self._steps.pop(0)
        return Change(start=start, stop=fleet.staying[:stop], grace_seconds=self._grace)


def trace(*generations: tuple[float, float]) -> Trace:
    arrivals, seconds = np.array(generations, dtype=np.float64).reshape(-1, 2).T
    return Trace(arrivals, seconds)


def play(generations: Sequence[tuple[float, float]], policy: Scripted, setup: Setup = EXACT) -> Outcome:
    return Simulation(trace(*generations), setup, policy, timeline=True).run()


def area(outcome: Outcome) -> float:
    """Worker seconds, from the timeline: each row holds until the next."""
    times, workers, _ = outcome.timeline.T
    return float((np.diff(times) * workers[:-1]).sum())


def test_a_worker_loads_and_serves_first_come_first_served() -> None:
    # Created at 0 and ready at 90: 5..95 -> starts 90, ends 190; the second starts 190, ends 240.
    outcome = play([(5.0, 100.0), (20.0, 50.0)], Scripted((0.0, 1, 0), (240.0, 0, 1)))
    assert outcome.waits.tolist() == [85.0, 170.0]
    assert (outcome.loads, outcome.stops, outcome.flaps, outcome.killed, outcome.peak_workers) == (1, 1, 0, 0, 1)
    assert outcome.useful_seconds == 150.0
    assert outcome.loading_seconds == 90.0
    assert outcome.gpu_seconds == 240.0


def test_an_idle_worker_that_is_removed_frees_its_gpu_a_little_later() -> None:
    outcome = play([(0.0, 10.0), (200.0, 10.0)], Scripted((0.0, 2, 0), (120.0, 0, 1)))
    # Both ready at 90; one serves 90..100, and one is removed at 120, free at 122; the other ends with all at 210.
    assert outcome.gpu_seconds == 122.0 + 210.0


def test_a_worker_that_is_busy_ends_its_generation_within_the_grace() -> None:
    outcome = play([(0.0, 100.0), (300.0, 10.0)], Scripted((0.0, 1, 0), (100.0, 0, 1), (200.0, 1, 0)))
    assert (outcome.killed, outcome.waits.tolist()) == (0, [90.0, 0.0])  # the second worker is ready at 290
    assert outcome.gpu_seconds == 190.0 + 110.0


def test_a_generation_cut_off_by_the_grace_starts_anew_elsewhere() -> None:
    script = Scripted((0.0, 1, 0), (100.0, 1, 1), grace_seconds=30.0)
    outcome = play([(0.0, 100.0)], script)
    # Cut off at 130; the second worker is ready at 190 and serves all of it again.
    assert (outcome.killed, outcome.waits.tolist(), outcome.useful_seconds) == (1, [190.0], 100.0)
    assert outcome.gpu_seconds == 130.0 + 190.0


def test_a_removal_that_a_start_follows_within_a_load_is_a_flap() -> None:
    soon = play([(0.0, 10.0)], Scripted((0.0, 2, 0), (10.0, 0, 1), (90.0, 1, 0)))
    assert (soon.flaps, soon.regrets) == (1, 1)
    late = play([(0.0, 200.0)], Scripted((0.0, 2, 0), (10.0, 0, 1), (110.0, 1, 0)))
    assert (late.flaps, late.regrets) == (0, 0)
    news = play([(0.0, 10.0), (50.0, 10.0)], Scripted((0.0, 2, 0), (10.0, 0, 1), (90.0, 1, 0)))
    assert (news.flaps, news.regrets) == (0, 1)  # something has come: it is regretted, and no flap


def test_no_more_workers_than_gpus_and_those_that_leave_hold_theirs() -> None:
    setup = Setup(load_seconds=90.0, max_workers=2, load_spread=0.0)
    outcome = play([(0.0, 300.0)], Scripted((0.0, 5, 0), (100.0, 1, 1)), setup)
    assert (outcome.peak_workers, outcome.loads) == (2, 2)


class Random:
    """Starts and stops anything at random, and sees to it that there is always somebody."""

    period = 15.0
    eager = True

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def may_sleep(self, _fleet: Simulation) -> bool:
        return True

    def decide(self, fleet: Simulation) -> Change:
        staying = fleet.staying
        stop = [worker for worker in staying if self._rng.random() < 0.05]
        short = fleet.outstanding > 0 and len(stop) == len(staying)
        return Change(start=int(self._rng.random() < 0.1) + short, stop=stop, grace_seconds=60.0)


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.floats(0.0, 3600.0), st.floats(1.0, 55.0)), max_size=40),
    st.integers(0, 1000),
    st.sampled_from([5.0, 90.0]),
)
def test_every_generation_runs_and_gpu_hours_are_the_lives_of_the_workers(
    generations: list[tuple[float, float]], seed: int, load_seconds: float
) -> None:
    generations.sort()
    setup = Setup(load_seconds=load_seconds, seed=seed)
    outcome = Simulation(trace(*generations), setup, Random(seed), timeline=True).run()
    assert len(outcome.waits) == len(generations)
    assert (outcome.waits >= 0.0).all()
    assert outcome.useful_seconds == pytest.approx(sum(seconds for _, seconds in generations))
    assert outcome.gpu_seconds == pytest.approx(area(outcome))
    assert outcome.gpu_seconds >= outcome.useful_seconds - 1e-6
    assert outcome.killed == 0  # none is as long as the grace
    assert not len(outcome.timeline) or outcome.timeline[-1][2] == 0  # nothing is left undone


def test_the_worker_that_rested_last_serves_next() -> None:
    served: list[int] = []

    class Watching(Scripted):
        def decide(self, fleet: Simulation) -> Change:
            served.extend(worker.number for worker in fleet.workers.values() if worker.state is State.BUSY)
            return super().decide(fleet)

    # 0 and 1 are ready at 90, then 1 rests last of the two; each is seen at one decision.
    play([(100.0, 5.0), (120.0, 5.0)], Watching((0.0, 2, 0)))
    assert served == [1, 1]


def test_a_simulated_worker_is_told_apart_by_identity() -> None:
    assert SimulatedWorker(1, 0.0, 90.0) != SimulatedWorker(1, 0.0, 90.0)
