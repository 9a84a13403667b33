from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wan22_bench.scaling.policies.kpa import Kpa, KpaSettings
from wan22_bench.scaling.simulator import Setup, Simulation
from wan22_bench.scaling.trace import Trace

DECISIONS = json.loads(Path(__file__).with_name("knative_decisions.json").read_text())
"""What Knative's own autoscaler decided, by tools/knative."""


@pytest.mark.parametrize("play", DECISIONS, ids=lambda play: f"target {play['settings']['target']:g}")
def test_knatives_own_autoscaler_decides_the_same(play: dict[str, Any]) -> None:
    kpa = Kpa(KpaSettings(**play["settings"]))
    found = [kpa.scale(time, stable, panic, ready) for time, stable, panic, ready, _ in play["rows"]]
    assert found == [row[-1] for row in play["rows"]]
    assert (min(found), max(found) > 10) == (0, True)


def test_the_desired_pods_are_the_average_concurrency_over_the_target() -> None:
    kpa = Kpa(KpaSettings(target=0.7))
    assert kpa.scale(0.0, 2.1, 2.1, ready_pods=2) == 3
    assert kpa.scale(2.0, 2.2, 2.2, ready_pods=3) == 4


def test_it_shrinks_by_half_at_most_and_grows_by_the_rate() -> None:
    assert Kpa(KpaSettings()).scale(0.0, 1.0, 1.0, ready_pods=10) == 5
    assert Kpa(KpaSettings(max_scale_up_rate=2.0, panic_threshold=100.0)).scale(0.0, 50.0, 50.0, ready_pods=3) == 6


def test_panic_follows_the_short_window_and_never_shrinks_until_a_stable_window_has_passed() -> None:
    kpa = Kpa(KpaSettings(target=1.0))
    assert kpa.scale(0.0, 2.0, 4.0, ready_pods=2) == 4  # twice what is ready: panic
    assert kpa.scale(2.0, 2.0, 3.0, ready_pods=2) == 4
    assert kpa.scale(4.0, 3.0, 9.0, ready_pods=4) == 9
    assert kpa.scale(60.0, 5.0, 5.0, ready_pods=9) == 9  # over the threshold last at 4
    assert kpa.scale(64.0, 5.0, 5.0, ready_pods=9) == 9
    assert kpa.scale(66.0, 5.0, 5.0, ready_pods=9) == 5


def test_a_scale_down_delay_holds_the_highest() -> None:
    kpa = Kpa(KpaSettings(scale_down_delay_seconds=30.0))
    assert [kpa.scale(time, load, load, 4) for time, load in [(0.0, 4.0), (28.0, 2.0), (30.0, 2.0)]] == [4, 4, 2]


def play(settings: KpaSettings, *generations: tuple[float, float]) -> Simulation:
    arrivals, seconds = np.array(generations, dtype=np.float64).T
    setup = Setup(load_seconds=10.0, load_spread=0.0, prediction_spread=0.0, stop_seconds=2.0)
    return Simulation(Trace(arrivals, seconds), setup, Kpa(settings))


def test_the_activator_holds_a_request_and_starts_a_pod_at_the_next_tick() -> None:
    assert play(KpaSettings(), (0.5, 100.0)).run().waits.tolist() == [pytest.approx(11.5)]


def test_the_last_pod_stays_for_a_stable_window_of_silence() -> None:
    # Ready at 12 and done at 62; the average of the 60 s window is 0 from 122 on: gone two seconds after.
    outcome = play(KpaSettings(), (1.0, 50.0), (400.0, 1.0)).run()
    first = 122.0 + 2.0 - 2.0
    assert outcome.loads == 2
    assert outcome.gpu_seconds == pytest.approx(first + 11.0, abs=4.0)


def test_the_average_is_over_the_window_and_not_over_what_was_before() -> None:
    # Four at once, of 100 s: the panic window of 6 s sees four from 6 s on, so that by then four pods load or serve.
    outcome = play(KpaSettings(), *[(0.0, 100.0)] * 4).run()
    assert outcome.peak_workers == 4
    assert outcome.waits.max() <= 6.0 + 2.0 + 10.0
