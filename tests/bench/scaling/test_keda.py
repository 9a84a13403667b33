from __future__ import annotations

import numpy as np

from wan22_bench.scaling.policies.keda import Keda, KedaSettings
from wan22_bench.scaling.simulator import Outcome, Setup, Simulation
from wan22_bench.scaling.trace import Trace

SETUP = Setup(load_seconds=90.0, load_spread=0.0, prediction_spread=0.0, stop_seconds=2.0)


def play(settings: KedaSettings, *generations: tuple[float, float], horizon: float = 0.0) -> Outcome:
    arrivals, seconds = np.array(generations, dtype=np.float64).T
    return Simulation(Trace(arrivals, seconds), SETUP, Keda(settings), horizon=horizon).run()


def test_the_first_generation_waits_for_the_poll_and_the_load() -> None:
    outcome = play(KedaSettings(polling_seconds=30.0), (31.0, 10.0))
    assert outcome.waits.tolist() == [60.0 + 90.0 - 31.0]


def test_zero_comes_one_cooldown_after_the_last_activity_that_a_poll_saw() -> None:
    # The poll at 0 starts one, ready at 90; the polls until 90 see work, that at 120 none; 90 + 300 has passed at 420.
    outcome = play(KedaSettings(), (0.0, 20.0), (1000.0, 20.0))
    first_life = 420.0 + 2.0
    second_life = 1110.0 + 20.0 - 1020.0  # polled at 1020, ready at 1110, done and over at 1130
    assert (outcome.loads, outcome.gpu_seconds) == (2, first_life + second_life)


def test_from_one_replica_on_the_autoscaler_decides() -> None:
    outcome = play(KedaSettings(target=1.0, polling_seconds=15.0), *[(0.0, 100.0)] * 4)
    # The poll at 0 gives one, the sync of the same tick the other three.
    assert (outcome.peak_workers, outcome.waits.tolist()) == (4, [90.0] * 4)


def test_at_zero_without_work_nothing_runs() -> None:
    settings = KedaSettings(cooldown_seconds=0.0, down_window_seconds=0.0, polling_seconds=5.0)
    outcome = play(settings, (0.0, 10.0), horizon=86_400.0)
    assert outcome.gpu_seconds == 90.0 + 10.0 + 2.0
